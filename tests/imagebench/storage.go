package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
)

const diskSize = 8 << 30 // of the file, which is sparse

// A place is a fresh directory for one pull.
type place struct {
	dir  string
	undo func() error
}

// newPlace makes a directory on tmpfs or, for disk, on ext4 with a journal that
// is made anew in a file. The file lies on tmpfs as well: what the file system
// costs is measured, not the queue of a disk that others use too.
func newPlace(ctx context.Context, memory string, disk bool) (place, error) {
	dir, err := os.MkdirTemp(memory, "imagebench-")
	if err != nil || !disk {
		return place{dir, func() error { return errors.Join(unmountBelow(ctx, dir), os.RemoveAll(dir)) }}, err
	}
	file, mount := filepath.Join(dir, "disk"), filepath.Join(dir, "mount")
	p := place{mount, func() error { return errors.Join(unmountBelow(ctx, dir), os.RemoveAll(dir)) }}
	err = errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, diskSize), os.Mkdir(mount, 0o755))
	for _, cmd := range []*exec.Cmd{
		exec.CommandContext(ctx, "mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", file),
		exec.CommandContext(ctx, "mount", "-o", "loop,noatime", file, mount),
	} {
		if err == nil {
			err = output(cmd)
		}
	}
	if err != nil {
		return p, errors.Join(err, os.RemoveAll(dir))
	}
	return p, nil
}
