package main

import (
	"fmt"
	"runtime"
	"sort"
	"sync"
	"time"
)

const (
	warmUp = 20 * time.Millisecond
	sample = 20 * time.Millisecond
)

// Subject is something that can be called; its call says whether the bare function answered.
type Subject struct {
	call func(i int) bool
	// answers: whether every call must answer; otherwise none may.
	answers bool
	// check: whether it is still in the state that the row is about.
	check func() error
}

type measured struct{ ns, allocs float64 }

// calls makes n of them, and fails where one ends as it should not.
func (s *Subject) calls(n int) error {
	ok := 0
	for i := range n {
		if s.call(i) {
			ok++
		}
	}
	expected := 0
	if s.answers {
		expected = n
	}
	if ok != expected {
		return fmt.Errorf("%d of %d calls answered, %d should have", ok, n, expected)
	}
	return nil
}

func (s *Subject) measure(threads, samples int) (measured, error) {
	iters, err := s.calibrate()
	if err != nil {
		return measured{}, err
	}
	var times []float64
	for range samples {
		elapsed, err := s.sample(iters, threads)
		if err != nil {
			return measured{}, err
		}
		times = append(times, float64(elapsed.Nanoseconds())/float64(iters))
	}
	const counted = 1000
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := s.calls(counted); err != nil {
		return measured{}, err
	}
	runtime.ReadMemStats(&after)
	if s.check != nil {
		if err := s.check(); err != nil {
			return measured{}, err
		}
	}
	return measured{ns: median(times), allocs: float64(after.Mallocs-before.Mallocs) / counted}, nil
}

// calibrate warms up; it returns how many calls fill a sample.
func (s *Subject) calibrate() (int, error) {
	calls, n, begin := 0, 16, time.Now()
	for time.Since(begin) < warmUp {
		if err := s.calls(n); err != nil {
			return 0, err
		}
		calls += n
		n *= 2
	}
	return max(1, int(float64(sample)*float64(calls)/float64(time.Since(begin)))), nil
}

// sample is the time from the common start until the last thread has made its calls.
func (s *Subject) sample(iters, threads int) (time.Duration, error) {
	var ready, done sync.WaitGroup
	elapsed, errs := make([]time.Duration, threads), make([]error, threads)
	start := make(chan struct{})
	for n := range threads {
		ready.Add(1)
		done.Add(1)
		go func() {
			defer done.Done()
			// Not locked to its thread: a library with goroutines of its own would pay for each turn.
			ready.Done()
			<-start
			begin := time.Now()
			errs[n] = s.calls(iters)
			elapsed[n] = time.Since(begin)
		}()
	}
	ready.Wait()
	close(start)
	done.Wait()
	var longest time.Duration
	for n := range threads {
		if errs[n] != nil {
			return 0, errs[n]
		}
		longest = max(longest, elapsed[n])
	}
	return longest, nil
}

func median(values []float64) float64 {
	sort.Float64s(values)
	middle := len(values) / 2
	if len(values)%2 == 1 {
		return values[middle]
	}
	return (values[middle-1] + values[middle]) / 2
}
