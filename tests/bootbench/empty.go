package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/qemu"
	"github.com/vouchsafe-cc/vouchsafe/tests/internal/world"
)

// said is what emptyinit writes to the console.
const said = "emptyinit: the init runs"

// bootEmpty boots a machine until its empty init runs, and ends it.
func bootEmpty(ctx context.Context, cfg qemu.Config) (err error) {
	if cfg.Dir, err = os.MkdirTemp("", "vm-"); err != nil { // paths of sockets are short
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(cfg.Dir)) }()
	m, err := qemu.Start(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Stop()) }()
	ctx, cancel := context.WithTimeout(ctx, world.BootTimeout)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		console, err := os.ReadFile(m.Console())
		if err == nil && bytes.Contains(console, []byte(said)) {
			return nil
		}
		select {
		case <-tick.C:
		case <-m.Done():
			return fmt.Errorf("the machine ended; its console:\n%s", console)
		case <-ctx.Done():
			return fmt.Errorf("%w; the console:\n%s", ctx.Err(), console)
		}
	}
}

// archives writes an initramfs with emptyinit alone, and one with it behind the
// image's own, which the kernel unpacks one after the other.
func archives(dir, program, image string) (empty, beside string, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", "", err
	}
	init, err := os.ReadFile(program)
	if err != nil {
		return "", "", err
	}
	full, err := os.ReadFile(image)
	if err != nil {
		return "", "", err
	}
	empty, beside = filepath.Join(dir, "empty"), filepath.Join(dir, "beside")
	if err := os.WriteFile(empty, newc("init", init), 0o600); err != nil {
		return "", "", err
	}
	full = append(padded(append(full, 0, 0, 0, 0)), newc("emptyinit", init)...) // LZ4 has no end but a block of no bytes
	return empty, beside, os.WriteFile(beside, full, 0o600)
}

// newc is a cpio archive with one program (Linux, buffer-format.rst).
func newc(name string, program []byte) []byte {
	member := func(out []byte, name string, mode int, body []byte) []byte {
		out = fmt.Appendf(out, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
			1, mode, 0, 0, 1, 0, len(body), 0, 0, 0, 0, len(name)+1, 0)
		out = padded(append(append(out, name...), 0))
		return padded(append(out, body...))
	}
	out := member(nil, name, 0o100755, program)
	return member(out, "TRAILER!!!", 0, nil)
}

// padded ends at a multiple of four bytes.
func padded(b []byte) []byte { return append(b, make([]byte, -len(b)&3)...) }
