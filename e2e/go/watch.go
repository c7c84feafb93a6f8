package main

import (
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// watch tells the value of a key and every later one.
func watch(ctx context.Context, etcd *clientv3.Client, key string) error {
	got, err := etcd.Get(ctx, key)
	if err != nil {
		return err
	}
	for _, kv := range got.Kvs {
		fmt.Println("value", string(kv.Value))
	}
	for answer := range etcd.Watch(ctx, key, clientv3.WithRev(got.Header.Revision+1)) {
		if err := answer.Err(); err != nil {
			return err
		}
		for _, event := range answer.Events {
			fmt.Println("value", string(event.Kv.Value))
		}
	}
	return nil
}
