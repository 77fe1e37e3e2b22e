package collateral

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// maxFile bounds a file of the directory: the largest item in base64, and what
// is around it.
const maxFile = 12 << 20

// readDir reads what the directory has, but for certificates of chips. A file
// that is damaged is as good as absent.
func (s *Store) readDir() error {
	if s.cfg.Dir == "" {
		return nil
	}
	if err := os.MkdirAll(s.cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("collateral: %w", err)
	}
	files, err := os.ReadDir(s.cfg.Dir)
	if err != nil {
		return fmt.Errorf("collateral: %w", err)
	}
	for _, f := range files {
		n, ok := nameOfFile(f.Name())
		if !ok {
			continue
		}
		if r, _ := n.parse(); r.kind == kindVCEK {
			s.chips++
			continue
		}
		if e := s.readFile(n); e != nil {
			s.mu.Lock()
			s.keep(e)
			s.mu.Unlock()
		}
	}
	return nil
}

// readFile returns the item of a file, nil if there is none that is good. Its
// dates are for who asked.
func (s *Store) readFile(n Name) *entry {
	i, err := readItem(filepath.Join(s.cfg.Dir, n.file()))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && i.Name != n {
		err = fmt.Errorf("it holds %q", i.Name)
	}
	var e *entry
	if err == nil {
		e, err = s.entryOf(i)
	}
	if err != nil {
		s.cfg.Logger.Warn("a file of collateral is not used", slog.String("event_id", "collateral.file"),
			slog.String("name", string(n)), slog.Any("error", err))
		return nil
	}
	return e
}

func readItem(path string) (i Item, err error) {
	raw, err := readBounded(path)
	if err != nil {
		return i, err
	}
	err = strictjson.Decode(raw, &i)
	return i, err
}

// readBounded reads a file of at most maxFile bytes.
func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read from
	raw, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(raw) > maxFile {
		err = fmt.Errorf("%s: larger than %d bytes", path, maxFile)
	}
	return raw, err
}

// writeFile replaces the item's file as a whole: who reads sees the old one or
// the new one.
func (s *Store) writeFile(i Item) (err error) {
	if s.cfg.Dir == "" || !s.room(i.Name) {
		return nil
	}
	raw, err := json.Marshal(i)
	if err != nil {
		return err
	}
	return writeAtomically(filepath.Join(s.cfg.Dir, i.Name.file()), raw)
}

// room reports whether the directory takes the item: it holds certificates of
// so many chips and no more, for a stranger can name chips without end.
func (s *Store) room(n Name) bool {
	if r, _ := n.parse(); r.kind != kindVCEK {
		return true
	}
	if _, err := os.Lstat(filepath.Join(s.cfg.Dir, n.file())); err == nil {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.chips >= s.cfg.MaxItems {
		return false
	}
	s.chips++
	return true
}

// writeAtomically writes a file of mode 0600 beside its place and moves it
// there when it is on the disk.
func writeAtomically(path string, raw []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(raw)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
