package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Policy is as much of a policy as this service can enforce: a timeout for each command. Whatever else a
// document says, it refuses: `Enforced` must not be true of a rule that nobody keeps.
type Policy struct {
	Schema  int    `json:"schema"`
	UID     string `json:"uid"`
	Hash    string `json:"hash"`
	Inbound struct {
		Default struct{} `json:"default"`
	} `json:"inbound"`
	Outbound struct {
		Default  Terms            `json:"default"`
		Commands map[string]Terms `json:"commands"`
	} `json:"outbound"`
}

// Terms of a command.
type Terms struct {
	TimeoutMs int64 `json:"timeoutMs"`
}

// Report is what docs/reference/report-v1.schema.json describes, without what this service never says.
type Report struct {
	Instance  string    `json:"instance"`
	Boot      string    `json:"boot"`
	Library   string    `json:"library"`
	Hash      string    `json:"hash,omitempty"`
	AppliedAt time.Time `json:"appliedAt"`
	Rejected  *Rejected `json:"rejected,omitempty"`
}

// Rejected is a document that was refused.
type Rejected struct {
	Hash   string `json:"hash,omitempty"`
	Reason string `json:"reason"`
}

// read refuses a document that it does not understand whole.
func read(document []byte) (*Policy, *Rejected) {
	var named struct {
		Schema int    `json:"schema"`
		Hash   string `json:"hash"`
	}
	if err := json.Unmarshal(document, &named); err != nil {
		return nil, &Rejected{Reason: err.Error()}
	}
	if named.Schema != 1 {
		return nil, &Rejected{named.Hash, fmt.Sprintf("schema %d, this service reads 1", named.Schema)}
	}
	strict := json.NewDecoder(bytes.NewReader(document))
	strict.DisallowUnknownFields()
	policy := new(Policy)
	if err := strict.Decode(policy); err != nil {
		return nil, &Rejected{named.Hash, err.Error()}
	}
	return policy, nil
}

// takePart follows the policy and reports what is in force, until it is told to end.
func takePart(ctx context.Context, etcd *clientv3.Client, policyKey, reportKey, name string) error {
	report := Report{Instance: name, Boot: rand.Text(), Library: "example 1", AppliedAt: time.Now().UTC()}
	for ctx.Err() == nil {
		// A lease, from its grant to its loss.
		if err := session(ctx, etcd, policyKey, reportKey, &report); err != nil && ctx.Err() == nil {
			fmt.Println("report interrupted:", err)
			time.Sleep(time.Second)
		}
	}
	return nil
}

func session(ctx context.Context, etcd *clientv3.Client, policyKey, reportKey string, report *Report) error {
	lease, err := etcd.Grant(ctx, 10)
	if err != nil {
		return err
	}
	// Told to end, it takes the report back.
	defer etcd.Revoke(context.WithoutCancel(ctx), lease.ID)
	alive, err := etcd.KeepAlive(ctx, lease.ID)
	if err != nil {
		return err
	}
	put := func() error {
		value, err := json.Marshal(report)
		if err != nil {
			return err
		}
		_, err = etcd.Put(ctx, reportKey, string(value), clientv3.WithLease(lease.ID))
		return err
	}
	// Before the first policy is in force: what a process before this one reported must not stand for it.
	if err := put(); err != nil {
		return err
	}
	got, err := etcd.Get(ctx, policyKey)
	if err != nil {
		return err
	}
	take := func(document []byte) error {
		policy, rejected := read(document)
		report.Rejected = rejected
		if rejected == nil {
			// Here the timeouts come into force, before anybody is told that they are.
			report.Hash, report.AppliedAt = policy.Hash, time.Now().UTC()
		}
		return put()
	}
	for _, kv := range got.Kvs {
		if err := take(kv.Value); err != nil {
			return err
		}
	}
	policies := etcd.Watch(ctx, policyKey, clientv3.WithRev(got.Header.Revision+1))
	for {
		select {
		case _, renewed := <-alive:
			if !renewed {
				return errors.New("the lease is lost")
			}
		case answer, open := <-policies:
			if err := answer.Err(); err != nil {
				return err
			}
			if !open {
				return errors.New("the watch ended")
			}
			for _, event := range answer.Events {
				// A policy that is deleted leaves the last one in force.
				if event.Type == clientv3.EventTypePut {
					if err := take(event.Kv.Value); err != nil {
						return err
					}
				}
			}
		}
	}
}
