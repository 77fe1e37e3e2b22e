package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/image/dm"
	"github.com/vouchsafe-cc/vouchsafe/image/driver"
	"github.com/vouchsafe-cc/vouchsafe/image/erofs"
	"github.com/vouchsafe-cc/vouchsafe/image/verity"
)

// AsImages keeps every layer as an EROFS image with a hash tree, which the
// kernel checks on each read with dm-verity: a host that changes the disk gets
// read errors into the container, nothing else. A kernel without device-mapper
// makes [Open] fail; without EROFS or dm-verity, it is the first commit.
func AsImages() Option { return func(s *Store) { s.images = true } }

// imageFile is a layer's image with the tree behind it.
const imageFile = "image"

// condense turns the unpacked layer into an image with its tree, and leaves an
// empty directory where it was, to mount the image on.
func (st *Staging) condense(ctx context.Context) (*verity.Root, error) {
	f, err := os.OpenFile(filepath.Join(st.dir, imageFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	root, err := writeImage(ctx, f, st.Dir())
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if err := destroy(st.Dir()); err != nil {
		return nil, err
	}
	return &root, os.Mkdir(st.Dir(), 0o700)
}

func writeImage(ctx context.Context, w io.Writer, dir string) (verity.Root, error) {
	b, err := verity.NewBuilder(nil)
	if err != nil {
		return verity.Root{}, err
	}
	if _, err := erofs.Write(ctx, io.MultiWriter(w, b), dir); err != nil {
		return verity.Root{}, err
	}
	return b.Finish(w)
}

// deviceName names a layer's device. Names are the machine's, so that of the
// store is in it.
func (s *Store) deviceName(layer string) string {
	return fmt.Sprintf("vouchsafe-%.16x", sha256.Sum256([]byte(s.dir+"\x00"+layer)))
}

// show mounts a layer's image where the layer is to be seen.
func (s *Store) show(layer string, root verity.Root) error {
	d, err := dm.OpenVerity(s.path(layersDir, layer, imageFile), s.deviceName(layer), root)
	if err != nil {
		return err
	}
	if err := unix.Mount(d.Path(), s.path(layersDir, layer, fsDir), "erofs", unix.MS_RDONLY|unix.MS_NODEV|unix.MS_NOSUID, ""); err != nil {
		return errors.Join(fmt.Errorf("mount the layer's image: %w", driver.Filesystem("erofs", err)), d.Close())
	}
	return nil
}

// hide undoes show, whichever process did it. A layer that is no image stays
// as it is.
func (s *Store) hide(layer string) error {
	if _, err := os.Lstat(s.path(layersDir, layer, imageFile)); err != nil {
		return nil //nolint:nilerr // no image, nothing to hide
	}
	err := unix.Unmount(s.path(layersDir, layer, fsDir), unix.UMOUNT_NOFOLLOW)
	if err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("unmount the layer's image: %w", err)
	}
	return dm.Named(s.deviceName(layer)).Close()
}
