package sandbox

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/kbs/sealed"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// unsealedSuffix is that of a file with what a sealed one contained
// (guest-protocol 10.4).
const unsealedSuffix = ".unsealed"

// maxEntries bounds the files of a volume that are looked at; volumes of secrets
// have a handful.
const maxEntries = 4096

// Unseal opens the sealed secrets in the source of a bind mount that the host
// has filled: in the file, or in the files directly in the directory. What is
// not sealed stays as it is. The first failure ends it.
//
// As the field does, it puts the value of a file of a directory beside it and a
// symbolic link in its place. A second container that mounts the same
// directory finds it done.
func (s *Sandbox) Unseal(source string, open func(text string) (secret.Bytes, error)) error {
	return s.withSealed(source, open, func(u unsealer, name string, dir bool) error {
		if err := u.all(name, dir); err != nil {
			return err
		}
		return u.restore(name)
	})
}

// withSealed does something with the files of a source, which the host fills.
func (s *Sandbox) withSealed(source string, open func(text string) (secret.Bytes, error), do func(u unsealer, name string, dir bool) error) error {
	name, err := s.sharedName(source)
	if err != nil || s.storages.has(path.Join(sharedDir, name), driverLocal) {
		return nil //nolint:nilerr // what the host does not fill has nothing sealed in it
	}
	shared, err := s.root.OpenRoot(sharedDir)
	if err != nil {
		return fmt.Errorf("open the shared directory: %w", err)
	}
	defer func() { _ = shared.Close() }()
	fi, err := shared.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil // whoever mounts it says so
	case err != nil:
		return invalidf("mount source %q cannot be used: %v", source, err)
	}
	return do(unsealer{root: shared, open: open, opened: &s.opened}, name, fi.IsDir())
}

// all opens what is sealed in a file, or directly in a directory.
func (u unsealer) all(name string, dir bool) error {
	if !dir {
		return u.file(name, false)
	}
	entries, err := u.entries(name)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := u.file(path.Join(name, e), true); err != nil {
			return err
		}
	}
	return nil
}

type unsealer struct {
	root   *os.Root // the shared directory
	open   func(text string) (secret.Bytes, error)
	opened *openedFiles
}

func (u unsealer) entries(dir string) ([]string, error) {
	d, err := u.root.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = d.Close() }()
	names, err := d.Readdirnames(maxEntries + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if len(names) > maxEntries {
		return nil, invalidf("more than %d files in a volume", maxEntries)
	}
	return names, nil
}

// file opens one file if it is sealed.
func (u unsealer) file(name string, linked bool) error {
	text, fi, err := u.read(name)
	if err != nil || text == "" {
		return err
	}
	value, err := u.open(text)
	if err != nil {
		return err
	}
	defer value.Destroy()
	return u.opened.put(name, &openedFile{text: text, linked: linked, as: fi}, func() error {
		tmp := temporary(name)
		err := u.write(tmp, value.Reveal(), fi)
		if err == nil {
			err = u.place(tmp, name, linked)
		}
		if err != nil {
			return errors.Join(err, u.root.RemoveAll(tmp)) // the value must not stay behind
		}
		return nil
	})
}

// place puts the value in the sealed file's place, or beside it with a link.
func (u unsealer) place(tmp, name string, linked bool) error {
	if !linked {
		return u.root.Rename(tmp, name)
	}
	if err := u.root.Rename(tmp, name+unsealedSuffix); err != nil {
		return err
	}
	if err := u.root.Symlink(path.Base(name)+unsealedSuffix, tmp); err != nil {
		return err
	}
	return u.root.Rename(tmp, name)
}

// temporary is a name beside the file that no other file shares.
func temporary(name string) string {
	sum := sha256.Sum256([]byte(name))
	return path.Join(path.Dir(name), ".unsealing-"+hex.EncodeToString(sum[:12]))
}

// read returns the text of a sealed regular file, or one that a symbolic link
// leads to; empty for everything else.
func (u unsealer) read(name string) (string, fs.FileInfo, error) {
	f, err := u.root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe must not hold us
	if err != nil {
		return "", nil, nil //nolint:nilerr // a link that leads nowhere is the container's affair
	}
	defer func() { _ = f.Close() }()
	fi, err := f.Stat()
	if err != nil || !fi.Mode().IsRegular() {
		return "", nil, err
	}
	head := make([]byte, len(sealed.Prefix))
	if _, err := io.ReadFull(f, head); err != nil || !sealed.Is(string(head)) {
		return "", nil, nil //nolint:nilerr // too short to be sealed
	}
	if fi.Size() > sealed.MaxSize {
		return "", nil, invalidf("a sealed file of %d bytes, at most %d are allowed", fi.Size(), sealed.MaxSize)
	}
	rest, err := io.ReadAll(io.LimitReader(f, sealed.MaxSize))
	return string(head) + string(rest), fi, err
}

// write puts the value into a new file with the owner and mode of the sealed one.
func (u unsealer) write(tmp string, value []byte, as fs.FileInfo) error {
	if err := u.root.RemoveAll(tmp); err != nil {
		return err
	}
	f, err := u.root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(value)
	if st, ok := as.Sys().(*syscall.Stat_t); ok && err == nil {
		err = f.Chown(int(st.Uid), int(st.Gid))
	}
	if err == nil {
		err = f.Chmod(as.Mode().Perm())
	}
	return errors.Join(err, f.Close())
}
