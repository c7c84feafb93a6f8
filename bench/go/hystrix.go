package main

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/afex/hystrix-go/hystrix"
	metricCollector "github.com/afex/hystrix-go/hystrix/metric_collector"
)

const command = "bench"

// Never reached: Do returns before its ticket is back, so that under load many are out.
const noLimit = 100_000

func hystrixOf(fn func() error) (*Subject, error) {
	hystrix.ConfigureCommand(command, hystrix.CommandConfig{MaxConcurrentRequests: noLimit})
	return &Subject{call: func(int) bool { return hystrix.Do(command, fn, nil) == nil }, answers: true}, nil
}

func hystrixClosed() (*Subject, error)   { return hystrixOf(inner) }
func hystrixYielding() (*Subject, error) { return hystrixOf(innerYielding) }

func hystrixOpen() (*Subject, error) {
	hystrix.ConfigureCommand(command, hystrix.CommandConfig{MaxConcurrentRequests: noLimit, SleepWindow: 3_600_000})
	for range 1000 {
		err := hystrix.Do(command, func() error { return errCallee }, nil)
		if errors.Is(err, hystrix.ErrCircuitOpen) {
			return &Subject{call: func(int) bool { return hystrix.Do(command, inner, nil) == nil }}, nil
		}
		// Its counts are kept by a goroutine of their own.
		time.Sleep(time.Millisecond)
	}
	return nil, errors.New("failures did not open the breaker")
}

// counted sees the same events as hystrix-go's own metrics, from the same channel.
type counted struct{ attempts, successes, failures *atomic.Int64 }

func (c counted) Update(r metricCollector.MetricResult) {
	c.attempts.Add(int64(r.Attempts))
	c.successes.Add(int64(r.Successes))
	c.failures.Add(int64(r.Failures))
}

func (c counted) Reset() {}

// two runs work in two goroutines at once.
func two(work func()) {
	var done sync.WaitGroup
	for range 2 {
		done.Go(work)
	}
	done.Wait()
}

// hystrixLost counts the outcomes that its metrics never see: at their own pace, through Do.
func hystrixLost(n int) (float64, error) {
	if n == 0 {
		n = 1_000_000
	}
	seen := counted{new(atomic.Int64), new(atomic.Int64), new(atomic.Int64)}
	metricCollector.Registry.Register(func(string) metricCollector.MetricCollector { return seen })
	hystrix.ConfigureCommand(command, hystrix.CommandConfig{MaxConcurrentRequests: noLimit, Timeout: 60_000})
	var wrong atomic.Value
	two(func() {
		for range n / 2 {
			if err := hystrix.Do(command, inner, nil); err != nil {
				wrong.Store(err.Error())
			}
		}
	})
	if why := wrong.Load(); why != nil {
		return 0, fmt.Errorf("a call did not answer: %v", why)
	}
	// Until nothing more comes out of its channel.
	for last := int64(-1); last != seen.attempts.Load(); {
		last = seen.attempts.Load()
		time.Sleep(200 * time.Millisecond)
	}
	return float64(int64(n/2*2) - seen.successes.Load()), nil
}

// hystrixTripDelay: see bench/src/fidelity.rs. Its window is ten seconds; the run is a fraction of one.
func hystrixTripDelay(n int) (float64, error) {
	const good = 10_000
	if n == 0 {
		n = 400_000
	}
	worst := int64(0)
	for trial := range max(1, n/(2*good)) {
		name := fmt.Sprintf("trip-%d", trial)
		hystrix.ConfigureCommand(name, hystrix.CommandConfig{MaxConcurrentRequests: noLimit, SleepWindow: 3_600_000})
		var admitted atomic.Int64
		two(func() {
			for admitted.Load() < 100*good {
				err := hystrix.Do(name, func() error {
					if admitted.Add(1) <= good {
						return nil
					}
					return errCallee
				}, nil)
				if errors.Is(err, hystrix.ErrCircuitOpen) {
					return
				}
			}
		})
		if admitted.Load() >= 100*good {
			return 0, errors.New("the breaker never opened")
		}
		off := admitted.Load() - 2*good
		worst = max(worst, off, -off)
	}
	return float64(worst), nil
}

// hystrixOverAdmission counts calls at work above the limit.
func hystrixOverAdmission(n int) (float64, error) {
	const limit, callers = 10, 64
	if n == 0 {
		n = 400_000
	}
	hystrix.ConfigureCommand(command, hystrix.CommandConfig{
		MaxConcurrentRequests: limit, Timeout: 60_000,
		// Refusals count as errors: the breaker must not stand in the way.
		RequestVolumeThreshold: 1 << 40,
	})
	var inside, most, refused atomic.Int64
	var done sync.WaitGroup
	for range callers {
		done.Go(func() {
			for range n / callers {
				err := hystrix.Do(command, func() error {
					now := inside.Add(1)
					for seen := most.Load(); now > seen && !most.CompareAndSwap(seen, now); seen = most.Load() {
					}
					runtime.Gosched()
					inside.Add(-1)
					return nil
				}, nil)
				if err != nil {
					refused.Add(1)
				}
			}
		})
	}
	done.Wait()
	if refused.Load() == 0 || most.Load() < limit {
		return 0, errors.New("the limit was never reached")
	}
	return float64(most.Load() - limit), nil
}
