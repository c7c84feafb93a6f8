package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/viper"
	_ "github.com/spf13/viper/remote"
)

// withViper reads the config document with Viper's own etcd3 provider and tells every timeout that it sees.
func withViper(ctx context.Context, etcd, key string) error {
	config := viper.New()
	config.SetConfigType("json")
	if err := config.AddRemoteProvider("etcd3", etcd, key); err != nil {
		return err
	}
	if err := config.ReadRemoteConfig(); err != nil {
		return err
	}
	timeout := config.GetInt("service.user.timeout")
	fmt.Println("timeout", timeout)
	if err := config.WatchRemoteConfigOnChannel(); err != nil {
		return err
	}
	// Viper calls nobody when a remote document changes, and writes into the map that it reads from without a lock.
	// So it is asked, and seldom.
	for tick := time.Tick(250 * time.Millisecond); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick:
			if now := config.GetInt("service.user.timeout"); now != timeout {
				timeout = now
				fmt.Println("timeout", timeout)
			}
		}
	}
}
