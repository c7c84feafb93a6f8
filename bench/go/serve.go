package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"runtime"
	"time"

	"github.com/afex/hystrix-go/hystrix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// The servers as they stand in the table, with their modules for versions.
var servers = []Line{
	{Server: "grpc-go", Subject: "baseline-go", Version: grpcModule, Window: "none (raw grpc-go)"},
	{Server: "grpc-go+hystrix-go", Subject: "hystrix-go", Version: hystrixModule, Window: "time, 10 s (in grpc-go)"},
}

// serve answers B10's hello: grpc-go alone, or with each call inside hystrix.Do.
func serve(args []string) error {
	if len(args) == 0 {
		return errors.New("which server? grpc-go or grpc-go+hystrix-go")
	}
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	busy := flags.Int("busy-us", 0, "microseconds of CPU that each call takes")
	limit := flags.Int("limit", 100_000, "calls at once")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	runtime.GOMAXPROCS(1)
	var options []grpc.ServerOption
	switch args[0] {
	case "grpc-go":
	case "grpc-go+hystrix-go":
		hystrix.ConfigureCommand(command, hystrix.CommandConfig{
			Timeout: 1000, MaxConcurrentRequests: *limit,
			// At its limit it counts refusals as errors and opens: that is its own way to shed load.
			SleepWindow: 100,
		})
		options = append(options, grpc.UnaryInterceptor(underHystrix))
	default:
		return fmt.Errorf("no such server: %s", args[0])
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := grpc.NewServer(options...)
	server.RegisterService(&hello, &greeter{busy: time.Duration(*busy) * time.Microsecond})
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	return server.Serve(listener)
}

func underHystrix(ctx context.Context, request any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	var answer any
	err := hystrix.DoC(ctx, command, func(ctx context.Context) error {
		var err error
		answer, err = next(ctx, request)
		return err
	}, nil)
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return answer, nil
}

type greeter struct{ busy time.Duration }

// Hello spends its time in two halves, between which other calls may run.
func (g *greeter) Hello(_ context.Context, name *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
	if g.busy > 0 {
		spin(g.busy / 2)
		runtime.Gosched()
		spin(g.busy / 2)
	}
	return wrapperspb.String("hello " + name.Value), nil
}

func spin(d time.Duration) {
	for begin := time.Now(); time.Since(begin) < d; {
	}
}

// hello is what protoc would write for `service Hello { rpc Hello(StringValue) returns (StringValue); }`.
var hello = grpc.ServiceDesc{
	ServiceName: "bench.Hello",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{
		MethodName: "Hello",
		Handler: func(srv any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
			in := new(wrapperspb.StringValue)
			if err := decode(in); err != nil {
				return nil, err
			}
			handler := func(ctx context.Context, request any) (any, error) {
				return srv.(*greeter).Hello(ctx, request.(*wrapperspb.StringValue))
			}
			if interceptor == nil {
				return handler(ctx, in)
			}
			info := &grpc.UnaryServerInfo{Server: srv, FullMethod: "/bench.Hello/Hello"}
			return interceptor(ctx, in, info, handler)
		},
	}},
}
