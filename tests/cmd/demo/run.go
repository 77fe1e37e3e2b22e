package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"

	"github.com/vouchsafe-cc/vouchsafe/tests/internal/world"
)

type options struct {
	bin, cache, image string
	guest             world.GuestImage
	keep              bool
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var o options
	flags := pflag.NewFlagSet("demo", pflag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.bin, "bin", "bin", "folder with the programs")
	flags.StringVar(&o.cache, "cache", ".cache", "folder that keeps the assembled image between runs")
	flags.StringVar(&o.image, "image", "", "take this image reference instead of assembling one")
	flags.StringVar(&o.guest.Key, "guest-key", "", "public key of who built that image")
	flags.StringVar(&o.guest.Dir, "guest-image", "", "boot the guest image in this folder (see: rootfs build), in place of guests that are processes")
	flags.BoolVar(&o.keep, "keep", false, "leave everything running until interrupted")
	if err := flags.Parse(args); err != nil {
		return 1
	}
	if os.Geteuid() != 0 {
		fmt.Fprintln(stderr, "demo: needs root, for namespaces and mounts")
		return 1
	}
	if err := play(ctx, o, stdout); err != nil {
		fmt.Fprintf(stderr, "\ndemo: FAILED: %v\n", err)
		return 1
	}
	return 0
}

// play sets the stage, plays the acts, and takes the stage down again.
func play(ctx context.Context, o options, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "vouchsafe-demo-")
	if err != nil {
		return err
	}
	bin, err := filepath.Abs(o.bin)
	if err != nil {
		return err
	}
	cache, err := filepath.Abs(o.cache)
	if err != nil {
		return err
	}
	w, err := world.New(dir, bin)
	if err != nil {
		return err
	}
	b := &billboard{out: out}
	s := &story{World: w, options: o, cache: cache, billboard: b}
	acts := s.acts()
	if o.guest.Dir != "" {
		acts = machineActs(w, b, o.guest)
	}
	defer func() {
		closed := w.Close()
		if err == nil {
			err = closed
		}
		if err != nil {
			fmt.Fprintf(out, "\nlogs are in %s\n", dir)
			return
		}
		if err = os.RemoveAll(dir); err == nil {
			err = b.table()
		}
	}()
	for _, a := range acts {
		if err := b.act(ctx, a); err != nil {
			return fmt.Errorf("%s: %w", a.title, err)
		}
	}
	if o.keep && o.guest.Dir == "" {
		s.howToPlay()
		<-ctx.Done()
	}
	return nil
}
