package qemu

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Save writes the machine, with the state of its TPM, to a file, and stops it
// ([Machine.Continue]). A machine of the same configuration, with a TPM, goes on from
// there ([Config.RestoreFrom]), any number of times. Nobody may be connected to the
// agent.
//
// It is for tests, which so boot once: what runs from a saved state twice repeats
// whatever the guest believes to be fresh.
func (m *Machine) Save(ctx context.Context, file string) error {
	if err := m.monitor.do(ctx, "stop", nil, nil); err != nil {
		return err
	}
	if err := m.monitor.do(ctx, "migrate-set-parameters", map[string]any{"max-bandwidth": int64(1) << 40}, nil); err != nil {
		return err
	}
	if err := m.monitor.do(ctx, "migrate", map[string]any{"uri": "exec:cat >" + quote(file)}, nil); err != nil {
		return err
	}
	return m.migrated(ctx)
}

func (m *Machine) restore(ctx context.Context, file string) error {
	if err := m.monitor.do(ctx, "migrate-incoming", map[string]any{"uri": "exec:cat " + quote(file)}, nil); err != nil {
		return err
	}
	if err := m.migrated(ctx); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	return m.Continue(ctx)
}

// Continue lets a machine go on that was saved, or held.
func (m *Machine) Continue(ctx context.Context) error {
	return m.monitor.do(ctx, "cont", nil, nil)
}

// holdSector is a sector of the init-data disk that nobody reads but who reads the
// init-data: firmware and kernel look for partition tables and file systems, before it
// and far behind. Linux reads it ahead when a program reads the first bytes.
const holdSector = 16

// heldAt is the file of a drive whose first read of that sector fails, which stops
// the machine rather than being told to it. When it goes on the read is made again.
func heldAt(file string) string {
	const fails = "file.inject-error.0."
	return fmt.Sprintf("rerror=stop,file.driver=blkdebug,%[1]sevent=read_aio,%[1]ssector=%[2]d,%[1]sonce=on,file.image.driver=file,file.image.filename=%[3]s", fails, holdSector, file)
}

// Held waits until the machine has stopped because of [Config.HoldInitData]. What
// is saved then goes on with whatever init-data it is restored with.
func (m *Machine) Held(ctx context.Context) error {
	return m.vm.until(ctx, bootTimeout, "read the init-data", func() error {
		var state struct {
			Status string `json:"status"`
		}
		if err := m.monitor.do(ctx, "query-status", nil, &state); err != nil {
			return err
		}
		if state.Status != "io-error" {
			return errElsewhere
		}
		return nil
	})
}

// bootTimeout bounds it. Emulated and on a busy machine, a boot takes up to a minute.
const bootTimeout = 3 * time.Minute

var errElsewhere = errors.New("it has not come that far")

var errMigrating = errors.New("still on its way")

// migrated waits for the state to have been written or read.
func (m *Machine) migrated(ctx context.Context) error {
	return m.vm.until(ctx, commandTimeout, "move the machine's state", func() error {
		var state struct {
			Status string `json:"status"`
			Desc   string `json:"error-desc"`
		}
		err := m.monitor.do(ctx, "query-migrate", nil, &state)
		switch {
		case err != nil:
			return err
		case state.Status == "completed":
			return nil
		case state.Desc != "":
			return fmt.Errorf("%s: %s", state.Status, state.Desc)
		}
		return errMigrating
	})
}

// quote makes a word of the shell that QEMU runs of a path.
func quote(path string) string {
	out := "'"
	for _, c := range path {
		if c == '\'' {
			out += `'\''`
			continue
		}
		out += string(c)
	}
	return out + "'"
}
