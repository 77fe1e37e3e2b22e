package collateral

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// Files is a Fetcher of what lies in a directory: see [ReadFiles]. It looks
// again whenever it is asked, and reads anew what changed.
type Files struct {
	dir     string
	trusted []*x509.Certificate

	mu    sync.Mutex
	shelf *Shelf
	state [sha256.Size]byte // of the directory when it was read
}

// NewFiles reads a directory, which must be there.
func NewFiles(dir string, trusted []*x509.Certificate) (*Files, error) {
	f := &Files{dir: dir, trusted: trusted}
	_, err := f.look()
	return f, err
}

// Fetch implements [Fetcher].
func (f *Files) Fetch(ctx context.Context, n Name) (Item, error) {
	s, err := f.look()
	if err != nil {
		return Item{}, &UnavailableError{Err: err}
	}
	items, err := s.find(ctx, n)
	return items[0], err
}

// Chips is the same for certificates of chips alone. Of those there is one
// edition, so a file is as good as its publisher; of all else a publisher may
// have a newer one.
func (f *Files) Chips() Fetcher { return chips{f} }

type chips struct{ *Files }

// Fetch implements [Fetcher].
func (c chips) Fetch(ctx context.Context, n Name) (Item, error) {
	if r, err := n.parse(); err != nil || r.kind != kindVCEK {
		return Item{}, errors.Join(err, ErrElsewhere)
	}
	return c.Files.Fetch(ctx, n)
}

// look returns what the directory has now.
func (f *Files) look() (*Shelf, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	state, err := stateOf(f.dir)
	if err != nil {
		return nil, fmt.Errorf("collateral: %w", err)
	}
	if f.shelf != nil && state == f.state {
		return f.shelf, nil
	}
	s, err := ReadFiles(f.dir, f.trusted)
	if err != nil {
		return nil, err
	}
	f.shelf, f.state = s, state
	return s, nil
}

// stateOf sums up names, sizes and times of the files below a directory.
func stateOf(dir string) (sum [sha256.Size]byte, err error) {
	h := sha256.New()
	err = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		i, err := os.Stat(path)
		if err == nil {
			fmt.Fprintf(h, "%q %d %d\n", path, i.Size(), i.ModTime().UnixNano())
		}
		return err
	})
	h.Sum(sum[:0])
	return sum, err
}
