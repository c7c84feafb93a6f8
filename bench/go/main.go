package main
import (
 _ "github.com/afex/hystrix-go/hystrix"
 _ "github.com/sony/gobreaker/v2"
 _ "github.com/failsafe-go/failsafe-go"
 _ "github.com/failsafe-go/failsafe-go/circuitbreaker"
 _ "google.golang.org/grpc"
 _ "google.golang.org/protobuf/types/known/wrapperspb"
)
func main(){}
