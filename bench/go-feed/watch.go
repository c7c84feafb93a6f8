package main

import (
	"context"
	"errors"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// watch is etcd's own client: the event is received and its bytes are in hand.
func watch(r *run) error {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{r.etcd}, DialTimeout: 5 * time.Second})
	if err != nil {
		return err
	}
	defer client.Close()
	done := make(chan struct{})
	go func() {
		onCore0()
		for !r.stop.Load() {
			r.report.Calls += calls()
		}
		close(done)
	}()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	// From the first revision on, so that document 0 comes as an event.
	for response := range client.Watch(ctx, policyKey, clientv3.WithRev(1)) {
		at := now()
		for _, event := range response.Events {
			number, err := number(string(event.Kv.Value))
			if err != nil {
				return err
			}
			if err := r.note(number, at); err != nil {
				return err
			}
			if number == r.last {
				<-done
				return nil
			}
		}
	}
	return errors.New("the watch ended")
}

// calls are a thousand of a function that does nothing: the load of the bare watch.
func calls() uint64 {
	for range 1000 {
		inner()
	}
	return 1000
}

//go:noinline
func inner() {}
