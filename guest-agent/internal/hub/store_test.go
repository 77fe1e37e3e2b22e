package hub

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/image/store"
)

// With a store in memory nothing of an image is on the disk, and all of the
// memory comes back.
func TestStoreInMemory(t *testing.T) {
	var dir string
	w := newWorld(t, func(c *Config) {
		dir = c.ImageDir
		c.Store = []store.Option{store.InMemory(store.Usage{Bytes: 64 << 20})}
	})
	if err := w.pull(); err != nil {
		t.Fatalf("%v\n%s", err, w.journalText())
	}
	mounts := func() string {
		raw, err := os.ReadFile("/proc/self/mounts")
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	if !strings.Contains(mounts(), " "+dir+" tmpfs rw,nosuid,nodev") || !strings.Contains(mounts(), "size=65536k") {
		t.Errorf("no tmpfs of 64 MiB at %s", dir)
	}
	if err := w.hub.Close(); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(mounts(), " "+dir+" ") {
		t.Error("the memory is kept")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("on the disk: %v, %v", left, err)
	}
}

// Images go to another directory while none is used.
func TestMoveImages(t *testing.T) {
	var dir string
	w := newWorld(t, func(c *Config) { dir = c.ImageDir })
	elsewhere := t.TempDir()
	if err := w.hub.MoveImages(elsewhere); err != nil {
		t.Fatal(err)
	}
	if err := w.pull(); err != nil {
		t.Fatalf("%v\n%s", err, w.journalText())
	}
	layers := func(dir string) int {
		entries, err := os.ReadDir(filepath.Join(dir, "layers"))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return len(entries)
	}
	if layers(dir) > 0 || layers(elsewhere) == 0 {
		t.Errorf("%d layers in the old place, %d in the new one", layers(dir), layers(elsewhere))
	}
	bundle := w.bundle()
	if _, err := w.hub.PullImage(t.Context(), w.ref, bundle); err != nil {
		t.Fatal(err)
	}
	if err := w.hub.MoveImages(t.TempDir()); fault.CodeOf(err) != fault.Conflict {
		t.Errorf("moved while there is an image: %v", err)
	}
	if err := w.hub.ReleaseImage(t.Context(), bundle); err != nil {
		t.Error(err)
	}
	if err := w.hub.MoveImages(filepath.Join(elsewhere, "absent\x00")); err == nil {
		t.Error("moved to nowhere")
	}
}
