package rpc

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

// What is read of a request is what the library for protobuf reads.
func FuzzParseRequest(f *testing.F) {
	for _, r := range []*ttrpc.Request{
		{},
		{Service: "grpc.AgentService", Method: "ReadStdout", Payload: []byte("\x0a\x01c"), TimeoutNano: -1},
		{Service: "s", Method: "é", TimeoutNano: 1 << 62, Metadata: []*ttrpc.KeyValue{{Key: "traceparent", Value: "00-1"}, {}}},
	} {
		f.Add(marshal(f, r))
	}
	for _, s := range []string{
		"\x0a\xff\x01", "\x0a\x00\x0a\x01a", "\x08\x01", "\x20\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "\x22\x00", "\x2a\x02\x0a\x00", "\x2a\x03\x0a\x01\xff", "\x2a\x02\x08\x01",
		"\x0b\x0c", "\x0b\x13\x14\x0c", "\xff\xff\xff\xff\x0f\x00", "\x00\x00", "\x0d\x00\x00\x00\x00", "\x09\x00\x00\x00\x00\x00\x00\x00\x00", "\x1a\xff\xff\xff\xff\x0f", "\x2b\x2c", "\x2a\x01\x0b", "\xb0\xb0\xb0\xb0\xb0\x000",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parseRequest(b)
		var want ttrpc.Request
		if theirs := proto.Unmarshal(b, &want); (err == nil) != (theirs == nil) {
			t.Fatalf("%v, and the library says %v", err, theirs)
		}
		if err != nil {
			return
		}
		if string(got.service) != want.Service || string(got.method) != want.Method || !bytes.Equal(got.payload, want.Payload) || int64(got.timeout) != want.TimeoutNano {
			t.Fatalf("%+v, and the library reads %v", got, &want)
		}
	})
}

// script is a connection whose peer says what is written in it, and takes every
// answer.
type script struct {
	say *bytes.Reader

	mu   sync.Mutex
	said bytes.Buffer // answers
}

func (s *script) Read(p []byte) (int, error) { return s.say.Read(p[:min(len(p), 1+s.say.Len()%700)]) }

func (s *script) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.said.Write(p)
}
func (s *script) Close() error                     { return nil }
func (s *script) LocalAddr() net.Addr              { return &net.UnixAddr{} }
func (s *script) RemoteAddr() net.Addr             { return &net.UnixAddr{} }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

// sentence turns fuzz bytes into frames: each begins with a byte that says which.
func sentence(t testing.TB, b []byte) []byte {
	var all []byte
	stream := uint32(1)
	next := func() byte {
		if len(b) == 0 {
			return 0
		}
		c := b[0]
		b = b[1:]
		return c
	}
	methods := []string{"Echo", "Quick", "Late", "Fail", "Panic", "None", "Empty", "Read", "LateRead", "Liar", "Nothing", "Deadline"}
	for len(b) > 0 {
		switch kind := next(); kind % 8 {
		case 0: // anything at all
			n := min(int(next()), len(b))
			all, b = append(all, b[:n]...), b[n:]
		case 1: // a header of any kind, and a part of what it announces
			n := min(int(next()), len(b))
			all = append(all, head(uint32(n), stream, next(), next())...)
			n = min(n, len(b))
			all, b = append(all, b[:n]...), b[n:]
		case 2:
			stream -= uint32(next()) // back, or even
		default:
			req := &agent.ReadStreamRequest{Len: binary.BigEndian.Uint32([]byte{0, next() & 1, next(), next()})}
			all = append(all, requestFrame(t, stream, methods[int(next())%len(methods)], marshal(t, req))...)
			stream += 2
		}
	}
	return all
}

// Whatever a peer says, it gets whole frames, the server lives, and nothing of the
// connection is left.
func FuzzConnection(f *testing.F) {
	for _, s := range []string{
		"\x03\x00\x00\x10\x00\x03\x00\x00\x10\x07", "\x03\x00\x00\x00\x02\x01\x01\x03\x00x\x02\x01\x03\x00\x00\x00\x02", "\x01\xff\x01\x00", "\x01\x05\x01\x02abcde\x03\x00\xff\xff\x07",
		"\x00\x0a\xff\xff\xff\xff\x00\x00\x00\x01\x01\x00", "\x00\x0a\x00\x50\x00\x00\x00\x00\x00\x01\x01\x00", "\x02\x01\x03\x1f\xff\xff\x08", "\x03\x00\x00\x00\x03\x03\x00\x00\x00\x04\x03\x00\x00\x00\x09",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 512 {
			return
		}
		d := newDesk()
		d.waiting, d.ended = make(chan struct{}, 512), make(chan error, 512)
		s := NewServer(Config{}, d.services()...)
		peer := &script{say: bytes.NewReader(sentence(t, b))}
		s.serve(context.Background(), peer) // returns: the peer hangs up
		if len(s.conns) != 0 {
			t.Fatal("the connection is kept")
		}
		frames := newFrameReader(readOnly{&peer.said})
		for {
			h, p, err := frames.next()
			if errors.Is(err, io.EOF) {
				return
			}
			var resp ttrpc.Response
			if err == nil {
				err = proto.Unmarshal(p, &resp)
			}
			if err != nil || h.kind != kindResponse || h.flags != 0 {
				t.Fatalf("answer %+v: %v", h, err)
			}
		}
	})
}

// readOnly is a source that ends.
type readOnly struct{ io.Reader }

func (readOnly) SetReadDeadline(time.Time) error { return nil }
