package qemu

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Save writes the machine, with the volatile state of its TPM, to a file, and
// stops it. A machine of the same configuration, with the TPM's state directory as
// it was when the machine started, goes on from there ([Config.RestoreFrom]), any
// number of times. Nobody may be connected to the agent.
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
	return m.monitor.do(ctx, "cont", nil, nil)
}

// unreadable is the file of a drive whose every read fails, which stops the
// machine rather than being told to it.
func unreadable(file string) string {
	return "rerror=stop,file.driver=blkdebug,file.inject-error.0.event=read_aio,file.image.driver=file,file.image.filename=" + file
}

// Booted waits until the firmware has handed over to the kernel, which runs in the
// upper half of the addresses, where no firmware does. It takes the kernel seconds
// from there to its first process.
func (m *Machine) Booted(ctx context.Context) error {
	return m.vm.until(ctx, bootTimeout, "boot the kernel", func() error {
		var registers string
		if err := m.monitor.do(ctx, "human-monitor-command", map[string]any{"command-line": "info registers"}, &registers); err != nil {
			return err
		}
		if !strings.Contains(registers, "RIP=ffffffff") {
			return errElsewhere
		}
		return nil
	})
}

// Held waits until the machine has stopped because of [Config.HoldInitData]. What
// is saved then goes on with whatever init-data it is restored with: the read is
// made again. The firmware reads disks too, so hold a machine that was restored
// from one that is [Machine.Booted].
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

// bootTimeout bounds both. Emulated and on a busy machine, a boot takes up to a
// minute.
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
