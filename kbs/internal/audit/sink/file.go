package sink

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// File writes one event a line to a file of mode 0600, and begins a new file
// when that one is full: the old one is renamed to PATH.INDEX, INDEX being that
// of its last entry. A line that was cut short by a crash is removed, and
// events that are in the file already are not written twice.
type File struct {
	Path    string
	MaxSize int64 // bytes
	Keep    int   // of the renamed files; 0 keeps all
	Sync    bool  // what is confirmed is on disk
	Format  Format

	f    *os.File
	size int64
	next int64 // index after the last one in the file
}

// Deliver implements [Sink].
func (s *File) Deliver(_ context.Context, batch []Event) error {
	if err := s.open(); err != nil {
		return err
	}
	var lines []byte
	for _, e := range batch {
		if e.Entry.Index < s.next {
			continue
		}
		line, err := s.Format(e)
		if err != nil {
			return err
		}
		if have := s.size + int64(len(lines)); have > 0 && have+int64(len(line))+1 > s.MaxSize {
			if err := s.write(lines, e.Entry.Index); err != nil {
				return err
			}
			lines = lines[:0]
			if err := s.rotate(e.Entry.Index - 1); err != nil {
				return err
			}
		}
		lines = append(append(lines, line...), '\n')
	}
	return s.write(lines, batch[len(batch)-1].Entry.Index+1)
}

func (s *File) write(lines []byte, next int64) error {
	if len(lines) == 0 {
		return nil
	}
	if _, err := s.f.Write(lines); err != nil {
		return errors.Join(err, s.Close()) // opening it again removes half a line
	}
	if s.Sync {
		if err := s.f.Sync(); err != nil {
			return errors.Join(err, s.Close())
		}
	}
	s.size += int64(len(lines))
	s.next = max(s.next, next)
	return nil
}

// open opens the file, unless it is open and still the one of this name.
func (s *File) open() error {
	if s.f != nil {
		here, err := os.Lstat(s.Path)
		if err == nil {
			var mine fs.FileInfo
			if mine, err = s.f.Stat(); err == nil && os.SameFile(here, mine) {
				return nil
			}
		}
		if err := s.Close(); err != nil {
			return err
		}
	}
	if here, err := os.Lstat(s.Path); err == nil && !here.Mode().IsRegular() {
		return fmt.Errorf("sink: %s is not a regular file", s.Path)
	}
	f, err := os.OpenFile(s.Path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	s.f = f
	err = errors.Join(f.Chmod(0o600), s.resume())
	if err == nil && s.Sync {
		err = syncDir(filepath.Dir(s.Path))
	}
	if err != nil {
		return errors.Join(err, s.Close())
	}
	return nil
}

// resume finds out where the file ends, and removes a line without an end.
func (s *File) resume() error {
	end, err := s.f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	const window = 1 << 20 // longer than any line
	from := max(0, end-window)
	tail := make([]byte, end-from)
	if _, err := s.f.ReadAt(tail, from); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	whole := tail[:bytes.LastIndexByte(tail, '\n')+1]
	if len(whole) == 0 && from > 0 {
		return fmt.Errorf("sink: %s does not end in lines", s.Path)
	}
	s.size, s.next = from+int64(len(whole)), 0
	if len(whole) < len(tail) {
		if err := s.f.Truncate(s.size); err != nil {
			return err
		}
	}
	if len(whole) > 0 {
		body := whole[:len(whole)-1]
		s.next = indexIn(body[bytes.LastIndexByte(body, '\n')+1:]) + 1
	}
	return nil
}

// indexIn reads the index from a line of either format, -1 if there is none.
func indexIn(line []byte) int64 {
	var l struct {
		Index    *int64 `json:"index"`
		Metadata struct {
			Sequence *int64 `json:"sequence"`
		} `json:"metadata"`
	}
	switch err := json.Unmarshal(line, &l); {
	case err != nil:
		return -1
	case l.Index != nil:
		return *l.Index
	case l.Metadata.Sequence != nil:
		return *l.Metadata.Sequence
	}
	return -1
}

// rotate renames the file, whose last entry is the given one, and begins anew.
func (s *File) rotate(last int64) error {
	if err := s.Close(); err != nil {
		return err
	}
	if err := os.Rename(s.Path, fmt.Sprintf("%s.%020d", s.Path, last)); err != nil {
		return err
	}
	if err := s.prune(); err != nil {
		return err
	}
	return s.open()
}

// prune removes the oldest of the renamed files.
func (s *File) prune() error {
	if s.Keep == 0 {
		return nil
	}
	entries, err := os.ReadDir(filepath.Dir(s.Path))
	if err != nil {
		return err
	}
	var old []string
	for _, e := range entries {
		number, ok := strings.CutPrefix(e.Name(), filepath.Base(s.Path)+".")
		if ok && len(number) == 20 && strings.Trim(number, "0123456789") == "" {
			old = append(old, e.Name())
		}
	}
	slices.Sort(old)
	for len(old) > s.Keep {
		if err := os.Remove(filepath.Join(filepath.Dir(s.Path), old[0])); err != nil {
			return err
		}
		old = old[1:]
	}
	return nil
}

// Close implements [Sink].
func (s *File) Close() error {
	if s.f == nil {
		return nil
	}
	err := s.f.Close()
	s.f = nil
	return err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
