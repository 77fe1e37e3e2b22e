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
	laps  *laps
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
	m := &Machine{Dir: dir, world: w, laps: newLaps()}
	w.onClose(m.Stop)
	cfg.Dir, cfg.Reached = dir, m.laps.lap
	if cfg.TPM != "" { // of its own: machines may run at the same time, and leave nothing to the next
		state := filepath.Join(dir, "tpm")
		if err := qemu.CopyTPM(cfg.TPM, state); err != nil {
			return m, err
		}
		cfg.TPM = state
	}
	m.Machine, err = qemu.Start(ctx, cfg)
	return m, err
}

// SaveBooted boots a machine and saves it into a file as soon as its agent serves
// and has nothing left to do, before anyone has talked to it.
func (w *World) SaveBooted(ctx context.Context, cfg qemu.Config, file string) error {
	return w.save(ctx, cfg, func(m *Machine) error { return m.saveReady(ctx, file) })
}

// SaveTwice boots a machine and saves it into two files: before it has read anything
// of its init-data, from where it goes on with whatever document it is given then;
// and as SaveBooted does. What it was booted by is in its TPM, which is saved with it.
func (w *World) SaveTwice(ctx context.Context, cfg qemu.Config, unread, ready string) error {
	cfg.HoldInitData = true
	return w.save(ctx, cfg, func(m *Machine) error {
		if err := m.Held(ctx); err != nil {
			return err
		}
		m.laps.lap("held")
		if err := m.Save(ctx, unread); err != nil {
			return err
		}
		m.laps.lap("saved")
		if err := m.Continue(ctx); err != nil {
			return err
		}
		return m.saveReady(ctx, ready)
	})
}

// save boots a machine for something that is done with it.
func (w *World) save(ctx context.Context, cfg qemu.Config, do func(*Machine) error) (err error) {
	m, err := w.startMachine(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Stop()) }()
	if err := do(m); err != nil {
		return fmt.Errorf("%w; the console ends:\n%s", err, tail(m.Console()))
	}
	w.tell("a machine to go on from", m.laps)
	return nil
}

// saveReady saves a machine when its agent has nothing left to do.
func (m *Machine) saveReady(ctx context.Context, file string) error {
	for _, text := range []string{`"msg":"serving"`, `"msg":"the machine is complete"`} {
		if err := m.says(ctx, text); err != nil {
			return err
		}
		m.laps.lap(text)
	}
	err := m.Save(ctx, file)
	m.laps.lap("saved")
	return err
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
	m.laps.lap("answer")
	m.kata.laps = m.laps
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
