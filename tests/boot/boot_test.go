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
func plain(t *testing.T, commandLine string) qemu.Config {
	t.Helper()
	dir := image(t)
	own, err := os.ReadFile(filepath.Join(dir, "cmdline"))
	if err != nil {
		t.Fatal(err)
	}
	commandLine = strings.TrimSpace(string(own)) + " agent.server_addr=virtio-serial://" + qemu.Channel + " " + commandLine
	return qemu.Config{
		Kernel: filepath.Join(dir, "vmlinuz"), Initrd: filepath.Join(dir, "initrd.zst"),
		CommandLine: commandLine, Accelerator: qemu.TCG,
	}
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

// A kernel starts the agent, which answers, ends with its pod and switches the
// machine off.
func TestInit(t *testing.T) {
	w := bare(t)
	begin := time.Now()
	m, err := w.Boot(t.Context(), plain(t, "vouchsafe.insecure_no_agent_policy=true"))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("answered after %.1f s", time.Since(begin).Seconds())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := m.Kata().Pod(ctx); err != nil {
		t.Fatal(err)
	}
	if err := m.Kata().EndPod(ctx); err != nil {
		t.Fatal(err)
	}
	if err := m.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	console, err := os.ReadFile(m.Console())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(console), "guest-agent: the machine ends, status 0") {
		t.Errorf("the console lacks how it ended:\n%s", console)
	}
}
