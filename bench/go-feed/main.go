// The Go peers of the feed's benchmark: the same commands, files and lines of JSON as bench/src/feed.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// The keys, as the writer has them; see bench/src/feed/document.rs.
const (
	policyKey = "/fusebox/v1/bench/policy/bench/feed"
	configKey = "/fusebox/v1/bench/config/bench/feed"
)

// Line is one row; see bench/src/rows.rs.
type Line struct {
	Bench   string `json:"bench"`
	Case    string `json:"case"`
	Subject string `json:"subject"`
	Version string `json:"version"`
	Threads int    `json:"threads"`
	Window  string `json:"window"`
	Unit    string `json:"unit"`
}

type subject struct {
	name, module string
	follow       func(*run) error
}

var subjects = []subject{
	{"etcd-watch-go", "go.etcd.io/etcd/client/v3", watch},
	{"viper", "github.com/spf13/viper", viperOnChannel},
	{"viper-loop", "github.com/spf13/viper", viperLoop},
}

// report is what is printed at the end.
type report struct {
	Calls       uint64  `json:"calls"`
	Failed      uint64  `json:"failed"`
	Torn        uint64  `json:"torn"`
	TornChanges uint64  `json:"torn_changes"`
	InForce     uint32  `json:"in_force"`
	RssKib      *uint64 `json:"rss_kib"`
}

// run is what a subject is given and what it tells.
type run struct {
	etcd     string
	last     uint32
	arrivals *os.File
	report   report
	seen     atomic.Uint32
	stop     atomic.Bool
}

// note writes each arrival at once: a runtime that dies takes no buffer with it.
func (r *run) note(number uint32, at int64) error {
	_, err := r.arrivals.WriteString(strconv.FormatUint(uint64(number), 10) + " " + strconv.FormatInt(at, 10) + "\n")
	r.seen.Store(number)
	return err
}

// now is of CLOCK_MONOTONIC, which is one for all processes.
func now() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return ts.Nano()
}

// onCore0 gives this goroutine a thread on the core of the calls: the process was started on the other.
func onCore0() {
	runtime.LockOSThread()
	var cores unix.CPUSet
	cores.Set(0)
	_ = unix.SchedSetaffinity(0, &cores)
}

func main() {
	if err := start(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func start(args []string) error {
	switch {
	case len(args) > 0 && args[0] == "list":
		for _, subject := range subjects {
			line := Line{"B5", "under-load", subject.name, version(subject.module), 1, "", "us"}
			if err := print(line); err != nil {
				return err
			}
		}
		return nil
	case len(args) > 2 && args[0] == "follow":
		return follow(args[1], args[3:])
	}
	return fmt.Errorf("usage: %s list | follow SUBJECT CASE --etcd URL --last N --patience S --out FILE", os.Args[0])
}

func follow(name string, args []string) error {
	flags := flag.NewFlagSet("follow", flag.ContinueOnError)
	etcd := flags.String("etcd", "", "the URL of etcd")
	last := flags.Uint("last", 0, "the number of the last document")
	patience := flags.Int("patience", 0, "how long to wait for it, in seconds")
	out := flags.String("out", "", "the file of arrivals")
	if err := flags.Parse(args); err != nil {
		return err
	}
	file, err := os.Create(*out)
	if err != nil {
		return err
	}
	// One for the calls and one for what follows, though we start on one core.
	runtime.GOMAXPROCS(2)
	r := &run{etcd: *etcd, last: uint32(*last), arrivals: file}
	for _, subject := range subjects {
		if subject.name != name {
			continue
		}
		ended := make(chan error, 1)
		go func() { ended <- subject.follow(r) }()
		fmt.Println("following")
		end := time.Now().Add(time.Duration(*patience) * time.Second)
		for r.seen.Load() != r.last && time.Now().Before(end) && len(ended) == 0 {
			time.Sleep(10 * time.Millisecond)
		}
		// The calls go on for a while: an older document must not come back.
		time.Sleep(300 * time.Millisecond)
		r.stop.Store(true)
		if err := <-ended; err != nil {
			return err
		}
		r.report.InForce, r.report.RssKib = r.seen.Load(), rssKib()
		return print(r.report)
	}
	return fmt.Errorf("no such subject: %s; `list` prints them", name)
}

// number is a document's own, by its uid.
func number(document string) (uint32, error) {
	_, rest, found := strings.Cut(document, `"uid":"`)
	if !found || len(rest) < 8 {
		return 0, errors.New("a document without a number")
	}
	number, err := strconv.ParseUint(rest[:8], 10, 32)
	return uint32(number), err
}

// rssKib is what of this process is in memory.
func rssKib() *uint64 {
	status, _ := os.ReadFile("/proc/self/status")
	_, rest, found := strings.Cut(string(status), "VmRSS:")
	fields := strings.Fields(rest)
	if !found || len(fields) == 0 {
		return nil
	}
	kib, err := strconv.ParseUint(fields[0], 10, 64)
	if err != nil {
		return nil
	}
	return &kib
}

func print(value any) error {
	text, err := json.Marshal(value)
	if err == nil {
		fmt.Println(string(text))
	}
	return err
}

// version is a module's, as it was built in.
func version(module string) string {
	info, _ := debug.ReadBuildInfo()
	for _, dep := range info.Deps {
		if dep.Path == module {
			return dep.Version
		}
	}
	return ""
}
