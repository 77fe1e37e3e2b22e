package rpc

import (
	"bytes"
	"context"
	"net"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/containerd/ttrpc"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

// BenchmarkRead is a container's output in the pieces that runtimes ask for,
// through this server and the library's, to the library's client.
func BenchmarkRead(b *testing.B) {
	const piece = 32 << 10
	run := func(b *testing.B, socket string) {
		c := dial(b, socket)
		req := &agent.ReadStreamRequest{Len: piece}
		b.SetBytes(piece)
		b.ReportAllocs()
		for b.Loop() {
			var resp agent.ReadStreamResponse
			if err := c.Call(b.Context(), "test.Desk", "Zero", req, &resp); err != nil || len(resp.Data) != piece {
				b.Fatal(err)
			}
		}
	}
	b.Run("ours", func(b *testing.B) {
		l := listen(b)
		s := NewServer(Config{}, Service{Name: "test.Desk", Methods: []Method{
			Bytes("Zero", 1, func(_ context.Context, req *agent.ReadStreamRequest, c *Call) (int, error) {
				return len(c.Room(int(req.Len))), nil
			}),
		}})
		go func() { _ = s.Serve(context.Background(), l) }()
		b.Cleanup(func() { _ = s.Close() })
		run(b, l.Addr().String())
	})
	b.Run("library", func(b *testing.B) {
		l := listen(b)
		s, err := ttrpc.NewServer()
		if err != nil {
			b.Fatal(err)
		}
		s.Register("test.Desk", map[string]ttrpc.Method{"Zero": func(_ context.Context, unmarshal func(any) error) (any, error) {
			var req agent.ReadStreamRequest
			if err := unmarshal(&req); err != nil {
				return nil, err
			}
			return &agent.ReadStreamResponse{Data: make([]byte, req.Len)}, nil
		}})
		go func() { _ = s.Serve(context.Background(), l) }()
		b.Cleanup(func() { _ = s.Close() })
		run(b, l.Addr().String())
	})
}

func listen(b *testing.B) net.Listener {
	b.Helper()
	l, err := net.Listen("unix", filepath.Join(b.TempDir(), "s"))
	if err != nil {
		b.Fatal(err)
	}
	return l
}

// An answer's bytes are not allocated again for each call.
func TestReadsAllocateNoAnswers(t *testing.T) {
	s := NewServer(Config{}, Service{Name: "test.Desk", Methods: []Method{
		Bytes("Zero", 1, func(_ context.Context, req *agent.ReadStreamRequest, c *Call) (int, error) {
			return len(c.Room(int(req.Len))), nil
		}),
	}})
	const piece, calls = 32 << 10, 1000
	payload := marshal(t, &agent.ReadStreamRequest{ContainerId: "c", ExecId: "x", Len: piece})
	var asked []byte
	for i := range calls {
		asked = append(asked, requestFrame(t, uint32(2*i+1), "Zero", payload)...)
	}
	peer := &counting{script: script{say: bytes.NewReader(asked)}}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	s.serve(context.Background(), peer)
	runtime.ReadMemStats(&after)
	if peer.n < calls*piece {
		t.Errorf("%d bytes were answered", peer.n)
	}
	if each := (after.TotalAlloc - before.TotalAlloc) / calls; each > piece { // less than one room; the race detector throws some of what is pooled away
		t.Errorf("a call allocates %d bytes", each)
	}
}

// counting is a script whose answers are counted and dropped.
type counting struct {
	script
	n int
}

func (c *counting) Write(p []byte) (int, error) {
	c.n += len(p)
	return len(p), nil
}
