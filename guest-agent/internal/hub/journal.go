package hub

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

// Journal is a file of bounded size for what the broker could not be told. Each
// Write is one entry. When the file is full it becomes the old one (".1"), in
// the place of the previous old one.
type Journal struct {
	mu   sync.Mutex
	path string
	max  int64
	file *os.File
	size int64
}

// OpenJournal opens or makes the journal at path, readable only by its owner.
// Together with its old file it takes at most 2*limit bytes. The directory is
// made with mode 0700 if it is not there.
func OpenJournal(path string, limit int64) (*Journal, error) {
	if limit <= 0 {
		return nil, errors.New("journal: size limit must be positive")
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	j := &Journal{path: path, max: limit}
	if err := j.open(); err != nil {
		return nil, err
	}
	return j, nil
}

func (j *Journal) open() error {
	// Not through a symbolic link: a container may have had a hand in the
	// directory, and the journal must not be written where it points.
	f, err := os.OpenFile(j.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err == nil {
		err = f.Chmod(0o600) // an existing file may be wider open
	}
	if err != nil {
		return errors.Join(fmt.Errorf("journal: %w", err), f.Close())
	}
	j.file, j.size = f, info.Size()
	return nil
}

// Write appends one entry. An entry larger than the limit is refused.
func (j *Journal) Write(entry []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return 0, os.ErrClosed
	}
	if int64(len(entry)) > j.max {
		return 0, fmt.Errorf("journal: entry of %d bytes, at most %d are kept", len(entry), j.max)
	}
	if j.size+int64(len(entry)) > j.max {
		if err := j.rotate(); err != nil {
			return 0, err
		}
	}
	n, err := j.file.Write(entry)
	j.size += int64(n)
	return n, err
}

func (j *Journal) rotate() error {
	if err := os.Rename(j.path, j.path+".1"); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	old := j.file
	if err := j.open(); err != nil {
		return err // old stays open: later entries still have a place
	}
	return old.Close()
}

// Close closes the file.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return nil
	}
	err := j.file.Close()
	j.file = nil
	return err
}
