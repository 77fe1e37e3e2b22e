// Command bootbench says what the agent adds to the boot of a guest: the time from
// the start of QEMU to its first answered Check, and to the first output of a
// container, beside the same kernel with an init that does nothing. It fails when
// the gate does not hold.
//
//	bootbench --bin DIR --guests DIR [--rounds N]
//
// All machines take turns in one run. CPU seconds are those of QEMU and of the
// software TPM; they stand a busy host better than the clock does.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/pflag"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/qemu"
	"github.com/vouchsafe-cc/vouchsafe/tests/internal/world"
)

// mostAdded is what the agent may add to a boot, emulated.
const mostAdded = 1500 * time.Millisecond

var errGate = errors.New("a gate does not hold")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bootbench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := pflag.NewFlagSet("bootbench", pflag.ContinueOnError)
	bin := flags.String("bin", "bin", "`directory` with the programs of make build, and emptyinit")
	guests := flags.String("guests", "", "`directory` with the guest images of make guests")
	rounds := flags.Int("rounds", 5, "boots of each kind")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *rounds < 1 || *guests == "" || flags.NArg() > 0 {
		return errors.New("want --guests DIR and at least one round")
	}
	if *bin, err = filepath.Abs(*bin); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bootbench-")
	if err != nil {
		return err
	}
	w, err := world.New(dir, *bin)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close(), os.RemoveAll(dir)) }()
	kinds, err := prepare(ctx, w, *bin, *guests)
	if err != nil {
		return err
	}
	for range *rounds {
		for _, k := range kinds {
			if err := k.measure(ctx); err != nil {
				return fmt.Errorf("%s: %w", k.name, err)
			}
		}
	}
	return report(out, kinds)
}

// kind is one thing that is measured, again and again.
type kind struct {
	name string
	boot func(ctx context.Context) error // returns when what is waited for has come, and nothing runs
	// over is the kind that this one is held against, nil for none.
	over *kind
	gate time.Duration // most over that; 0: none

	wall, cpu []time.Duration
}

func (k *kind) measure(ctx context.Context) error {
	cpu, begin := children(), time.Now()
	if err := k.boot(ctx); err != nil {
		return err
	}
	k.wall = append(k.wall, time.Since(begin))
	k.cpu = append(k.cpu, children()-cpu)
	return nil
}

// children is the processor time of all processes that were started and ended.
func children() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_CHILDREN, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func median(all []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}

func prepare(ctx context.Context, w *world.World, bin, guests string) ([]*kind, error) {
	image := world.GuestImage{Dir: filepath.Join(guests, "boot", "initrd"), Key: filepath.Join(guests, "release.pub")}
	plain := qemu.Config{Network: true}
	if err := plain.Open(image.Dir); err != nil {
		return nil, err
	}
	plain.Accelerator = qemu.Accelerator(ctx, "", plain.Kernel)
	fleet, err := w.NewFleet(ctx, image, plain.Accelerator, "a secret of the benchmark's")
	if err != nil {
		return nil, err
	}
	empty, beside, err := archives(w.Path("emptyinit"), filepath.Join(bin, "emptyinit"), plain.Initrd)
	if err != nil {
		return nil, err
	}
	bare := func(cfg qemu.Config, initrd, more string) func(context.Context) error {
		cfg.Initrd, cfg.InitData = initrd, ""
		cfg.CommandLine += more
		return func(ctx context.Context) error { return bootEmpty(ctx, cfg) }
	}
	agent := func(cfg qemu.Config) func(context.Context) error {
		return func(ctx context.Context) error {
			m, err := w.Boot(ctx, cfg)
			if err != nil {
				return err
			}
			return m.Stop()
		}
	}
	a := &kind{name: "kernel, and an init that does nothing", boot: bare(plain, empty, "")}
	b := &kind{name: "the same with the image's initramfs", boot: bare(plain, beside, " rdinit=/emptyinit"), over: a}
	c := &kind{name: "the image, to the agent's first answered Check", boot: agent(plain), over: a, gate: mostAdded}
	d := &kind{name: "measured into a TPM: kernel, and an init that does nothing", boot: bare(fleet.Config(), empty, "")}
	e := &kind{name: "measured: the image, to the agent's first answered Check", boot: agent(fleet.Config()), over: d}
	f := &kind{name: "measured: to a container's first output (attested, pulled, decrypted)", over: d, boot: func(ctx context.Context) error {
		_, err := fleet.RunImage(ctx, fleet.Config())
		return err
	}}
	return []*kind{a, b, c, d, e, f}, nil
}

func report(out io.Writer, kinds []*kind) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(t, "from the start of QEMU\tseconds\tleast\tCPU seconds\tmore than above\tat most\t")
	failed := false
	for _, k := range kinds {
		added, gate := "", ""
		if k.over != nil {
			more := median(k.wall) - median(k.over.wall)
			added = seconds(more)
			if k.gate > 0 {
				gate = seconds(k.gate) + " ok"
				if more > k.gate {
					gate, failed = seconds(k.gate)+" MISSED", true
				}
			}
		}
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t\n", k.name, seconds(median(k.wall)), seconds(slices.Min(k.wall)), seconds(median(k.cpu)), added, gate)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if failed {
		return errGate
	}
	return nil
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f", d.Seconds()) }
