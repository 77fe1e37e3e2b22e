// Package boot tests guests that are booted, with the agent as their init, in
// QEMU: `make test-boot`. What is shown here is what needs a kernel, a firmware or
// a TPM of the guest's own.
package boot

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/qemu"
	"github.com/vouchsafe-cc/vouchsafe/tests/internal/world"
)

// plain is a machine without firmware that measures, for what needs no evidence.
func plain(t *testing.T, form, more string) qemu.Config {
	t.Helper()
	cfg := qemu.Config{Accelerator: qemu.TCG, Network: true}
	if err := cfg.Open(image(t, form).Dir); err != nil {
		t.Fatal(err)
	}
	cfg.CommandLine += " " + more
	return cfg
}

func bare(t *testing.T) *world.World {
	t.Helper()
	w := &world.World{Dir: t.TempDir()}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// A kernel starts the agent, which serves. From there a machine goes on any number of
// times: it ends with its pod and switches itself off, and it ends in order when
// somebody presses Ctrl-Alt-Del.
func TestInit(t *testing.T) {
	t.Parallel()
	w := bare(t)
	cfg := plain(t, "initrd", "vouchsafe.insecure_no_agent_policy=true")
	state := filepath.Join(t.TempDir(), "state")
	begin := time.Now()
	if err := w.SaveBooted(t.Context(), cfg, state); err != nil {
		t.Fatal(err)
	}
	t.Logf("complete and saved after %.1f s", time.Since(begin).Seconds())
	cfg.RestoreFrom = state
	for name, end := range map[string]func(context.Context, *world.Machine) error{
		"with its pod": func(ctx context.Context, m *world.Machine) error {
			if err := m.Kata().Pod(ctx); err != nil {
				return err
			}
			if err := m.Kata().EndPod(ctx); err != nil {
				return err
			}
			return m.Wait(ctx)
		},
		"asked to": func(ctx context.Context, m *world.Machine) error { return m.Shutdown(ctx) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			begin := time.Now()
			m, err := w.Boot(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("answered after %.1f s", time.Since(begin).Seconds())
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := end(ctx, m); err != nil {
				t.Fatal(err)
			}
			if console := read(t, m.Console()); !strings.Contains(console, "guest-agent: the machine ends, status 0") {
				t.Errorf("the console lacks how it ended:\n%s", console)
			}
		})
	}
}

// One byte of the agent on the root disk that is not as it was built keeps it from
// starting: the kernel refuses to read it, and the machine ends.
func TestFlippedByte(t *testing.T) {
	t.Parallel()
	w := bare(t)
	cfg := plain(t, "verity", "")
	var err error
	if cfg.Disk, err = world.FlippedDisk(cfg.Disk, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	m, err := w.Boot(t.Context(), cfg)
	if err == nil {
		t.Fatal("the agent answers")
	}
	console := read(t, m.Console())
	if !strings.Contains(console, "is corrupted") || strings.Contains(console, "the machine is set up") {
		t.Errorf("%v; the console lacks the reason:\n%s", err, console)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}
