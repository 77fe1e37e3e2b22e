package container

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// testOutput returns a stream and the writer that stands for the process.
func testOutput(t *testing.T) (*output, *os.File) {
	t.Helper()
	r, w, err := pipe("test", 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close(); _ = w.Close() })
	return newOutput(r, true), w
}

func mustWrite(t *testing.T, w io.Writer, s string) {
	t.Helper()
	if _, err := io.WriteString(w, s); err != nil {
		t.Fatal(err)
	}
}

// sink is a place for one read, which counts how often it was told to wait.
type sink struct {
	buf   []byte
	waits int
}

func (s *sink) Room(size int) []byte { s.buf = make([]byte, size); return s.buf }
func (s *sink) Wait()                { s.buf, s.waits = nil, s.waits+1 }

func takeOnce(ctx context.Context, o *output, size int) ([]byte, error) {
	var to sink
	n, err := o.read(ctx, size, &to)
	return to.buf[:n], err
}

func readAll(t *testing.T, o *output, size int) string {
	t.Helper()
	var all bytes.Buffer
	for {
		b, err := takeOnce(t.Context(), o, size)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) == 0 {
			return all.String()
		}
		all.Write(b)
	}
}

func TestOutputEndsWithItsWriter(t *testing.T) {
	o, w := testOutput(t)
	mustWrite(t, w, "hello")
	if b, err := takeOnce(t.Context(), o, 3); err != nil || string(b) != "hel" {
		t.Fatalf("%q, %v", b, err)
	}
	_ = w.Close()
	if got := readAll(t, o, 100); got != "lo" {
		t.Fatalf("rest %q", got)
	}
	if b, err := takeOnce(t.Context(), o, 100); err != nil || len(b) != 0 {
		t.Fatalf("after the end: %q, %v", b, err)
	}
}

// What was written in time is delivered however late it is asked for, although
// someone still holds the pipe; then comes the end.
func TestOutputDrains(t *testing.T) {
	o, w := testOutput(t)
	want := strings.Repeat("x", 60_000)
	mustWrite(t, w, want)
	o.exited(time.Now().Add(-time.Minute))
	if got := readAll(t, o, 32768); got != want {
		t.Fatalf("%d bytes, want %d", len(got), len(want))
	}
	if _, err := w.Write([]byte("x")); !errors.Is(err, unix.EPIPE) {
		t.Errorf("the reading end is still open: %v", err)
	}
	_ = w.Close()
}

func TestOutputEndsSoonAfterExit(t *testing.T) {
	o, w := testOutput(t)
	done := make(chan string)
	go func() { done <- readAll(t, o, 100) }()
	mustWrite(t, w, "last words")
	start := time.Now()
	o.exited(start)
	if got := <-done; got != "last words" {
		t.Fatalf("%q", got)
	}
	if took := time.Since(start); took < drainTime/2 || took > 3*time.Second {
		t.Errorf("the end came after %v, want about %v", took, drainTime)
	}
}

// A process that writes without end cannot keep the stream of its dead parent
// open.
func TestOutputDrainIsBounded(t *testing.T) {
	o, w := testOutput(t)
	o.exited(time.Now().Add(-time.Minute))
	go func() {
		for {
			if _, err := w.Write(make([]byte, 4096)); err != nil {
				return
			}
		}
	}()
	// It may also end earlier, when the reader is the faster one.
	if got := len(readAll(t, o, 32768)); got > drainSize {
		t.Errorf("%d bytes after the end", got)
	}
}

func TestReadIsInterrupted(t *testing.T) {
	o, w := testOutput(t)
	ctx, cancel := context.WithCancel(t.Context())
	errs := make(chan error)
	for range 2 { // one waits for data, one for its turn
		go func() {
			_, err := takeOnce(ctx, o, 10)
			errs <- err
		}()
	}
	cancel()
	for range 2 {
		if err := <-errs; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	}
	mustWrite(t, w, "still there")
	if b, err := takeOnce(t.Context(), o, 100); err != nil || string(b) != "still there" {
		t.Fatalf("after an interrupted read: %q, %v", b, err)
	}
}

// A read of what is there waits for nothing; one that waits has no memory, and is
// woken by what comes, and by the end.
func TestReadsSayWhenTheyWait(t *testing.T) {
	o, w := testOutput(t)
	mustWrite(t, w, "there")
	var to sink
	if n, err := o.read(t.Context(), 100, &to); err != nil || string(to.buf[:n]) != "there" || to.waits != 0 {
		t.Fatalf("%q after %d waits, %v", to.buf[:n], to.waits, err)
	}
	for _, then := range []func(){func() { mustWrite(t, w, "late") }, func() { _ = w.Close() }} {
		told := make(chan struct{})
		late := &tellingSink{told: told}
		read := make(chan error, 1)
		go func() {
			_, err := o.read(t.Context(), 100, late)
			read <- err
		}()
		<-told
		then()
		if err := <-read; err != nil {
			t.Error(err)
		}
	}
}

// tellingSink tells of its first wait.
type tellingSink struct {
	sink
	told chan struct{}
}

func (s *tellingSink) Wait() {
	s.sink.Wait()
	if s.waits == 1 {
		close(s.told)
	}
}

func TestInput(t *testing.T) {
	r, w, err := pipe("test", 1)
	if err != nil {
		t.Fatal(err)
	}
	in := newInput(w, false)
	full := make(chan error)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, err := in.write(ctx, make([]byte, 1<<20))
		full <- err
	}()
	cancel() // nobody reads: the writer waits
	if err := <-full; !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	go func() {
		_, err := in.write(t.Context(), make([]byte, 1<<20))
		full <- err
	}()
	buf := make([]byte, 1000)
	if _, err := io.ReadFull(r, buf); err != nil {
		t.Fatal(err)
	}
	if err := in.close(t.Context()); err != nil { // does not wait for the writer
		t.Fatal(err)
	}
	if err := <-full; !errors.Is(err, ErrStdinClosed) {
		t.Fatalf("got %v", err)
	}
	if err := in.close(t.Context()); err != nil {
		t.Errorf("second close: %v", err)
	}
	if _, err := in.write(t.Context(), []byte("x")); !errors.Is(err, ErrStdinClosed) {
		t.Errorf("write after close: %v", err)
	}
}

// A program expects its streams to block; ours must not.
func TestPipeEnds(t *testing.T) {
	for ours := range 2 {
		r, w, err := pipe("test", ours)
		if err != nil {
			t.Fatal(err)
		}
		for end, f := range []*os.File{r, w} {
			raw, err := f.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			var flags int
			var flagErr error
			if err := raw.Control(func(fd uintptr) { flags, flagErr = unix.FcntlInt(fd, unix.F_GETFL, 0) }); err != nil || flagErr != nil {
				t.Fatal(err, flagErr)
			}
			if nonblock := flags&unix.O_NONBLOCK != 0; nonblock != (end == ours) {
				t.Errorf("end %d with ours %d: non-blocking is %v", end, ours, nonblock)
			}
			_ = f.Close()
		}
	}
}

func TestForgetsOldProcesses(t *testing.T) {
	table := newProcesses()
	add := func(id string, exited bool) {
		if err := table.reserve(id); err != nil {
			t.Fatal(err)
		}
		p, err := newPipes(0, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.CloseAfterStart(); err != nil {
			t.Fatal(err)
		}
		proc := newProcess(nil, 0, stdio{pipes: p})
		if exited {
			close(proc.exited)
		}
		table.set(id, proc)
	}
	add("", true)
	add("alive", false)
	for i := range 2 * keepExited {
		add(string(rune('a'))+time.Duration(i).String(), true)
	}
	if n := len(table.all()); n > keepExited+3 {
		t.Errorf("%d processes are kept", n)
	}
	for _, id := range []string{"", "alive"} {
		if _, err := table.get(id); err != nil {
			t.Errorf("%q: %v", id, err)
		}
	}
	if _, err := table.get("a" + time.Duration(0).String()); !errors.Is(err, ErrNotFound) {
		t.Errorf("the oldest: %v", err)
	}
	if err := table.reserve("alive"); !errors.Is(err, ErrExists) {
		t.Errorf("a name twice: %v", err)
	}
	for _, p := range table.all() {
		p.closeAll()
	}
}
