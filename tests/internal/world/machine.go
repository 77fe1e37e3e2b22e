package world

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/qemu"
)

// Machine is a guest that was booted: a virtual machine with the agent as its
// init.
type Machine struct {
	*qemu.Machine
	Dir string

	world *World
	kata  *Kata
}

// BootTimeout bounds a boot to the agent's first answer. Emulated and on a busy
// machine, one takes up to a minute.
const BootTimeout = 3 * time.Minute

// Boot starts a machine and waits until its agent answers. The stage ends it, if
// nobody does before.
func (w *World) Boot(ctx context.Context, cfg qemu.Config) (*Machine, error) {
	m, err := w.startMachine(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return m, m.connect(ctx)
}

func (w *World) startMachine(ctx context.Context, cfg qemu.Config) (*Machine, error) {
	dir, err := os.MkdirTemp("", "vm-") // paths of sockets are short
	if err != nil {
		return nil, err
	}
	m := &Machine{Dir: dir, world: w}
	w.onClose(m.Stop)
	cfg.Dir = dir
	m.Machine, err = qemu.Start(ctx, cfg)
	return m, err
}

// SaveBooted boots a machine and saves it into a file as soon as its agent serves
// and has nothing left to do, before anyone has talked to it.
func (w *World) SaveBooted(ctx context.Context, cfg qemu.Config, file string) error {
	return w.save(ctx, cfg, file, func(m *Machine, ctx context.Context) error {
		return errors.Join(m.says(ctx, `"msg":"serving"`), m.says(ctx, `"msg":"the machine is complete"`))
	})
}

// SaveUnread boots a machine and saves it into a file before it has read anything of
// its init-data: it goes on from there with whatever document it is given then. What
// it was booted by is in its TPM, which is saved with it.
func (w *World) SaveUnread(ctx context.Context, cfg qemu.Config, file string) error {
	early := file + ".early"
	if err := w.save(ctx, cfg, early, (*Machine).Booted); err != nil {
		return err
	}
	defer func() { _ = os.Remove(early) }()
	cfg.RestoreFrom, cfg.HoldInitData = early, true
	return w.save(ctx, cfg, file, (*Machine).Held)
}

// save starts a machine and saves it when it has come somewhere.
func (w *World) save(ctx context.Context, cfg qemu.Config, file string, arrive func(*Machine, context.Context) error) (err error) {
	m, err := w.startMachine(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Stop()) }()
	if err := arrive(m, ctx); err != nil {
		return fmt.Errorf("%w; the console ends:\n%s", err, tail(m.Console()))
	}
	return m.Save(ctx, file)
}

// Console starts a machine, ends it once its console has a text, and returns all
// that the console says.
func (w *World) Console(ctx context.Context, cfg qemu.Config, text string) (_ string, err error) {
	m, err := w.startMachine(ctx, cfg)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, m.Stop()) }()
	if err := m.says(ctx, text); err != nil {
		return "", fmt.Errorf("%w; the console ends:\n%s", err, tail(m.Console()))
	}
	raw, err := os.ReadFile(m.Console())
	return string(raw), err
}

// says waits until the console has a text.
func (m *Machine) says(ctx context.Context, text string) error {
	ctx, cancel := context.WithTimeout(ctx, BootTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		console, err := os.ReadFile(m.Console())
		if err == nil && strings.Contains(string(console), text) {
			return nil
		}
		select {
		case <-tick.C:
		case <-m.Done():
			return errors.New("the machine ended")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (m *Machine) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, BootTimeout)
	defer cancel()
	go func() { // a machine that ends answers no more
		select {
		case <-m.Done():
			cancel()
		case <-ctx.Done():
		}
	}()
	conn, err := m.Dial(ctx)
	if err != nil {
		return err
	}
	if m.kata, err = newKata(ctx, conn, "/"+filepath.Base(m.Dir)+"-"); err != nil {
		return fmt.Errorf("the agent does not answer: %w; its console ends:\n%s", err, tail(m.Console()))
	}
	return nil
}

// Kata returns the driver that plays the runtime's part.
func (m *Machine) Kata() *Kata { return m.kata }

// Stop ends the machine at once and removes its directory.
func (m *Machine) Stop() error {
	var err error
	if m.kata != nil {
		err = m.kata.close()
		m.kata = nil
	}
	if m.Machine != nil {
		err = errors.Join(err, m.Machine.Stop())
	}
	return errors.Join(err, os.RemoveAll(m.Dir))
}
