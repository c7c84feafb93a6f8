// A client and a server of go-micro v1, with Consul as their registry, as they are in a fleet that moves to Fusebox
// or from it. The tests of ../../user-service/tests/go_micro run them.
package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/micro/go-micro/registry"
	"github.com/micro/go-micro/registry/consul"
)

const usage = "usage: go-micro client|server <consul> <service>"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 3 {
		return fmt.Errorf("%s", usage)
	}
	// A host and a port, to go-micro; what is none it leaves out, without a word.
	address := strings.TrimPrefix(args[1], "http://")
	known := consul.NewRegistry(registry.Addrs(address))
	switch args[0] {
	case "client":
		return call(known, args[2], os.Stdin)
	case "server":
		return serve(known, args[2])
	}
	return fmt.Errorf("%s", usage)
}
