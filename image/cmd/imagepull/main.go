// Command imagepull is what the image benchmark (tests/imagebench) measures: a
// process that pulls one image with the [pull.Puller] of the guest agent, and
// one that says what the parts of a pull cost by themselves.
//
//	imagepull pull --store DIR --ref REF [--kek FILE] [--mount DIR] [--parallel N] [--window BYTES] [--profile FILE]
//	imagepull rates [--gzip FILE] [--zstd FILE] [--tar FILE --dir DIR] [--url URL]
//
// It is no tool for users: no policy holds, and registries are spoken to
// without TLS.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/pflag"
)

// heapGrowth is that of the guest agent, in percent of what lives.
const heapGrowth = 35

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(heapGrowth)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "imagepull:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	if len(args) == 0 {
		return errors.New("pull or rates?")
	}
	flags := pflag.NewFlagSet("imagepull "+args[0], pflag.ContinueOnError)
	switch args[0] {
	case "pull":
		var p puller
		p.flags(flags)
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		return p.run(ctx, in, out)
	case "rates":
		var r rates
		r.flags(flags)
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		return r.run(ctx, out)
	}
	return fmt.Errorf("there is no %q", args[0])
}
