package logport

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
)

// What a line says, as the Rust runtime's forwarder reads it.
func TestLines(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(NewHandler(&out, slog.LevelDebug, "1.2.3"))
	log.Debug("a")
	log.Info("b", slog.Int("n", 7), slog.Duration("took", 1500*time.Millisecond))
	log.Warn("c", slog.Any("err", fault.New(fault.PolicyDenied, errors.New("the private cause")).With("7QK2-M9TD")))
	log.With(slog.String("container", "x")).WithGroup("g").Error("d", slog.String("k", "line\nbreak \xff"), slog.Group("in", slog.Bool("deep", true)))
	log.Info("e", slog.String("level", "CRIT"), slog.String("source", "somebody"))
	want := []map[string]any{
		{"msg": "a", "level": "DEBG"},
		{"msg": "b", "level": "INFO", "n": 7.0, "took": "1.5s"},
		{"msg": "c", "level": "WARN", "err.code": "policy_denied", "err.ticket": "7QK2-M9TD"},
		{"msg": "d", "level": "ERRO", "container": "x", "g.k": "line\nbreak \ufffd", "g.in.deep": true},
		{"msg": "e", "level": "INFO", "_level": "CRIT", "_source": "somebody"},
	}
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) != len(want) {
		t.Fatalf("%d lines: %q", len(lines), lines)
	}
	for n, line := range lines {
		var got map[string]any
		if err := json.Unmarshal([]byte(line), &got); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if ts, err := time.Parse(time.RFC3339Nano, fmt.Sprint(got["ts"])); err != nil || ts.Location() != time.UTC {
			t.Errorf("%s: %v", line, err)
		}
		for _, key := range []string{"pid", "name", "source", "subsystem", "version"} {
			if _, text := got[key].(string); !text {
				t.Errorf("%s: no %s", line, key)
			}
			delete(got, key)
		}
		delete(got, "ts")
		if fmt.Sprint(got) != fmt.Sprint(want[n]) {
			t.Errorf("%v, want %v", got, want[n])
		}
	}
	if strings.Contains(out.String(), "private cause") {
		t.Error("a cause is in the log")
	}
}

func TestLevelIsKept(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(NewHandler(&out, slog.LevelWarn, ""))
	log.Info("not this")
	log.Warn("this")
	if strings.Contains(out.String(), "not this") || !strings.Contains(out.String(), "this") {
		t.Errorf("%s", &out)
	}
}

// A full queue forgets the oldest lines, says how many, and stays small.
func TestNobodyReads(t *testing.T) {
	q := NewQueue()
	line := append(bytes.Repeat([]byte("x"), 1023), '\n')
	for range 1000 {
		if n, err := q.Write(line); n != len(line) || err != nil {
			t.Fatal(n, err)
		}
	}
	_, _ = q.Write(make([]byte, maxLine+1))
	if q.size > maxQueue || q.size < maxQueue-2048 {
		t.Errorf("%d bytes are kept", q.size)
	}
	first := q.take()
	head, _, _ := bytes.Cut(first, []byte("\n"))
	var said struct {
		Lines int    `json:"lines"`
		Level string `json:"level"`
	}
	if err := json.Unmarshal(head, &said); err != nil || said.Lines != 1000-maxQueue/1024+1 || said.Level != "WARN" {
		t.Errorf("%s: %v", head, err)
	}
	if len(first) > batch {
		t.Errorf("a batch of %d bytes", len(first))
	}
	for q.take() != nil {
	}
	if q.size != 0 || q.lines != nil {
		t.Errorf("%d bytes are left", q.size)
	}
}

// port is a queue that is served.
type port struct {
	*Queue
	path string
	end  func() error
}

func serve(t *testing.T) *port {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	p := &port{Queue: NewQueue(), path: path}
	served := make(chan error, 1)
	go func() { served <- p.Serve(ctx, l) }()
	p.end = func() error { cancel(); return <-served }
	t.Cleanup(cancel)
	return p
}

func (p *port) say(format string, args ...any) { _, _ = fmt.Fprintf(p.Queue, format+"\n", args...) }

func (p *port) dial(t *testing.T) *bufio.Scanner {
	t.Helper()
	conn, err := net.Dial("unix", p.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	return bufio.NewScanner(conn)
}

func wantLine(t *testing.T, s *bufio.Scanner, want string) {
	t.Helper()
	if !s.Scan() || s.Text() != want {
		t.Fatalf("%q, %v; want %q", s.Text(), s.Err(), want)
	}
}

// What was logged before anybody connected is not lost, a second reader takes
// the first one's place, and the last lines are sent before the end.
func TestReaders(t *testing.T) {
	p := serve(t)
	p.say("before")
	one := p.dial(t)
	wantLine(t, one, "before")
	p.say("then")
	wantLine(t, one, "then")
	two := p.dial(t)
	if one.Scan() {
		t.Errorf("the first reader still gets %q", one.Text())
	}
	p.say("to the second")
	wantLine(t, two, "to the second")
	p.say("the last")
	if err := p.end(); err != nil {
		t.Error(err)
	}
	wantLine(t, two, "the last")
	if two.Scan() || two.Err() != nil {
		t.Errorf("after the end: %q, %v", two.Text(), two.Err())
	}
}

// A reader that reads nothing keeps nobody waiting, neither the agent while it
// logs nor its end.
func TestReaderThatStalls(t *testing.T) {
	p := serve(t)
	_ = p.dial(t)
	line := strings.Repeat("y", 4000)
	for range 5000 { // far more than sockets hold
		p.say("%s", line)
	}
	begin := time.Now()
	if err := p.end(); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took > stalled/2 {
		t.Errorf("the end took %v", took)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.size > maxQueue+batch {
		t.Errorf("%d bytes are kept", p.size)
	}
}

// What a reader that went away did not take is for the next one, in whole lines.
func TestReaderThatGoes(t *testing.T) {
	p := serve(t)
	conn, err := net.Dial("unix", p.path)
	if err != nil {
		t.Fatal(err)
	}
	p.say("0")
	if _, err := conn.Read(make([]byte, 2)); err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	next := p.dial(t)
	p.say("1")
	wantLine(t, next, "1")
}
