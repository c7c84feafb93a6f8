package main

import (
	"github.com/spf13/viper"
	_ "github.com/spf13/viper/remote"
)

// remote is as Viper's readme has it.
func remote(r *run) (*viper.Viper, error) {
	v := viper.New()
	v.SetConfigType("json")
	if err := v.AddRemoteProvider("etcd3", r.etcd, configKey); err != nil {
		return nil, err
	}
	return v, v.ReadRemoteConfig()
}

// viperOnChannel reads without pause what Viper's own goroutine decodes into the same map meanwhile.
func viperOnChannel(r *run) error {
	v, err := remote(r)
	if err != nil {
		return err
	}
	if err := v.WatchRemoteConfigOnChannel(); err != nil {
		return err
	}
	onCore0()
	return read(r, v, func() error { return nil })
}

// viperLoop is the loop of Viper's readme without its pause of five seconds: it asks etcd again and again, and
// reads between.
func viperLoop(r *run) error {
	v, err := remote(r)
	if err != nil {
		return err
	}
	onCore0()
	return read(r, v, v.WatchRemoteConfig)
}

// read notes the first sight of each document. Its number stands in it twice, and must be the same where the
// first did not change around the reading of the second.
func read(r *run, v *viper.Viper, refresh func() error) error {
	current, torn := ^uint32(0), ^uint32(0)
	for !r.stop.Load() {
		if err := refresh(); err != nil {
			r.report.Failed++
			continue
		}
		first := v.GetUint32("first")
		last := v.GetUint32("last")
		again := v.GetUint32("first")
		r.report.Calls += 3
		if first != current {
			current = first
			if err := r.note(first, now()); err != nil {
				return err
			}
		}
		if first == again && last != first {
			r.report.Torn++
			if torn != first {
				torn = first
				r.report.TornChanges++
			}
		}
	}
	return nil
}
