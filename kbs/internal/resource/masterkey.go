package resource

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// LoadOrCreateMasterKey reads the 32-byte master key from a file, and makes one
// at random where there is none. The new file has mode 0600 and is on disk when
// the function returns. It appears whole or not at all, and never replaces
// another: of two brokers that start at once, both get the same key.
//
// A file that others than its owner may read, or that cannot be a key, is
// refused.
func LoadOrCreateMasterKey(path string) (secret.Bytes, error) {
	key, err := LoadMasterKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if err := createMasterKey(path); err != nil && !errors.Is(err, fs.ErrExist) {
		return secret.Bytes{}, fmt.Errorf("resource: master key: %w", err)
	}
	return LoadMasterKey(path)
}

// LoadMasterKey reads an existing master key; it wraps fs.ErrNotExist if there
// is none.
func LoadMasterKey(path string) (secret.Bytes, error) {
	f, err := os.Open(path)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("resource: master key: %w", err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("resource: master key: %w", err)
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 {
		return secret.Bytes{}, fmt.Errorf("%w: %s has mode %v, and only its owner may have access", ErrMasterKey, path, info.Mode())
	}
	if info.Size() != sizeKey {
		return secret.Bytes{}, fmt.Errorf("%w: %s has %d bytes, want %d", ErrMasterKey, path, info.Size(), sizeKey)
	}
	raw := make([]byte, sizeKey)
	if _, err := io.ReadFull(f, raw); err != nil {
		return secret.Bytes{}, fmt.Errorf("resource: master key: %w", err)
	}
	key := secret.New(raw)
	if key.Equal(secret.New(make([]byte, sizeKey))) { // what a crash of the machine may leave of a file
		return secret.Bytes{}, fmt.Errorf("%w: %s holds only zeros", ErrMasterKey, path)
	}
	return key, nil
}

// createMasterKey writes the key beside its place and links it there, which
// fails if there is a file already.
func createMasterKey(path string) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".master-*") // mode 0600, O_EXCL
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	key := secret.Random(sizeKey)
	defer key.Destroy()
	_, err = f.Write(key.Reveal())
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
