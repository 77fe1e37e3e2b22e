package aael

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
)

// bank is the registers of a TDX guest in memory. before and after are called
// around an extension and can make it fail, or the machine die by a panic.
type bank struct {
	mu            sync.Mutex
	value         map[int][]byte
	before, after func() error
	unreadable    bool
}

func newBank() *bank { return &bank{value: map[int][]byte{}} }

func (b *bank) Algorithm() eventlog.Algorithm { return eventlog.SHA384 }

func (b *bank) Index(pcr int) (int, error) {
	if pcr < 1 || pcr > 23 {
		return 0, fmt.Errorf("no PCR %d", pcr)
	}
	return eventlog.MRIndex(pcr), nil
}

func (b *bank) read(index int) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	if v, ok := b.value[index]; ok {
		return bytes.Clone(v)
	}
	return make([]byte, 48)
}

func (b *bank) Read(_ context.Context, index int) ([]byte, error) {
	if index < 1 || index > 4 {
		return nil, fmt.Errorf("no register %d", index)
	}
	if b.unreadable {
		return nil, errors.New("the device is gone")
	}
	return b.read(index), nil
}

func (b *bank) Extend(_ context.Context, index int, digest []byte) error {
	if b.before != nil {
		if err := b.before(); err != nil {
			return err
		}
	}
	next := eventlog.SHA384.Sum(b.read(index), digest)
	b.mu.Lock()
	b.value[index] = next
	b.mu.Unlock()
	if b.after != nil {
		return b.after()
	}
	return nil
}

func event(i int) eventlog.RuntimeEvent {
	return eventlog.RuntimeEvent{Domain: "test", Operation: "Count", Content: fmt.Sprintf(`{"n":%d}`, i)}
}

func open(t *testing.T, path string, b *bank) *Log {
	t.Helper()
	l, err := Open(t.Context(), Config{Path: path, Registers: b})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func newPath(t *testing.T) string { return filepath.Join(t.TempDir(), "attestation-agent", "eventlog") }

// verify does what a verifier does: replay what evidence would carry, and
// compare. It returns the events.
func verify(t *testing.T, l *Log, b *bank, firmware []byte) []eventlog.Event {
	t.Helper()
	var records []byte
	if err := l.Hold(func(r []byte) error { records = bytes.Clone(r); return nil }); err != nil {
		t.Fatal(err)
	}
	raw, err := eventlog.Combine(firmware, records, eventlog.SHA384)
	if err != nil {
		t.Fatal(err)
	}
	if raw == nil {
		return nil
	}
	log, err := eventlog.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	got, err := log.Replay(eventlog.SHA384)
	if err != nil {
		t.Fatal(err)
	}
	for index, v := range got {
		if !bytes.Equal(v, b.read(index)) {
			t.Fatalf("register %d holds %x, the log leads to %x", index, b.read(index), v)
		}
	}
	events, err := eventlog.ParseRuntime(records)
	if err != nil {
		t.Fatal(err)
	}
	return events
}

// The bytes of a record and the register after it are those of guest-protocol 6.2.
func TestKnownRecord(t *testing.T) {
	path, b := newPath(t), newBank()
	l := open(t, path, b)
	if err := l.Extend(t.Context(), 17, eventlog.RuntimeEvent{Domain: "domain", Operation: "operation", Content: "content"}); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const digest = "dad5f0e226318ffa9839b75a472c6aa7fdb5834949d0a0a22990cf04d5692440fb00f3aa0609db7e49cd8d793f670d02"
	want := "0400000006000000010000000c00" + digest + "200000004c45414118000000646f6d61696e206f7065726174696f6e20636f6e74656e74"
	if got := fmt.Sprintf("%x", raw); got != want {
		t.Errorf("record %s\nwant   %s", got, want)
	}
	verify(t, l, b, nil)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestManyWriters(t *testing.T) {
	path, b := newPath(t), newBank()
	logs := []*Log{open(t, path, b), open(t, path, b)} // two processes
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if err := logs[i%2].Extend(t.Context(), []int{17, 8}[i/10], event(i)); err != nil {
				t.Error(err)
			}
			if err := logs[i%2].Hold(func([]byte) error { return nil }); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := len(verify(t, logs[0], b, nil)); n != 20 {
		t.Errorf("%d events, want 20", n)
	}
}

var errDeath = errors.New("death")

// dying runs f until the machine dies in it.
func dying(t *testing.T, f func()) {
	t.Helper()
	defer func() {
		if err, _ := recover().(error); !errors.Is(err, errDeath) {
			t.Fatalf("recovered %v", err)
		}
	}()
	f()
	t.Fatal("it lives")
}

// Whatever the moment of death, the next start leaves register and log in
// agreement, and the event in them exactly once.
func TestDeathAroundTheExtension(t *testing.T) {
	for name, kill := range map[string]func(*bank){
		"before": func(b *bank) { b.before = func() error { panic(errDeath) } },
		"after":  func(b *bank) { b.after = func() error { panic(errDeath) } },
	} {
		t.Run(name, func(t *testing.T) {
			path, b := newPath(t), newBank()
			l := open(t, path, b)
			if err := l.Extend(t.Context(), 17, event(1)); err != nil {
				t.Fatal(err)
			}
			kill(b)
			dying(t, func() { _ = l.Extend(t.Context(), 17, event(2)) })
			b.before, b.after = nil, nil
			if err := l.Hold(func([]byte) error { return nil }); err == nil {
				t.Error("evidence is made of half an event")
			}
			l = open(t, path, b)
			if n := len(verify(t, l, b, nil)); n != 2 {
				t.Errorf("%d events, want 2", n)
			}
			if err := l.Extend(t.Context(), 17, event(3)); err != nil {
				t.Fatal(err)
			}
			if n := len(verify(t, l, b, nil)); n != 3 {
				t.Errorf("%d events, want 3", n)
			}
		})
	}
}

// The register is extended, and of the record any number of bytes got to disk.
func TestDeathWhileAppending(t *testing.T) {
	path, b := newPath(t), newBank()
	l := open(t, path, b)
	if err := l.Extend(t.Context(), 17, event(1)); err != nil {
		t.Fatal(err)
	}
	b.after = func() error { panic(errDeath) }
	dying(t, func() { _ = l.Extend(t.Context(), 17, event(2)) })
	b.after = nil
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	pending, err := os.ReadFile(l.notePath())
	if err != nil {
		t.Fatal(err)
	}
	record, _, err := l.record(4, event(2))
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(record) + 1 {
		if err := errors.Join(os.WriteFile(path, append(bytes.Clone(before), record[:n]...), 0o600), os.WriteFile(l.notePath(), pending, 0o600)); err != nil {
			t.Fatal(err)
		}
		if got := len(verify(t, open(t, path, b), b, nil)); got != 2 {
			t.Fatalf("cut after %d bytes: %d events, want 2", n, got)
		}
	}
}

// A torn record that no note explains is cut off, if the register never heard
// of it, and refused otherwise.
func TestTornRecordWithoutNote(t *testing.T) {
	path, b := newPath(t), newBank()
	l := open(t, path, b)
	if err := l.Extend(t.Context(), 17, event(1)); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	record, digest, err := l.record(4, event(2))
	if err != nil {
		t.Fatal(err)
	}
	for _, base := range [][]byte{before, nil} {
		if base == nil {
			b = newBank()
		}
		for n := 1; n < len(record); n++ {
			if err := os.WriteFile(path, append(bytes.Clone(base), record[:n]...), 0o600); err != nil {
				t.Fatal(err)
			}
			if got, want := len(verify(t, open(t, path, b), b, nil)), min(len(base), 1); got != want {
				t.Fatalf("cut after %d bytes: %d events, want %d", n, got, want)
			}
		}
	}
	if err := os.WriteFile(path, record[:20], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.Extend(t.Context(), 4, digest); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), Config{Path: path, Registers: b}); !errors.Is(err, ErrDiverged) {
		t.Errorf("a torn record that was extended: %v", err)
	}
}

// The register of a log may rest on what the firmware measured into it.
func TestOverFirmware(t *testing.T) {
	fw := eventlog.NewCCEL()
	fw.Add(4, eventlog.EventTag, []byte("early"), []byte("early"))
	path, b := newPath(t), newBank()
	if err := b.Extend(t.Context(), 4, eventlog.SHA384.Sum([]byte("early"))); err != nil {
		t.Fatal(err)
	}
	cfg := Config{Path: path, Registers: b, Firmware: append(fw.Marshal(), eventlog.EndMarker...)}
	l, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Extend(t.Context(), 17, event(1)); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte{4, 0, 0, 0, 6}); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if l, err = Open(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if n := len(verify(t, l, b, cfg.Firmware)); n != 1 {
		t.Errorf("%d events, want 1", n)
	}
}

func TestDriverErrors(t *testing.T) {
	path, b := newPath(t), newBank()
	l := open(t, path, b)
	broken := errors.New("EIO")
	b.before = func() error { return broken }
	if err := l.Extend(t.Context(), 17, event(1)); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	b.before, b.after = nil, func() error { return broken } // it failed after the fact
	if err := l.Extend(t.Context(), 17, event(2)); err != nil {
		t.Errorf("got %v", err)
	}
	b.after = func() error { b.unreadable = true; return broken }
	if err := l.Extend(t.Context(), 17, event(3)); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	b.after = nil
	if err := l.Extend(t.Context(), 17, event(4)); err == nil {
		t.Error("it went on without knowing the register")
	}
	b.unreadable = false
	if err := l.Extend(t.Context(), 17, event(5)); err != nil {
		t.Error(err)
	}
	var got []string
	for _, e := range verify(t, l, b, nil) {
		r, _ := e.Runtime()
		got = append(got, r.Content)
	}
	if want := `{"n":2} {"n":3} {"n":5}`; strings.Join(got, " ") != want {
		t.Errorf("events %s, want %s", got, want)
	}
}

func TestRefusals(t *testing.T) {
	path, b := newPath(t), newBank()
	l := open(t, path, b)
	for name, tc := range map[string]struct {
		pcr int
		ev  eventlog.RuntimeEvent
	}{
		"no such PCR":       {0, event(1)},
		"space in a domain": {17, eventlog.RuntimeEvent{Domain: "a b", Operation: "c", Content: "d"}},
		"two lines":         {17, eventlog.RuntimeEvent{Domain: "a", Operation: "b", Content: "c\nd"}},
		"endless":           {17, eventlog.RuntimeEvent{Domain: "a", Operation: "b", Content: strings.Repeat("c", MaxSize)}},
	} {
		if err := l.Extend(t.Context(), tc.pcr, tc.ev); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if len(b.value) != 0 {
		t.Error("a register was extended")
	}
	if _, err := Open(t.Context(), Config{Path: "relative", Registers: b}); err == nil {
		t.Error("a relative path is taken")
	}
	reader, err := Open(t.Context(), Config{Path: filepath.Join(t.TempDir(), "none")})
	if err != nil {
		t.Fatal(err)
	}
	if err := reader.Extend(t.Context(), 17, event(1)); !errors.Is(err, ErrNotSupported) {
		t.Errorf("got %v", err)
	}
	if err := reader.Hold(func(r []byte) error {
		if r != nil {
			t.Errorf("records %x of no log", r)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// What does not fit together is refused, and nothing of it is changed.
func TestDivergence(t *testing.T) {
	good := note{offset: 0, index: 4, expected: make([]byte, 48), event: event(1)}
	for name, tc := range map[string]struct {
		log, note []byte
		want      error
	}{
		"register is elsewhere":   {nil, good.marshal(), ErrDiverged},
		"log lost records":        {nil, note{offset: 100, index: 4, expected: make([]byte, 48), event: event(1)}.marshal(), ErrDiverged},
		"note is torn":            {nil, good.marshal()[:40], errNote},
		"note is empty":           {nil, []byte{}, errNote},
		"note is another's":       {nil, []byte("\x00\x00\x00\x00\x00\x00\x00\x00 some agent's write-ahead line, long enough to be one"), errNote},
		"log is no log":           {[]byte("these are not records at all"), nil, nil},
		"register without record": {bytes.Repeat([]byte{1}, 10), nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			path, b := newPath(t), newBank()
			b.value[4] = bytes.Repeat([]byte{7}, 48)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, tc.log, 0o600); err != nil {
				t.Fatal(err)
			}
			if tc.note != nil {
				if err := os.WriteFile(path+".pending", tc.note, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			_, err := Open(t.Context(), Config{Path: path, Registers: b})
			if err == nil || tc.want != nil && !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
			if raw, err := os.ReadFile(path); err != nil || !bytes.Equal(raw, tc.log) {
				t.Errorf("the log was changed: %x, %v", raw, err)
			}
		})
	}
}

func FuzzParseNote(f *testing.F) {
	f.Add(note{offset: 5, index: 4, expected: make([]byte, 48), event: event(1)}.marshal())
	f.Add([]byte(noteMagic))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if n, err := parseNote(raw); err == nil && !bytes.Equal(n.marshal(), raw) {
			t.Fatalf("%x comes back as %x", raw, n.marshal())
		}
	})
}

// Whatever lies in the file, the records that are called whole parse as such or
// are no log at all, and the rest is shorter than one.
func FuzzWholeRecords(f *testing.F) {
	e, err := event(1).Event(4, eventlog.SHA384)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(e.Marshal())
	f.Add(append(e.Marshal(), e.Marshal()[:30]...))
	f.Fuzz(func(t *testing.T, raw []byte) {
		n := wholeRecords(raw)
		if n < 0 || n > len(raw) || wholeRecords(raw[:n]) != n {
			t.Fatalf("%d of %d bytes", n, len(raw))
		}
		_, _ = eventlog.ParseRuntime(raw[:n])
	})
}
