package container

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/mountinfo"
)

func TestCgroupParents(t *testing.T) {
	top := t.TempDir()
	roots := []string{filepath.Join(top, "cpu"), filepath.Join(top, "unified")}
	mounts := []mountinfo.Mount{{Point: top + "/other", Type: "tmpfs"}}
	for i, root := range roots {
		if err := os.MkdirAll(filepath.Join(root, "system/slice"), 0o755); err != nil {
			t.Fatal(err)
		}
		mounts = append(mounts, mountinfo.Mount{Point: root, Type: []string{"cgroup", "cgroup2"}[i]})
	}
	c := newCgroupParents(mounts)
	if !slices.Equal(c.roots, roots) {
		t.Fatalf("hierarchies %v", c.roots)
	}
	// What a runtime does: everything down to the container's own directory.
	build := func(cgroup string) {
		t.Helper()
		c.enter(cgroup)
		for _, root := range roots {
			if err := os.MkdirAll(filepath.Join(root, cgroup), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	remove := func(cgroup string) {
		t.Helper()
		for _, root := range roots {
			if err := os.Remove(filepath.Join(root, cgroup)); err != nil {
				t.Fatal(err)
			}
		}
		c.leave(cgroup)
	}
	there := func(dir string) bool {
		_, err := os.Stat(filepath.Join(roots[1], dir))
		return err == nil
	}
	build("/pods/one/a")
	build("/pods/one/b")
	build("/system/slice/c")
	remove("/pods/one/a")
	if !there("pods/one") {
		t.Error("removed under another container")
	}
	c.enter("/pods/two/d") // is about to be made
	remove("/pods/one/b")
	if there("pods/one") || !there("pods") {
		t.Error("the parents of both are not what they should be")
	}
	c.leave("/pods/two/d") // and was not
	remove("/system/slice/c")
	if there("pods") || !there("system/slice") {
		t.Error("what was there before is gone, or what was made is left")
	}
	if len(c.parents) != 0 {
		t.Errorf("remembered: %v", c.parents)
	}
	for _, odd := range []string{"", "/", "../x", "x"} {
		c.enter(odd)
		c.leave(odd)
	}
	if left := newCgroupParents(nil); len(left.roots) != 0 {
		t.Error("hierarchies out of nothing")
	}
}
