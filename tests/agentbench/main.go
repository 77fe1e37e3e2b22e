// Command agentbench says what the guest agent costs beside what it cannot do
// without: container starts beside the bare OCI runtime's, the copy of a chatty
// container's output beside the bare copy, memory, size and the time until it
// answers. It fails when a gate does not hold.
//
//	agentbench [--only NAME] [--runtime runc|crun] [--pull-mb N] ...
//	agentbench soak [--cycles N]
//
// Both sides of a comparison take turns in one run. It works in a mount
// namespace of its own, for which it starts itself once more.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/pflag"

	"github.com/vouchsafe-cc/vouchsafe/tests/internal/barepod"
)

var errGate = errors.New("a gate does not hold")

// inside marks the second start; its value says for which runtime the mounts are.
const inside = "AGENTBENCH_INSIDE"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "agentbench:", err)
		os.Exit(1)
	}
}

// options are the command line.
type options struct {
	bin     string // where `make build` put the programs
	runtime string
	rounds  int // of starts
	pullMB  int
	chatMB  int
	many    int // containers
	execs   int
	cycles  int
	only    []string
}

// A row is one figure of the report.
type row struct{ what, value, beside, gate string }

// A report collects the figures; a gate that does not hold is remembered.
type report struct {
	rows   []row
	failed bool
}

func (r *report) add(what, value, beside string) {
	r.rows = append(r.rows, row{what, value, beside, ""})
}

func (r *report) gate(what, value, beside, gate string, ok bool) {
	verdict := " ok"
	if !ok {
		verdict, r.failed = " MISSED", true
	}
	r.rows = append(r.rows, row{what, value, beside, gate + verdict})
}

// parts of the benchmark, in the order that they run.
var parts = []struct {
	name string
	run  func(context.Context, options, *report) error
}{
	{"size", size}, {"cold", cold}, {"start", starts}, {"many", many}, {"chat", chat}, {"memory", memory},
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 2 && (args[0] == relayCommand || args[0] == protocolCommand) {
		return serveCopy(args[0], args[1])
	}
	var o options
	flags := pflag.NewFlagSet("agentbench", pflag.ContinueOnError)
	flags.StringVar(&o.bin, "bin", "bin", "directory with the programs of `make build`")
	flags.StringVar(&o.runtime, "runtime", "runc", "OCI runtime")
	flags.IntVar(&o.rounds, "rounds", 40, "pairs of container starts")
	flags.IntVar(&o.pullMB, "pull-mb", 3000, "size of the image that is pulled, in megabytes")
	flags.IntVar(&o.chatMB, "chat-mb", 1000, "what a chatty container writes, in megabytes; a quarter of it for the protocol's library")
	flags.IntVar(&o.many, "containers", 100, "containers at the same time")
	flags.IntVar(&o.execs, "execs", 1000, "processes started in them")
	flags.IntVar(&o.cycles, "cycles", 1000, "of soak: containers that come and go")
	flags.StringSliceVar(&o.only, "only", nil, "these `PARTS` alone: size, cold, start, many, chat, memory")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var err error
	if o.bin, err = filepath.Abs(o.bin); err != nil {
		return err
	}
	if what := barepod.Missing(o.runtime, "unshare"); what != "" {
		return fmt.Errorf("this needs %s", what)
	}
	if os.Getenv(inside) == "" {
		return again(ctx, o.runtime, args, out)
	}
	if flags.NArg() == 1 && flags.Arg(0) == "soak" {
		return soakCommand(ctx, o, out)
	}
	var r report
	if err := r.measure(ctx, o); err != nil {
		return err
	}
	return r.print(ctx, out, o)
}

// measure runs the parts, and tells how long each took.
func (r *report) measure(ctx context.Context, o options) error {
	begin, each := time.Now(), []string(nil)
	for _, p := range parts {
		if len(o.only) > 0 && !slices.Contains(o.only, p.name) {
			continue
		}
		since := time.Now()
		if err := p.run(ctx, o, r); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		each = append(each, fmt.Sprintf("%s %.0f s", p.name, time.Since(since).Seconds()))
	}
	r.add("all of this", fmt.Sprintf("%.0f s", time.Since(begin).Seconds()), strings.Join(each, ", "))
	return nil
}

// again starts this program in mounts of its own; crun needs them without the
// second hierarchy of a hybrid cgroup layout.
func again(ctx context.Context, runtime string, args []string, out io.Writer) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	script := `exec "$@"`
	if filepath.Base(runtime) == "crun" {
		script = `if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi; exec "$@"`
	}
	cmd := exec.CommandContext(ctx, "unshare", append([]string{"-m", "--propagation", "private", "sh", "-c", script, "sh", self}, args...)...)
	cmd.Env = append(os.Environ(), inside+"="+runtime)
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	return cmd.Run()
}

func (r *report) print(ctx context.Context, out io.Writer, o options) error {
	version, err := exec.CommandContext(ctx, o.runtime, "--version").Output()
	if err != nil {
		return err
	}
	first, _, _ := strings.Cut(string(version), "\n")
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "with %s\t\tbeside\tgate\n", first)
	for _, row := range r.rows {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", row.what, row.value, row.beside, row.gate)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if r.failed {
		return errGate
	}
	return nil
}

// durations are sorted times of one thing.
type durations []time.Duration

// at returns the value below which the share p lies; 0.5 is the median.
func (d durations) at(p float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[min(len(d)-1, int(p*float64(len(d))))]
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }

func mb(bytes int64) string { return fmt.Sprintf("%.1f MB", float64(bytes)/1e6) }
