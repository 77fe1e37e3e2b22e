package store

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// Both ways to mount must show the same tree, also with very many layers: the
// older way serves kernels before 6.7.
func TestBothWaysOfMounting(t *testing.T) {
	needMounts(t)
	for name, way := range map[string]struct {
		layers int
		mount  func(overlay) error
	}{
		"one option per layer": {MaxLayers, overlay.mountByOption},
		"all in one page":      {150, func(o overlay) error { return o.mountByPage(t.TempDir()) }},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			o := overlay{upper: filepath.Join(dir, "upper"), work: filepath.Join(dir, "work"), target: filepath.Join(dir, "target")}
			for i := range way.layers {
				l := filepath.Join(dir, "a-layer-with-a-long-name-"+strconv.Itoa(i))
				must(t, os.Mkdir(l, 0o755))
				must(t, os.WriteFile(filepath.Join(l, strconv.Itoa(i)), nil, 0o644))
				must(t, os.WriteFile(filepath.Join(l, "top"), []byte(strconv.Itoa(i)), 0o644))
				o.lowers = append(o.lowers, l)
			}
			for _, d := range []string{o.upper, o.work, o.target} {
				must(t, os.Mkdir(d, 0o755))
			}
			must(t, way.mount(o))
			t.Cleanup(func() { _ = unix.Unmount(o.target, unix.MNT_DETACH) })
			if b, err := os.ReadFile(filepath.Join(o.target, "top")); err != nil || string(b) != "0" {
				t.Errorf("the topmost layer is not on top: %q, %v", b, err)
			}
			for _, f := range []string{"0", "70", strconv.Itoa(way.layers - 1)} {
				if _, err := os.Stat(filepath.Join(o.target, f)); err != nil {
					t.Error(err)
				}
			}
			must(t, os.WriteFile(filepath.Join(o.target, "new"), nil, 0o644))
			must(t, unix.Unmount(o.target, 0))
			if _, err := os.Stat(filepath.Join(o.upper, "new")); err != nil {
				t.Errorf("the write did not land in the upper directory: %v", err)
			}
		})
	}
}
