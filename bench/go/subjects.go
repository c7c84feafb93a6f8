package main

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/bulkhead"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/ratelimiter"
	"github.com/failsafe-go/failsafe-go/timeout"
	"github.com/sony/gobreaker/v2"
)

var errCallee = errors.New("the callee failed")

// The bare function. Not inlined: a library calls it through a pointer as well.
//
//go:noinline
func inner() error { return nil }

// The bare function that lets others run first, as a future that is pending once does.
//
//go:noinline
func innerYielding() error {
	runtime.Gosched()
	return nil
}

func bare() (*Subject, error) {
	return &Subject{call: func(int) bool { return inner() == nil }, answers: true}, nil
}

func yielding() (*Subject, error) {
	return &Subject{call: func(int) bool { return innerYielding() == nil }, answers: true}, nil
}

func gobreakerOf(wait time.Duration) *gobreaker.CircuitBreaker[struct{}] {
	return gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		// It stays half-open for as many calls as we make.
		MaxRequests:  1 << 31,
		Interval:     10 * time.Second,
		BucketPeriod: time.Second,
		Timeout:      wait,
		ReadyToTrip: func(counts gobreaker.Counts) bool {
			return counts.Requests >= 20 && counts.TotalFailures*2 >= counts.Requests
		},
	})
}

func gobreakerSubject(breaker *gobreaker.CircuitBreaker[struct{}], state gobreaker.State) (*Subject, error) {
	call := func(int) bool {
		_, err := breaker.Execute(func() (struct{}, error) { return struct{}{}, inner() })
		return err == nil
	}
	check := func() error {
		if now := breaker.State(); now != state {
			return fmt.Errorf("the breaker is %v", now)
		}
		return nil
	}
	return &Subject{call: call, answers: state != gobreaker.StateOpen, check: check}, check()
}

func gobreakerClosed() (*Subject, error) {
	return gobreakerSubject(gobreakerOf(time.Second), gobreaker.StateClosed)
}

func gobreakerOpened(wait time.Duration) *gobreaker.CircuitBreaker[struct{}] {
	breaker := gobreakerOf(wait)
	for range 20 {
		_, _ = breaker.Execute(func() (struct{}, error) { return struct{}{}, errCallee })
	}
	return breaker
}

func gobreakerOpen() (*Subject, error) {
	return gobreakerSubject(gobreakerOpened(time.Hour), gobreaker.StateOpen)
}

func gobreakerHalfOpen() (*Subject, error) {
	breaker := gobreakerOpened(time.Millisecond)
	time.Sleep(20 * time.Millisecond)
	return gobreakerSubject(breaker, gobreaker.StateHalfOpen)
}

func failsafeBreaker() circuitbreaker.Builder[any] {
	return circuitbreaker.NewBuilder[any]().WithFailureRateThreshold(0.5, 20, 10*time.Second)
}

func failsafeSubject(breaker circuitbreaker.CircuitBreaker[any], state circuitbreaker.State) (*Subject, error) {
	executor := failsafe.With[any](breaker)
	call := func(int) bool { return executor.Run(inner) == nil }
	check := func() error {
		if now := breaker.State(); now != state {
			return fmt.Errorf("the breaker is %v", now)
		}
		return nil
	}
	return &Subject{call: call, answers: state != circuitbreaker.OpenState, check: check}, check()
}

func failsafeClosed() (*Subject, error) {
	return failsafeSubject(failsafeBreaker().Build(), circuitbreaker.ClosedState)
}

func failsafeOpen() (*Subject, error) {
	breaker := failsafeBreaker().WithDelay(time.Hour).Build()
	breaker.Open()
	return failsafeSubject(breaker, circuitbreaker.OpenState)
}

func failsafeHalfOpen() (*Subject, error) {
	// It stays half-open for as many calls as we make: that many successes close it.
	breaker := failsafeBreaker().WithSuccessThreshold(1 << 30).Build()
	breaker.HalfOpen()
	return failsafeSubject(breaker, circuitbreaker.HalfOpenState)
}

func failsafeStackOf(fn func() error) (*Subject, error) {
	executor := failsafe.With[any](
		failsafeBreaker().Build(),
		bulkhead.New[any](1000),
		ratelimiter.NewBursty[any](1<<30, time.Second),
		timeout.New[any](time.Second),
	)
	return &Subject{call: func(int) bool { return executor.Run(fn) == nil }, answers: true}, nil
}

func failsafeStack() (*Subject, error)         { return failsafeStackOf(inner) }
func failsafeStackYielding() (*Subject, error) { return failsafeStackOf(innerYielding) }
