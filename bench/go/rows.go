package main

const (
	hystrixModule  = "github.com/afex/hystrix-go"
	breakerModule  = "github.com/sony/gobreaker/v2"
	failsafeModule = "github.com/failsafe-go/failsafe-go"
	grpcModule     = "google.golang.org/grpc"
)

// A row: one library in one case.
type row struct {
	bench, name, subject, module string
	threads                      int
	window                       string
	// build makes a subject to be timed, outside the timed loop; count is of B4 instead.
	build  func() (*Subject, error)
	count  func(n int) (float64, error)
	unit   string
	notRun string
}

// With its lone breaker hystrix-go always runs a timeout, a limit and metrics: the note stands in the table.
const (
	hystrixWindow = "time, 10 s (full stack always)"
	timeWindow    = "time, 10 s"
)

var rows = []row{
	{bench: "B1", name: "success", subject: "baseline-go", threads: 1, window: "none", build: bare},
	{bench: "B1", name: "success", subject: "gobreaker", module: breakerModule, threads: 1, window: timeWindow, build: gobreakerClosed},
	{bench: "B1", name: "success", subject: "failsafe-go", module: failsafeModule, threads: 1, window: timeWindow, build: failsafeClosed},
	{bench: "B1", name: "success", subject: "hystrix-go", module: hystrixModule, threads: 1, window: hystrixWindow, build: hystrixClosed},

	{bench: "B1", name: "open-reject", subject: "baseline-go", threads: 1, window: "none", build: bare},
	{bench: "B1", name: "open-reject", subject: "gobreaker", module: breakerModule, threads: 1, window: timeWindow, build: gobreakerOpen},
	{bench: "B1", name: "open-reject", subject: "failsafe-go", module: failsafeModule, threads: 1, window: timeWindow, build: failsafeOpen},
	{bench: "B1", name: "open-reject", subject: "hystrix-go", module: hystrixModule, threads: 1, window: hystrixWindow, build: hystrixOpen},

	{bench: "B1", name: "half-open-probe", subject: "baseline-go", threads: 1, window: "none", build: bare},
	{bench: "B1", name: "half-open-probe", subject: "gobreaker", module: breakerModule, threads: 1, window: timeWindow, build: gobreakerHalfOpen},
	{bench: "B1", name: "half-open-probe", subject: "failsafe-go", module: failsafeModule, threads: 1, window: "count", build: failsafeHalfOpen},
	{bench: "B1", name: "half-open-probe", subject: "hystrix-go", module: hystrixModule, threads: 1, notRun: "its first success closes it"},

	{bench: "B2", name: "ready", subject: "baseline-go", threads: 1, window: "none", build: bare},
	{bench: "B2", name: "ready", subject: "failsafe-go", module: failsafeModule, threads: 1, window: timeWindow, build: failsafeStack},
	{bench: "B2", name: "ready", subject: "hystrix-go", module: hystrixModule, threads: 1, window: "time, 10 s (no rate)", build: hystrixClosed},

	{bench: "B2", name: "pending", subject: "baseline-go", threads: 1, window: "none", build: yielding},
	{bench: "B2", name: "pending", subject: "failsafe-go", module: failsafeModule, threads: 1, window: timeWindow, build: failsafeStackYielding},
	{bench: "B2", name: "pending", subject: "hystrix-go", module: hystrixModule, threads: 1, window: "time, 10 s (no rate)", build: hystrixYielding},

	{bench: "B3", name: "one-thread", subject: "baseline-go", threads: 1, window: "none", build: bare},
	{bench: "B3", name: "one-thread", subject: "gobreaker", module: breakerModule, threads: 1, window: timeWindow, build: gobreakerClosed},
	{bench: "B3", name: "one-thread", subject: "failsafe-go", module: failsafeModule, threads: 1, window: timeWindow, build: failsafeClosed},

	{bench: "B3", name: "two-threads", subject: "baseline-go", threads: 2, window: "none", build: bare},
	{bench: "B3", name: "two-threads", subject: "gobreaker", module: breakerModule, threads: 2, window: timeWindow, build: gobreakerClosed},
	{bench: "B3", name: "two-threads", subject: "failsafe-go", module: failsafeModule, threads: 2, window: timeWindow, build: failsafeClosed},

	{bench: "B3", name: "stack-one-thread", subject: "baseline-go", threads: 1, window: "none", build: bare},
	{bench: "B3", name: "stack-one-thread", subject: "failsafe-go", module: failsafeModule, threads: 1, window: timeWindow, build: failsafeStack},
	{bench: "B3", name: "stack-one-thread", subject: "hystrix-go", module: hystrixModule, threads: 1, window: "time, 10 s (no rate)", build: hystrixClosed},

	{bench: "B3", name: "stack-two-threads", subject: "baseline-go", threads: 2, window: "none", build: bare},
	{bench: "B3", name: "stack-two-threads", subject: "failsafe-go", module: failsafeModule, threads: 2, window: timeWindow, build: failsafeStack},
	{bench: "B3", name: "stack-two-threads", subject: "hystrix-go", module: hystrixModule, threads: 2, window: "time, 10 s (no rate)", build: hystrixClosed},

	{bench: "B4", name: "lost", subject: "hystrix-go", module: hystrixModule, threads: 2, window: timeWindow, unit: "outcomes lost", count: hystrixLost},
	{bench: "B4", name: "trip-delay", subject: "hystrix-go", module: hystrixModule, threads: 2, window: timeWindow, unit: "calls off", count: hystrixTripDelay},
	{bench: "B4", name: "over-admission", subject: "hystrix-go", module: hystrixModule, threads: 2, window: timeWindow, unit: "calls over", count: hystrixOverAdmission},
}

func (r row) line() Line {
	unit := r.unit
	if unit == "" {
		unit = "ns/op"
	}
	return Line{
		Bench: r.bench, Case: r.name, Subject: r.subject, Version: version(r.module),
		Threads: r.threads, Window: r.window, Unit: unit, NotRun: r.notRun,
	}
}
