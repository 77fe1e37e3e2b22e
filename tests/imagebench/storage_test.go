package main

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A disk is ext4, and nothing is left of it.
func TestDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		t.Skip("there are no loop devices here")
	}
	memory := t.TempDir()
	p, err := newPlace(t.Context(), memory, true)
	if err != nil {
		t.Fatal(err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(p.dir, &fs); err != nil || fs.Type != unix.EXT4_SUPER_MAGIC {
		t.Errorf("type %x, %v", fs.Type, err)
	}
	if err := os.WriteFile(filepath.Join(p.dir, "file"), []byte("x"), 0o600); err != nil {
		t.Error(err)
	}
	if err := p.undo(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(memory); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
