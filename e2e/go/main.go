// What a service in Go does with what the operator writes into etcd. The tests of ../tests/other_languages run
// it; docs/other-languages.md quotes it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const usage = "usage: go viper|watch <etcd> <key>\n       go report <etcd> <cluster> <namespace>/<name> <instance>"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if len(args) == 3 && args[0] == "viper" {
		return withViper(ctx, args[1], args[2])
	}
	if len(args) < 3 {
		return fmt.Errorf(usage)
	}
	etcd, err := clientv3.New(clientv3.Config{Endpoints: []string{args[1]}, DialTimeout: 5 * time.Second})
	if err != nil {
		return err
	}
	defer etcd.Close()
	switch {
	case len(args) == 3 && args[0] == "watch":
		return watch(ctx, etcd, args[2])
	case len(args) == 5 && args[0] == "report":
		prefix := "/fusebox/v1/" + args[2]
		name, err := os.Hostname()
		if err != nil {
			return err
		}
		return takePart(ctx, etcd, prefix+"/policy/"+args[3], prefix+"/reports/"+args[3]+"/"+args[4], name)
	}
	return fmt.Errorf(usage)
}
