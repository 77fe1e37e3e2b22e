package qemu

import (
	"context"
	"errors"
	"fmt"
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

var errMigrating = errors.New("still on its way")

// migrated waits for the state to have been written or read.
func (m *Machine) migrated(ctx context.Context) error {
	return m.vm.until(ctx, "move the machine's state", func() error {
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
