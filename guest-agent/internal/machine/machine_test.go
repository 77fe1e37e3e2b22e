package machine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/image/driver"
)

// fake is a machine whose /sys is made of files.
func fake(t *testing.T, files map[string]string) *Machine {
	t.Helper()
	m := &Machine{Root: t.TempDir()}
	for name, text := range files {
		plug(t, m, name, text)
	}
	return m
}

func plug(t *testing.T, m *Machine, name, text string) {
	t.Helper()
	path := m.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, m *Machine, name string) string {
	t.Helper()
	raw, err := os.ReadFile(m.path(name))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestOnline(t *testing.T) {
	m := fake(t, map[string]string{
		cpuDir + "/cpu1/online": "1\n", cpuDir + "/cpu2/online": "0\n", cpuDir + "/cpu3/online": "0\n",
		cpuDir + "/cpufreq/online":     "0\n", // no processor
		memoryDir + "/memory32/online": "0\n", memoryDir + "/memory33/online": "1\n",
	})
	if err := m.Online(t.Context(), true, 1, true); err != nil {
		t.Fatal(err)
	}
	got := content(t, m, cpuDir+"/cpu2/online") + content(t, m, cpuDir+"/cpu3/online")
	if got != "10\n" {
		t.Errorf("processors %q, want only the first in use", got)
	}
	if got := content(t, m, memoryDir+"/memory32/online"); got != "0\n" {
		t.Errorf("memory was taken into use: %q", got)
	}
	if err := m.Online(t.Context(), false, 0, false); err != nil {
		t.Fatal(err)
	}
	if got := content(t, m, memoryDir+"/memory32/online"); got != "1" {
		t.Errorf("memory: %q", got)
	}
	if got := content(t, m, cpuDir+"/cpufreq/online"); got != "0\n" {
		t.Errorf("wrote where no processor is: %q", got)
	}
}

// A processor that comes late is waited for, and one that does not is not for
// ever.
func TestOnlineWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := fake(t, nil)
		m.Settle = time.Second
		done := make(chan error)
		go func() { done <- m.Online(t.Context(), true, 1, true) }()
		<-time.After(500 * time.Millisecond) // of the bubble's clock
		plug(t, m, cpuDir+"/cpu1/online", "0\n")
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := m.Online(t.Context(), true, 1, true); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("no processor came, and: %v", err)
		}
	})
}

func TestProbe(t *testing.T) {
	m := fake(t, map[string]string{memoryDir + "/block_size_bytes": "8000000\n"})
	if err := m.Probe([]uint64{0x100000000}); !errors.Is(err, ErrUnsupported) {
		t.Errorf("without a probe: %v", err)
	}
	plug(t, m, probeFile, "")
	if err := m.Probe([]uint64{0x100000000}); err != nil {
		t.Fatal(err)
	}
	if got := content(t, m, probeFile); got != "0x100000000" {
		t.Errorf("wrote %q", got)
	}
	var invalid *InvalidError
	for name, addresses := range map[string][]uint64{"inside a block": {0x100000001}, "too many": make([]uint64, maxProbes+1)} {
		if err := m.Probe(addresses); !errors.As(err, &invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The host may put the clock forward, and never back.
func TestClock(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	m := &Machine{Now: func() time.Time { return now }, SetClock: func(t time.Time) error { now = t; return nil }}
	later := now.Add(time.Hour)
	if err := m.SetTime(later); err != nil || !now.Equal(later) {
		t.Errorf("%v, %v", now, err)
	}
	var invalid *InvalidError
	if err := m.SetTime(later.Add(-time.Second)); !errors.As(err, &invalid) || !now.Equal(later) {
		t.Errorf("set back to %v: %v", now, err)
	}
}

func TestReseed(t *testing.T) {
	m := fake(t, map[string]string{random: ""})
	told := 0
	m.Reseeded = func(*os.File) error { told++; return nil }
	if err := m.Reseed([]byte("seed")); err != nil || told != 1 {
		t.Errorf("%v, told %d times", err, told)
	}
	if got := content(t, m, random); got != "seed" {
		t.Errorf("wrote %q", got)
	}
	for _, data := range [][]byte{nil, make([]byte, maxEntropy+1)} {
		if err := m.Reseed(data); err == nil {
			t.Errorf("%d bytes were taken", len(data))
		}
	}
	// The real ioctl, on the real device, where a test may.
	if err := (&Machine{}).Reseed([]byte("x")); err != nil && !errors.Is(err, os.ErrPermission) {
		t.Error(err)
	}
}

func TestLoadModules(t *testing.T) {
	m := fake(t, nil)
	err := m.LoadModules(t.Context(), []Module{{Name: "loop"}})
	if missing, ok := errors.AsType[*driver.MissingError](err); !ok || !slices.Equal(missing.Modules, []string{"loop"}) {
		t.Errorf("without modprobe: %v", err)
	}
	plug(t, m, "/sys/module/dm_crypt/initstate", "live\n")
	plug(t, m, "/sys/module/ext4/parameters/built_in", "1\n")
	plug(t, m, "/sys/module/nvme/initstate", "coming\n")
	if err := m.LoadModules(t.Context(), []Module{{Name: "dm-crypt"}, {Name: "ext4"}}); err != nil {
		t.Errorf("what is loaded, or built in: %v", err)
	}
	for _, other := range []Module{{Name: "dm-crypt", Parameters: []string{"x=1"}}, {Name: "nvme"}} {
		if err := m.LoadModules(t.Context(), []Module{other}); fault.CodeOf(err) != fault.DriverMissing {
			t.Errorf("%v: %v", other, err)
		}
	}
	plug(t, m, "/sbin/modprobe", "#!/bin/sh\necho \"$@\" >>'"+m.Root+"/asked'\ncase $2 in bad) echo no such module >&2; exit 1;; esac\n")
	if err := m.LoadModules(t.Context(), []Module{{Name: "nvme", Parameters: []string{"io_timeout=30"}}, {Name: "fuse"}}); err != nil {
		t.Fatal(err)
	}
	if got := content(t, m, "asked"); got != "-- nvme io_timeout=30\n-- fuse\n" {
		t.Errorf("asked for %q", got)
	}
	if err := m.LoadModules(t.Context(), []Module{{Name: "bad"}}); err == nil || !strings.Contains(err.Error(), "no such module") {
		t.Errorf("a module that does not load: %v", err)
	}
	var invalid *InvalidError
	for _, hostile := range []Module{{Name: "-C/tmp/x"}, {Name: "../x"}, {Name: ""}, {Name: "a", Parameters: []string{"--install"}}, {Name: "a", Parameters: []string{"x=$(id)"}}} {
		if err := m.LoadModules(t.Context(), []Module{hostile}); !errors.As(err, &invalid) {
			t.Errorf("%v: %v", hostile, err)
		}
	}
}
