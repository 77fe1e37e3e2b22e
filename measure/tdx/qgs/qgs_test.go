package qgs

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
)

// serve is a quote service on a unix socket: it answers each frame with what
// answer makes of the message, raw bytes and all.
func serve(t *testing.T, answer func(req []byte) []byte) Dialer {
	t.Helper()
	path := filepath.Join(t.TempDir(), "qgs")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			head := make([]byte, 4)
			if _, err := io.ReadFull(conn, head); err == nil {
				req := make([]byte, binary.BigEndian.Uint32(head))
				if _, err := io.ReadFull(conn, req); err == nil {
					_, _ = conn.Write(answer(req))
				}
			}
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}
}

func framed(msg []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(msg))), msg...)
}

var report = bytes.Repeat([]byte{0x81}, ReportSize)

func TestQuote(t *testing.T) {
	dial := serve(t, func(req []byte) []byte {
		// The request of qgs_msg_lib, field by field: version 1.0, type 0, size,
		// no error, report of 1024 bytes, no list of ids.
		want := append([]byte{1, 0, 0, 0, 0, 0, 0, 0, 0x18, 4, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0}, report...)
		if !bytes.Equal(req, want) {
			t.Errorf("request %x", req)
		}
		return framed(append([]byte{1, 0, 1, 0, 1, 0, 0, 0, 31, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0, 'i', 'd'}, "quote"...))
	})
	if q, err := Quote(t.Context(), dial, report); err != nil || string(q) != "quote" {
		t.Errorf("%q, %v", q, err)
	}
	if _, err := Quote(t.Context(), dial, report[1:]); err == nil {
		t.Error("half a report is sent")
	}
}

func TestMisbehavingService(t *testing.T) {
	good := message(typeAnswer, 0, nil, []byte("quote"))
	with := func(at int, v byte) []byte {
		m := bytes.Clone(good)
		m[at] = v
		return framed(m)
	}
	for name, tc := range map[string]struct {
		answer []byte
		is     error
		text   string
	}{
		"hangs up":        {nil, io.EOF, ""},
		"half a length":   {[]byte{0, 0}, io.ErrUnexpectedEOF, ""},
		"half an answer":  {framed(good)[:12], io.ErrUnexpectedEOF, ""},
		"endless":         {[]byte{0xff, 0xff, 0xff, 0xff}, ErrMessage, "at most"},
		"nothing":         {framed(nil), ErrMessage, "0 bytes"},
		"header only":     {framed(with(8, 16)[4:20]), ErrMessage, "16 bytes"},
		"version 2":       {with(0, 2), ErrMessage, "version 2"},
		"other type":      {with(4, 3), ErrMessage, "type 3"},
		"other size":      {with(8, 99), ErrMessage, "of 99 bytes"},
		"quote beyond":    {with(20, 6), ErrMessage, "a quote of 6"},
		"id beyond":       {with(19, 0xff), ErrMessage, "an id of"},
		"empty quote":     {framed(message(typeAnswer, 0, []byte("id"), nil)), ErrMessage, "a quote of 0"},
		"error":           {framed(message(typeAnswer, 0x12001, nil, nil)), ServiceError(0x12001), "unexpected error"},
		"error, short":    {framed(append(message(typeAnswer, 0x99, nil, nil)[:8:8], 16, 0, 0, 0, 0x99, 0, 0, 0)), ServiceError(0x99), "0x99"},
		"large quote":     {framed(message(typeAnswer, 0, nil, make([]byte, MaxQuote+1))), ErrMessage, ""},
		"our own message": {framed(message(typeRequest, 0, report, nil)), ErrMessage, "type 0"},
	} {
		t.Run(name, func(t *testing.T) {
			q, err := Quote(t.Context(), serve(t, func([]byte) []byte { return tc.answer }), report)
			if !errors.Is(err, tc.is) || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("%q, %v; want %v and %q", q, err, tc.is, tc.text)
			}
		})
	}
}

// A service that accepts and says nothing holds nobody longer than the caller
// wants.
func TestSilentService(t *testing.T) {
	reached, release := make(chan struct{}), make(chan struct{})
	dial := serve(t, func([]byte) []byte { close(reached); <-release; return nil })
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-reached; cancel() }()
	if _, err := Quote(ctx, dial, report); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	close(release)
}

func TestNoService(t *testing.T) {
	refused := errors.New("refused")
	if _, err := Quote(t.Context(), func(context.Context) (net.Conn, error) { return nil, refused }, report); !errors.Is(err, refused) {
		t.Errorf("got %v", err)
	}
}

func FuzzParseAnswer(f *testing.F) {
	f.Add(message(typeAnswer, 0, []byte("id"), []byte("quote")))
	f.Add(message(typeAnswer, 1, nil, nil))
	f.Fuzz(func(t *testing.T, raw []byte) {
		q, err := parseAnswer(raw)
		if err == nil && (len(q) == 0 || !bytes.HasSuffix(raw, q)) {
			t.Fatalf("quote %x of %x", q, raw)
		}
	})
}
