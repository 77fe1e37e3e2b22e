package unpack

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/fault"
)

const (
	// Small files are finished in batches: up to so many, and with so many bytes.
	// A batch takes about a third of a millisecond, several times as long as it
	// takes to wake a core for it.
	batchFiles = 16
	batchBytes = 64 << 10

	smallFile    = 32 << 10 // bytes; less than a hole has
	smallHeaders = 8 << 10  // bytes; they are kept until the file is finished
)

// An unfinished file is open and empty. All that is still to be done to it is
// done through its descriptor, so that it is no matter what the archive makes of
// its name meanwhile: another entry may link to it, replace or remove it.
type unfinished struct {
	fd      int
	hdr     *tar.Header
	owned   bool
	content []byte
}

// A batch holds unfinished files, and their content in one buffer.
type batch struct {
	number int // in the order of the archive
	files  []unfinished
	bytes  []byte
	err    error // of finishing it
}

// A finisher gives small files their content and their metadata. Making the names
// is for the unpacker alone, in the order of the archive; the rest, which costs
// about as much, is done by a second goroutine while the next names are made, or
// by the unpacker if that one is busy. Runs of small files are what the earlier
// stages of a pull wait for.
type finisher struct {
	finish func(unfinished) error // of one file; called from both goroutines
	now    *batch
	work   chan *batch // nil until there is something for a second goroutine
	done   chan *batch // the other batch, while nobody works on it
	failed batch       // the first one that did
}

func newFinisher(finish func(unfinished) error) *finisher {
	return &finisher{finish: finish, now: &batch{}}
}

// add takes a file over, and reads its content, which is small. An error can be
// that of an earlier file.
func (f *finisher) add(file unfinished, content io.Reader) error {
	if len(f.now.files) == batchFiles || len(f.now.bytes)+int(file.hdr.Size) > batchBytes {
		if err := f.next(); err != nil {
			_ = unix.Close(file.fd)
			return err
		}
	}
	file.content = f.now.room(int(file.hdr.Size))
	f.now.files = append(f.now.files, file)
	if _, err := io.ReadFull(content, file.content); err != nil {
		return cut(err)
	}
	return nil
}

// room returns the next n bytes of the batch's buffer, which never moves.
func (b *batch) room(n int) []byte {
	if b.bytes == nil {
		b.bytes = make([]byte, 0, batchBytes)
	}
	at := len(b.bytes)
	b.bytes = b.bytes[:at+n]
	return b.bytes[at:]
}

// next has the batch finished and begins another one. The error can be that of
// any batch so far; close returns the first.
func (f *finisher) next() error {
	if f.work == nil && runtime.GOMAXPROCS(0) > 1 {
		f.help()
	}
	number := f.now.number + 1
	select {
	case f.work <- f.now:
		f.now = <-f.done
	default: // there is one core, or the helper is busy
		f.now.err = f.all(f.now)
	}
	f.note(f.now)
	f.now.number, f.now.err = number, nil
	return f.failed.err
}

// note remembers the error of a batch.
func (f *finisher) note(b *batch) {
	if b.err != nil && (f.failed.err == nil || b.number < f.failed.number) {
		f.failed = batch{number: b.number, err: b.err}
	}
}

// help starts the second goroutine.
func (f *finisher) help() {
	f.work, f.done = make(chan *batch), make(chan *batch, 1)
	f.done <- &batch{}
	go func() {
		defer close(f.done)
		for b := range f.work {
			b.err = fault.Contain(func() error { return f.all(b) })
			f.done <- b
		}
	}()
}

// all finishes the files of a batch up to the first error, and empties it.
func (f *finisher) all(b *batch) error {
	defer b.empty()
	for _, file := range b.files {
		if err := f.finish(file); err != nil {
			return ofEntry(file.hdr.Name, err)
		}
	}
	return nil
}

func (b *batch) empty() {
	for _, file := range b.files {
		_ = unix.Close(file.fd)
	}
	clear(b.files)
	b.files, b.bytes = b.files[:0], b.bytes[:0]
}

// close finishes what is left. The error is that of the file which comes first in
// the archive.
func (f *finisher) close() error {
	f.now.err = f.all(f.now)
	f.note(f.now)
	if f.work != nil {
		close(f.work)
		for b := range f.done {
			f.note(b)
		}
	}
	return f.failed.err
}

// ofEntry names the entry that an error is about, unless the error does.
func ofEntry(name string, err error) error {
	_, format := errors.AsType[*FormatError](err)
	_, named := errors.AsType[*entryError](err)
	if format || named {
		return err
	}
	return &entryError{name, err}
}

// An entryError is one of the file system.
type entryError struct {
	name string
	err  error
}

func (e *entryError) Error() string { return fmt.Sprintf("entry %.200q: %v", e.name, e.err) }

func (e *entryError) Unwrap() error { return e.err }
