package sqlite

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The index of a write-ahead log (SQLite's WAL-mode file format, section 2.2):
// a file that all processes map. The third word of its header counts the
// commits of all of them, in the byte order of the machine.
const (
	walIndexHeader  = 48
	walIndexCommits = 8
)

// walIndex is the head of the mapped index, for reading.
type walIndex struct {
	file   *os.File
	mapped []byte
	users  int
}

// indexes are the files that are mapped now. SQLite's locks on such a file are
// the process's, and closing any descriptor of it would drop them all: so a
// file is opened once for all engines, and closed when none has it any more.
var indexes = struct {
	sync.Mutex
	of map[string]*walIndex
}{of: map[string]*walIndex{}}

// openIndex maps the index of a database that has an open connection.
func openIndex(database string) (*walIndex, error) {
	indexes.Lock()
	defer indexes.Unlock()
	if x := indexes.of[database]; x != nil {
		x.users++
		return x, nil
	}
	f, err := os.Open(database + "-shm")
	if err != nil {
		return nil, err
	}
	mapped, err := unix.Mmap(int(f.Fd()), 0, walIndexHeader, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("map %s: %w", f.Name(), err), f.Close())
	}
	x := &walIndex{file: f, mapped: mapped, users: 1}
	indexes.of[database] = x
	return x, nil
}

// close is for an engine whose connections are closed.
func (x *walIndex) close(database string) error {
	indexes.Lock()
	defer indexes.Unlock()
	if x.users--; x.users > 0 {
		return nil
	}
	delete(indexes.of, database)
	return errors.Join(unix.Munmap(x.mapped), x.file.Close())
}

// commits is the number of commits of all processes, modulo 2^32.
func (x *walIndex) commits() uint32 {
	return atomic.LoadUint32((*uint32)(unsafe.Pointer(&x.mapped[walIndexCommits]))) //nolint:gosec // a word of memory that other processes write
}
