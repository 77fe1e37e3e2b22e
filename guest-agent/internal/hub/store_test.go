package hub

import (
	"os"
	"strings"
	"testing"

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
