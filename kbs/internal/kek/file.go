package kek

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// ErrFile says that a file cannot be a master key.
var ErrFile = errors.New("kek: not a usable key file")

const localPrefix = "local:"

// Files is the holder that keeps keys in files of 32 bytes: the first one at
// the path that it is made of, and those that followed beside it, each with
// its id in its name. Every replica of a broker needs the same files.
type Files string

var _ Holder = Files("")

// First reads the key at the path, and makes it where there is none.
func (f Files) First(context.Context) (Wrapper, error) {
	key, err := LoadOrCreate(string(f))
	if err != nil {
		return nil, err
	}
	defer key.Destroy()
	return NewLocal(key)
}

// Open reads the key of this id from the first file or from its own.
func (f Files) Open(_ context.Context, id string) (Wrapper, error) {
	hexID, ok := strings.CutPrefix(id, localPrefix)
	if _, err := hex.DecodeString(hexID); !ok || err != nil {
		return nil, ErrUnknown
	}
	for _, path := range []string{string(f), f.named(hexID)} {
		key, err := Load(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		w, err := NewLocal(key)
		key.Destroy()
		if err != nil {
			return nil, err
		}
		if w.ID() == id {
			return w, nil
		}
	}
	return nil, ErrUnknown
}

// Make writes a new key beside the first one.
func (f Files) Make(context.Context) (Wrapper, error) {
	key := secret.Random(Size)
	defer key.Destroy()
	w, err := NewLocal(key)
	if err != nil {
		return nil, err
	}
	if err := create(f.named(strings.TrimPrefix(w.ID(), localPrefix)), key); err != nil {
		return nil, fmt.Errorf("kek: make a key: %w", err)
	}
	return w, nil
}

// Path returns the file that a key of this id would lie in after Make.
func (f Files) Path(id string) string { return f.named(strings.TrimPrefix(id, localPrefix)) }

func (f Files) named(hexID string) string {
	ext := filepath.Ext(string(f))
	return strings.TrimSuffix(string(f), ext) + "-" + hexID + ext
}

// LoadOrCreate reads 32 bytes of key from a file, and makes them at random
// where there is none. The new file has mode 0600 and is on disk when the
// function returns. It appears whole or not at all, and never replaces
// another: of two brokers that start at once, both get the same key.
//
// A file that others than its owner may read, or that cannot be a key, is
// refused with ErrFile.
func LoadOrCreate(path string) (secret.Bytes, error) {
	key, err := Load(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	fresh := secret.Random(Size)
	defer fresh.Destroy()
	if err := create(path, fresh); err != nil && !errors.Is(err, fs.ErrExist) {
		return secret.Bytes{}, fmt.Errorf("kek: key file: %w", err)
	}
	return Load(path)
}

// Load reads an existing key; it wraps fs.ErrNotExist if there is none.
func Load(path string) (secret.Bytes, error) {
	f, err := os.Open(path)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("kek: key file: %w", err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("kek: key file: %w", err)
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 {
		return secret.Bytes{}, fmt.Errorf("%w: %s has mode %v, and only its owner may have access", ErrFile, path, info.Mode())
	}
	if info.Size() != Size {
		return secret.Bytes{}, fmt.Errorf("%w: %s has %d bytes, want %d", ErrFile, path, info.Size(), Size)
	}
	raw := make([]byte, Size)
	if _, err := io.ReadFull(f, raw); err != nil {
		return secret.Bytes{}, fmt.Errorf("kek: key file: %w", err)
	}
	key := secret.New(raw)
	if key.Equal(secret.New(make([]byte, Size))) { // what a crash of the machine may leave of a file
		return secret.Bytes{}, fmt.Errorf("%w: %s holds only zeros", ErrFile, path)
	}
	return key, nil
}

// create writes the key beside its place and links it there, which fails if
// there is a file already.
func create(path string, key secret.Bytes) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".master-*") // mode 0600, O_EXCL
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
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
