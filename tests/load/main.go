// Command load drives a real broker process with simulated guests and says
// what each answer costs it.
//
//	load bench   cost of attestations and releases beside the cryptography that
//	             they cannot avoid, and latencies; fails below the gates
//	load soak    many handshakes; fails if memory, threads or files grow
//	load growth  cost of a request as resources, reference values and policies grow
//
// What is counted is the CPU time of the broker's process, user and system:
// the guests run in this process and on the same cores, and a shared machine
// disturbs wall time far more than CPU time.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/pflag"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

// options are the command line.
type options struct {
	bin, dir   string
	rounds     int
	handshakes int
	most       int
}

func run(ctx context.Context, args []string, out io.Writer) error {
	var o options
	flags := pflag.NewFlagSet("load", pflag.ContinueOnError)
	flags.StringVar(&o.bin, "bin", "bin", "where kbs, kbsctl and measure are")
	flags.StringVar(&o.dir, "dir", "", "where the broker keeps its state; default is a temporary directory")
	flags.IntVar(&o.rounds, "rounds", 5, "bench: rounds, of which the median counts")
	flags.IntVar(&o.handshakes, "handshakes", 200_000, "soak: how many")
	flags.IntVar(&o.most, "most", 100_000, "growth: the largest number of resources")
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch flags.Arg(0) {
	case ceilingMode:
		return serveCeiling(ctx, out)
	case "bench":
		return onStage(ctx, o, out, bench)
	case "soak":
		return onStage(ctx, o, out, soak)
	case "growth":
		return onStage(ctx, o, out, growth)
	}
	return fmt.Errorf("want bench, soak or growth, have %q", flags.Arg(0))
}
