package world

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
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

// Boot starts a machine in a directory of its own and waits until its agent
// answers. The stage ends it, if nobody does before.
func (w *World) Boot(ctx context.Context, cfg qemu.Config) (*Machine, error) {
	dir, err := os.MkdirTemp("", "vm-") // paths of sockets are short
	if err != nil {
		return nil, err
	}
	m := &Machine{Dir: dir, world: w}
	w.onClose(m.Stop)
	cfg.Dir = dir
	if m.Machine, err = qemu.Start(ctx, cfg); err != nil {
		return nil, err
	}
	return m, m.connect(ctx)
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

// Disconnect closes the connection to the agent, so that the machine can be
// saved.
func (m *Machine) Disconnect() error {
	if m.kata == nil {
		return nil
	}
	err := m.kata.close()
	m.kata = nil
	return err
}

// Kata returns the driver that plays the runtime's part.
func (m *Machine) Kata() *Kata { return m.kata }

// Stop ends the machine at once and removes its directory.
func (m *Machine) Stop() error {
	err := m.Disconnect()
	if m.Machine != nil {
		err = errors.Join(err, m.Machine.Stop())
	}
	return errors.Join(err, os.RemoveAll(m.Dir))
}
