// Package aael keeps the log of what happened in a guest after it booted: each
// event is extended into a register of the hardware and recorded in a file, so
// that a verifier can replay the file and compare (guest-protocol 6). The form
// of events and records is that of package eventlog; this package writes them so
// that file and register cannot part, whenever the agent or the guest dies.
//
// An event is a transaction: what will be done is written down first, then the
// register is extended, then the record appended, then the note removed. A crash
// at any point leaves a note from which [Open] finishes the work, because the
// register itself tells how far it got. While evidence is made nothing is
// extended, see [Log.Hold]. Processes that share a log take turns by a lock on
// the file; within a process a [Log] is safe for concurrent use.
package aael

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
)

// DefaultPath is where the agents of the field keep the log (guest-protocol 6.3).
const DefaultPath = "/run/attestation-agent/eventlog"

// MaxSize bounds the log in bytes: with the firmware's it must fit evidence.
const MaxSize = 4 << 20

var (
	// ErrNotSupported means that this platform has no register that can be
	// extended at run time.
	ErrNotSupported = errors.New("the platform does not support runtime measurement")
	// ErrDisabled means that the owner of this guest asked for no event log.
	ErrDisabled = errors.New("runtime events are not recorded: eventlog_config.enable_eventlog is not set")
	// ErrDiverged means that the log and the register belong to different
	// histories, so that no verifier will accept the two together.
	ErrDiverged = errors.New("the runtime log does not lead to what the register holds")
)

// Registers are those of the guest's hardware that can be extended at run time.
// A register has the number that it has in the records of the log: a PCR on a
// TPM, the MR index of a CCEL on TDX.
type Registers interface {
	// Algorithm is that of the registers; the length of its digests is theirs.
	Algorithm() eventlog.Algorithm
	// Index returns the register that stands for a PCR, or refuses one that
	// cannot keep a record.
	Index(pcr int) (int, error)
	Read(ctx context.Context, index int) ([]byte, error)
	// Extend replaces the register by the digest of its value followed by
	// the given digest.
	Extend(ctx context.Context, index int, digest []byte) error
}

// Config says where a log is and what it is a log of.
type Config struct {
	Path string // of the file; its directory is made if it is not there
	// Registers may be nil: then the log can be read, and nothing extended.
	Registers Registers
	// Firmware is the log of the boot, which a register's value rests on; nil
	// where there is none.
	Firmware []byte
}

// Log is the log of one guest.
type Log struct {
	path      string
	registers Registers
	firmware  []byte
	mu        sync.RWMutex // the lock on the file is the process's, this one a goroutine's
}

// Open opens the log and finishes what a crash interrupted. The error wraps
// [ErrDiverged] if that cannot be done.
func Open(ctx context.Context, cfg Config) (*Log, error) {
	if !filepath.IsAbs(cfg.Path) {
		return nil, fmt.Errorf("runtime log: %q is not an absolute path", cfg.Path)
	}
	l := &Log{path: cfg.Path, registers: cfg.Registers, firmware: cfg.Firmware}
	if l.registers == nil {
		return l, nil
	}
	if err := os.MkdirAll(filepath.Dir(l.path), 0o700); err != nil {
		return nil, fmt.Errorf("runtime log: %w", err)
	}
	err := l.exclusively(func(f *os.File) error {
		if err := l.recover(ctx, f); err != nil {
			return err
		}
		return l.mend(ctx, f)
	})
	if err != nil {
		return nil, fmt.Errorf("runtime log: %w", err)
	}
	return l, nil
}

// Hold calls f with the records of the log, nil if there are none, and keeps
// everybody from extending until f returns: evidence is only good if quote and
// log are of the same moment.
func (l *Log) Hold(f func(records []byte) error) (err error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	file, err := os.Open(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		return f(nil)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }() // which unlocks
	if err := flock(file, syscall.LOCK_SH); err != nil {
		return err
	}
	if _, err := os.Stat(l.notePath()); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("runtime log: an event is half done (%s); the agent finishes it when it starts", l.notePath())
	}
	records, err := read(file)
	if err != nil {
		return err
	}
	return f(records)
}

// Extend extends the register that stands for the PCR by the event and records
// it. After an error the event is either in both or in neither, or the log
// stays closed until that is mended.
func (l *Log) Extend(ctx context.Context, pcr int, event eventlog.RuntimeEvent) error {
	if err := l.Accepts(pcr); err != nil {
		return err
	}
	index, err := l.registers.Index(pcr)
	if err != nil {
		return err
	}
	if err := event.Validate(); err != nil {
		return err
	}
	err = l.exclusively(func(f *os.File) error {
		if err := l.recover(ctx, f); err != nil { // of another process, or of our own last time
			return err
		}
		return l.extend(ctx, f, index, event)
	})
	if err != nil {
		return fmt.Errorf("runtime log: %w", err)
	}
	return nil
}

// Accepts tells whether events can be recorded under a PCR: nil if so. Where
// nothing can be, the error wraps [ErrNotSupported].
func (l *Log) Accepts(pcr int) error {
	if l.registers == nil {
		return ErrNotSupported
	}
	_, err := l.registers.Index(pcr)
	return err
}

func (l *Log) extend(ctx context.Context, f *os.File, index int, event eventlog.RuntimeEvent) error {
	value, err := l.register(ctx, index)
	if err != nil {
		return err
	}
	record, digest, err := l.record(index, event)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size()+int64(len(record)) > MaxSize {
		return fmt.Errorf("it has %d bytes, at most %d are allowed", info.Size(), MaxSize)
	}
	n := note{offset: uint64(info.Size()), index: index, expected: l.registers.Algorithm().Sum(value, digest), event: event}
	if err := l.writeNote(n); err != nil {
		return err
	}
	if err := l.registers.Extend(ctx, index, digest); err != nil {
		// A driver may fail before or after the fact; only the register knows.
		now, readErr := l.register(context.WithoutCancel(ctx), index)
		switch {
		case readErr == nil && bytes.Equal(now, value): // as if nobody had asked
			return errors.Join(err, l.removeNote())
		case readErr != nil || !bytes.Equal(now, n.expected):
			return errors.Join(err, readErr) // the note stays
		}
	}
	return l.finish(f, n, record)
}

// finish appends the record of a note whose register is extended.
func (l *Log) finish(f *os.File, n note, record []byte) error {
	if err := f.Truncate(int64(n.offset)); err != nil { //nolint:gosec // at most MaxSize
		return err
	}
	if _, err := f.WriteAt(record, int64(n.offset)); err != nil { //nolint:gosec // as above
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return l.removeNote()
}

// record returns the bytes to append and the digest to extend by.
func (l *Log) record(index int, event eventlog.RuntimeEvent) (record, digest []byte, err error) {
	a := l.registers.Algorithm()
	e, err := event.Event(index, a)
	if err != nil {
		return nil, nil, err
	}
	return e.Marshal(), e.Digests[a], nil
}

func (l *Log) register(ctx context.Context, index int) ([]byte, error) {
	value, err := l.registers.Read(ctx, index)
	if err == nil && len(value) != l.registers.Algorithm().Size() {
		err = fmt.Errorf("register %d has %d bytes, want %d", index, len(value), l.registers.Algorithm().Size())
	}
	return value, err
}

// exclusively runs f with the file open and nobody else at it.
func (l *Log) exclusively(f func(*os.File) error) (err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	file, err := os.OpenFile(l.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }() // which unlocks
	if err := flock(file, syscall.LOCK_EX); err != nil {
		return err
	}
	return f(file)
}

// flock waits for the lock: whoever holds it is making one quote or one record.
func flock(f *os.File, how int) error {
	for {
		if err := syscall.Flock(int(f.Fd()), how); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

func read(f *os.File) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err == nil && len(raw) > MaxSize {
		err = fmt.Errorf("runtime log: more than %d bytes", MaxSize)
	}
	return raw, err
}
