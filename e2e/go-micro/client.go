package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/micro/go-micro/client"
	"github.com/micro/go-micro/client/grpc"
	"github.com/micro/go-micro/client/selector"
	"github.com/micro/go-micro/errors"
	"github.com/micro/go-micro/registry"
	"google.golang.org/grpc/status"
)

// answer is one line of what call says.
type answer struct {
	Msg string `json:"msg,omitempty"`
	// How often it was sent.
	Attempts int `json:"attempts"`
	// The address of each attempt.
	Nodes []string      `json:"nodes,omitempty"`
	Error *errors.Error `json:"error,omitempty"`
}

// call does what each line of input says, one after the other, and answers each with a line of JSON:
//
//	find                        what the registry knows of the service
//	call <name> <ms> [filter…]  what the client that protoc-gen-micro makes does, with the defaults of go-micro but
//	                            for the time; filters: version=v, label=key:value, endpoint=Type.Method
//	path <path> <name> <ms>     the same by a path of gRPC
//	stream <name> <ms>          the same as a stream: without a deadline of gRPC, the header timeout alone
func call(known registry.Registry, service string, input io.Reader) error {
	var attempts []string
	count := func(next client.CallFunc) client.CallFunc {
		return func(ctx context.Context, node *registry.Node, req client.Request, rsp interface{}, opts client.CallOptions) error {
			attempts = append(attempts, node.Address)
			return next(ctx, node, req, rsp, opts)
		}
	}
	c := grpc.NewClient(client.Registry(known), client.WrapCall(count))
	lines := bufio.NewScanner(input)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		attempts = nil
		var said interface{}
		var err error
		switch {
		case len(words) == 1 && words[0] == "find":
			said, err = find(known, service)
		case len(words) >= 3 && words[0] == "call":
			said, err = one(c, &attempts, service, "UserService.GetUser", words[1], words[2], words[3:])
		case len(words) == 4 && words[0] == "path":
			said, err = one(c, &attempts, service, words[1], words[2], words[3], nil)
		case len(words) == 3 && words[0] == "stream":
			said, err = stream(c, service, words[1], words[2])
		default:
			err = fmt.Errorf("cannot read %q", lines.Text())
		}
		if err != nil {
			return err
		}
		line, err := json.Marshal(said)
		if err != nil {
			return err
		}
		fmt.Println(string(line))
	}
	return lines.Err()
}

func find(known registry.Registry, service string) (interface{}, error) {
	found, err := known.GetService(service)
	sort.Slice(found, func(i, j int) bool { return found[i].Version < found[j].Version })
	return found, err
}

func within(millis string) (client.CallOption, error) {
	n, err := strconv.Atoi(millis)
	return client.WithRequestTimeout(time.Duration(n) * time.Millisecond), err
}

func one(c client.Client, attempts *[]string, service, endpoint, name, millis string, filters []string) (*answer, error) {
	timeout, err := within(millis)
	if err != nil {
		return nil, err
	}
	options := []client.CallOption{timeout}
	for _, filter := range filters {
		f, err := parse(filter)
		if err != nil {
			return nil, err
		}
		options = append(options, client.WithSelectOption(selector.WithFilter(f)))
	}
	rsp := new(GetUserResponse)
	err = c.Call(context.Background(), c.NewRequest(service, endpoint, &GetUserRequest{Name: name}), rsp, options...)
	said := &answer{Msg: rsp.Msg, Attempts: len(*attempts), Nodes: *attempts}
	if err != nil {
		said.Error = errors.Parse(err.Error())
	}
	return said, nil
}

func parse(filter string) (selector.Filter, error) {
	key, value, _ := strings.Cut(filter, "=")
	switch key {
	case "version":
		return selector.FilterVersion(value), nil
	case "label":
		label, value, _ := strings.Cut(value, ":")
		return selector.FilterLabel(label, value), nil
	case "endpoint":
		return selector.FilterEndpoint(value), nil
	}
	return nil, fmt.Errorf("no filter %q", filter)
}

func stream(c client.Client, service, name, millis string) (*answer, error) {
	timeout, err := within(millis)
	if err != nil {
		return nil, err
	}
	req := c.NewRequest(service, "UserService.GetUser", nil, client.StreamingRequest())
	s, err := c.Stream(context.Background(), req, timeout)
	if err != nil {
		return &answer{Error: errors.Parse(err.Error())}, nil
	}
	rsp := new(GetUserResponse)
	err = s.Send(&GetUserRequest{Name: name})
	if err == nil {
		err = s.Close()
	}
	if err == nil {
		err = s.Recv(rsp)
	}
	said := &answer{Msg: rsp.Msg, Attempts: 1}
	if err != nil {
		// Of a stream go-micro gives the status itself.
		said.Error = errors.Parse(status.Convert(err).Message())
	}
	return said, nil
}
