// The Go peers' side of the library's benchmark: the same commands and lines of JSON as the Rust program's.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
)

// Line is one row; see bench/src/rows.rs.
type Line struct {
	Bench   string   `json:"bench"`
	Case    string   `json:"case"`
	Subject string   `json:"subject"`
	Version string   `json:"version"`
	Threads int      `json:"threads"`
	Window  string   `json:"window"`
	Ns      *float64 `json:"ns,omitempty"`
	Allocs  *float64 `json:"allocs,omitempty"`
	Unit    string   `json:"unit"`
	Value   *float64 `json:"value,omitempty"`
	NotRun  string   `json:"not_run,omitempty"`
	// Server is of B10: what `serve` is asked for.
	Server string `json:"server,omitempty"`
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("usage: %s list | row BENCH CASE SUBJECT [--iters N] [--samples N] | serve SUBJECT [flags]", os.Args[0])
	}
	switch args[0] {
	case "list":
		for _, row := range rows {
			if err := print(row.line()); err != nil {
				return err
			}
		}
		for _, line := range servers {
			line.Bench, line.Case, line.Threads, line.Unit = "B10", "served", 1, "req/s per core"
			line.Version = version(line.Version)
			if err := print(line); err != nil {
				return err
			}
		}
		return nil
	case "row":
		return runRow(args[1:])
	case "serve":
		return serve(args[1:])
	}
	return fmt.Errorf("no such command: %s", args[0])
}

func runRow(args []string) error {
	if len(args) < 3 {
		return fmt.Errorf("which row? `list` prints them")
	}
	flags := flag.NewFlagSet("row", flag.ContinueOnError)
	samples := flags.Int("samples", 9, "how many samples the figure is the median of")
	iters := flags.Int("iters", 0, "of B4: how many outcomes")
	if err := flags.Parse(args[3:]); err != nil {
		return err
	}
	for _, row := range rows {
		if row.bench != args[0] || row.name != args[1] || row.subject != args[2] {
			continue
		}
		if row.notRun != "" {
			return fmt.Errorf("cannot run: %s", row.notRun)
		}
		runtime.GOMAXPROCS(row.threads)
		line := row.line()
		if row.count != nil {
			value, err := row.count(*iters)
			if err != nil {
				return err
			}
			line.Value = &value
		} else {
			subject, err := row.build()
			if err != nil {
				return err
			}
			measured, err := subject.measure(row.threads, *samples)
			if err != nil {
				return err
			}
			line.Ns, line.Allocs, line.Value = &measured.ns, &measured.allocs, &measured.ns
		}
		return print(line)
	}
	return fmt.Errorf("no such row: %s; `list` prints them", strings.Join(args[:3], " "))
}

func print(line Line) error {
	text, err := json.Marshal(line)
	if err == nil {
		fmt.Println(string(text))
	}
	return err
}

// version is a module's, as it was built in; of no module, Go's own.
func version(module string) string {
	if module == "" {
		return runtime.Version()
	}
	info, _ := debug.ReadBuildInfo()
	for _, dep := range info.Deps {
		if dep.Path == module {
			return dep.Version
		}
	}
	return ""
}
