// Package fetch keeps the packages that images are built from in a directory, by
// their hashes: fetched once, checked whenever they are used.
package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/archive"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/lock"
)

// ErrGone says that an archive has a package no more.
var ErrGone = errors.New("the archive has it no more")

// A Cache is the directory. Processes may share it.
type Cache struct {
	Dir    string
	Client *http.Client
}

// Open returns the package as a file whose content was checked against the
// lock, fetching it where it is not there yet.
func (c *Cache) Open(ctx context.Context, p lock.Package) (*os.File, error) {
	name := filepath.Join(c.Dir, p.SHA256+".deb")
	f, err := os.Open(name)
	switch {
	case err == nil:
		if err = check(f, p); err == nil {
			return f, nil
		}
		_ = f.Close()
		return nil, fmt.Errorf("%s: %w: remove it", name, err)
	case !errors.Is(err, os.ErrNotExist):
		return nil, err
	}
	if err := c.fetch(ctx, p, name); err != nil {
		return nil, fmt.Errorf("package %s %s: %w", p.Name, p.Version, err)
	}
	return os.Open(name)
}

func check(f *os.File, p lock.Package) error {
	if _, err := io.Copy(io.Discard, archive.NewChecked(f, p.Size, p.SHA256)); err != nil {
		return err
	}
	_, err := f.Seek(0, io.SeekStart)
	return err
}

// fetch writes the package beside its place and moves it there once its hash is
// right, so that no reader ever finds half of it.
func (c *Cache) fetch(ctx context.Context, p lock.Package, name string) (err error) {
	body, err := archive.Get(ctx, c.Client, p.URL)
	if errors.Is(err, archive.ErrAbsent) {
		return fmt.Errorf("%s: %w: a newer version has taken its place. Lock again (apt-get update, then rootfs lock), or build with the cache that has it", p.URL, ErrGone)
	}
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(c.Dir, "fetching-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(tmp.Name())
		}
	}()
	_, err = io.Copy(tmp, archive.NewChecked(body, p.Size, p.SHA256))
	if err := errors.Join(err, tmp.Close()); err != nil {
		return fmt.Errorf("%s: %w", p.URL, err)
	}
	return os.Rename(tmp.Name(), name)
}
