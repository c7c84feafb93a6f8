package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/micro/go-micro/broker/memory"
	"github.com/micro/go-micro/errors"
	"github.com/micro/go-micro/metadata"
	"github.com/micro/go-micro/registry"
	"github.com/micro/go-micro/server"
	"github.com/micro/go-micro/server/grpc"
)

// UserService is what protoc-gen-micro makes of the service's handler.
type UserService struct{ name string }

// GetUser greets; "nobody" is found nowhere, and "slow" takes as long as the caller waits.
func (s *UserService) GetUser(ctx context.Context, req *GetUserRequest, rsp *GetUserResponse) error {
	deadline := "none"
	if at, ok := ctx.Deadline(); ok {
		deadline = fmt.Sprint(time.Until(at).Milliseconds())
	}
	md, _ := metadata.FromContext(ctx)
	fmt.Println("asked", req.Name, "deadline", deadline, "agent", md["user-agent"])
	switch req.Name {
	case "nobody":
		return errors.NotFound(s.name, "no user is named %s", req.Name)
	case "slow":
		<-ctx.Done()
		fmt.Println("gave up")
		return errors.Timeout(s.name, "%s", ctx.Err())
	}
	rsp.Msg = "Hello, " + req.Name
	return nil
}

// serve registers itself and serves until SIGTERM, with the check and the renewals of a go-micro server.
func serve(known registry.Registry, name string) error {
	s := grpc.NewServer(
		server.Name(name),
		server.Version("go"),
		server.Address("127.0.0.1:0"),
		server.Registry(known),
		server.Broker(memory.NewBroker()),
		server.Metadata(map[string]string{"team": "go"}),
		server.RegisterTTL(30*time.Second),
		server.RegisterInterval(10*time.Second),
	)
	if err := s.Handle(s.NewHandler(&UserService{name})); err != nil {
		return err
	}
	if err := s.Start(); err != nil {
		return err
	}
	fmt.Println("serving")
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	<-stop
	return s.Stop()
}
