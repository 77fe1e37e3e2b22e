package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/program"
)

// emptyStart is how much of a disk must be zero for it to count as empty, in
// bytes: the superblocks of all usual filesystems lie there.
const emptyStart = 1 << 20

// createFilesystem makes an ext4 filesystem on a disk that is empty. One that is
// not stays as it is.
func createFilesystem(ctx context.Context, node, fstype string) error {
	if fstype != "ext4" {
		return invalidf("filesystem %.32q is not made on a disk", fstype)
	}
	f, err := os.Open(node)
	if err != nil {
		return err
	}
	start, err := io.ReadAll(io.LimitReader(f, emptyStart))
	_ = f.Close()
	if err != nil {
		return err
	}
	if len(bytes.TrimLeft(start, "\x00")) > 0 {
		return nil
	}
	// The field's choice for a disk that lives as long as its pod (kata-agent 2.10).
	if _, err := (program.Set{}).Run(ctx, "mkfs.ext4", nil, "-q", "-F", "-O", "^has_journal", "-m", "0", "-i", "163840", "-I", "128", node); err != nil {
		return fmt.Errorf("make a filesystem: %w", err)
	}
	return nil
}

// ownTree gives everything in a volume to a group, as Kubernetes' fsGroup wants
// it. No link of the volume is followed. With onChange nothing is done where the
// volume's own directory has the group already.
func ownTree(ctx context.Context, path string, gid int, onChange bool) error {
	if gid < 0 {
		return nil
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	if onChange {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			return err
		}
		if int(st.Gid) == gid && st.Mode&unix.S_ISGID != 0 {
			return nil
		}
	}
	err = fs.WalkDir(root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if err = errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		if err := root.Lchown(name, -1, gid); err != nil {
			return err
		}
		fi, err := e.Info()
		if err != nil || !fi.IsDir() && !fi.Mode().IsRegular() {
			return err
		}
		const groupRead, groupWrite, groupExecute = 0o040, 0o020, 0o010
		mode := fi.Mode().Perm() | fi.Mode()&fs.ModeSticky | groupRead | groupWrite
		if fi.IsDir() {
			mode |= groupExecute | fs.ModeSetgid
		}
		return root.Chmod(name, mode)
	})
	if err != nil {
		return fmt.Errorf("give the volume to group %d: %w", gid, err)
	}
	return nil
}
