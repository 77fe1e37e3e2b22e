package remote_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/vouchsafe-cc/vouchsafe/kbs/api/proto/keyholder"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/kek"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/kek/remote"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/kek/remote/remotetest"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

func holder(t *testing.T, socket string) *remote.Holder {
	t.Helper()
	h, err := remote.New(socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

// The contract of a holder, by a real token.
func TestToken(t *testing.T) {
	p := remotetest.Start(t)
	h := holder(t, p.Socket)
	first, err := h.First(t.Context())
	if err != nil || first.ID() != p.First {
		t.Fatalf("%v, %v; want %s", first, err, p.First)
	}
	key := secret.Random(kek.Size)
	wrapped, err := first.Wrap(t.Context(), key, []byte("here"))
	if err != nil {
		t.Fatal(err)
	}
	second, err := h.Make(t.Context())
	if err != nil || second.ID() == first.ID() {
		t.Fatalf("%v, %v", second, err)
	}
	if newest, err := h.First(t.Context()); err != nil || newest.ID() != second.ID() {
		t.Errorf("the newest is %v, %v", newest, err)
	}
	again, err := h.Open(t.Context(), first.ID())
	if err != nil {
		t.Fatal(err)
	}
	if back, err := again.Unwrap(t.Context(), wrapped, []byte("here")); err != nil || !back.Equal(key) {
		t.Fatalf("unwrap: %v", err)
	}
	altered := bytes.Clone(wrapped)
	altered[len(altered)-1] ^= 1
	for name, f := range map[string]func() (secret.Bytes, error){
		"another place":  func() (secret.Bytes, error) { return again.Unwrap(t.Context(), wrapped, []byte("there")) },
		"another key":    func() (secret.Bytes, error) { return second.Unwrap(t.Context(), wrapped, []byte("here")) },
		"altered":        func() (secret.Bytes, error) { return again.Unwrap(t.Context(), altered, []byte("here")) },
		"nothing at all": func() (secret.Bytes, error) { return again.Unwrap(t.Context(), nil, []byte("here")) },
	} {
		if _, err := f(); !errors.Is(err, kek.ErrUnwrap) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, id := range []string{"pkcs11:00", "pkcs11:", first.ID() + "0", "local:00", ""} {
		if _, err := h.Open(t.Context(), id); !errors.Is(err, kek.ErrUnknown) {
			t.Errorf("open %q: %v", id, err)
		}
	}
	if id := p.Run("init"); id != second.ID()+"\n" {
		t.Errorf("another init gave %q, want the newest key", id)
	}
	if info, err := os.Stat(p.Socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v", info, err)
	}
}

// A process that is away is told from bytes that do not open, and one that
// comes back is used again.
func TestProcessThatDies(t *testing.T) {
	p := remotetest.Start(t)
	h := holder(t, p.Socket)
	w, err := h.First(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	key := secret.Random(kek.Size)
	wrapped, err := w.Wrap(t.Context(), key, nil)
	if err != nil {
		t.Fatal(err)
	}
	p.Kill()
	if _, err := w.Unwrap(t.Context(), wrapped, nil); !errors.Is(err, kek.ErrUnavailable) {
		t.Errorf("unwrap: %v", err)
	}
	if _, err := w.Wrap(t.Context(), key, nil); !errors.Is(err, kek.ErrUnavailable) {
		t.Errorf("wrap: %v", err)
	}
	if _, err := h.Open(t.Context(), w.ID()); !errors.Is(err, kek.ErrUnavailable) {
		t.Errorf("open: %v", err)
	}
	p.Serve() // in place of the socket that is still there
	back := eventually(t, func() (secret.Bytes, error) { return w.Unwrap(t.Context(), wrapped, nil) })
	if !back.Equal(key) {
		t.Error("it opened to another key")
	}
}

// eventually asks until the connection is made again.
func eventually[T any](t *testing.T, ask func() (T, error)) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		v, err := ask()
		if err == nil {
			return v
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal(err)
		}
	}
}

// liar answers with what it is told to.
type liar struct {
	pb.UnimplementedKeyHolderServer
	wrapped, plain []byte
	id             string
	code           codes.Code
}

func (l liar) err() error {
	if l.code == codes.OK {
		return nil
	}
	return status.Error(l.code, "as the test wants")
}

func (l liar) Describe(context.Context, *pb.DescribeRequest) (*pb.DescribeResponse, error) {
	out := &pb.DescribeResponse{}
	if l.id != "" {
		out.Keys = []*pb.Key{{Id: l.id}}
	}
	return out, nil
}

func (l liar) Wrap(context.Context, *pb.WrapRequest) (*pb.WrapResponse, error) {
	return &pb.WrapResponse{Wrapped: l.wrapped}, l.err()
}

func (l liar) Unwrap(context.Context, *pb.UnwrapRequest) (*pb.UnwrapResponse, error) {
	return &pb.UnwrapResponse{Plaintext: l.plain}, l.err()
}

// A process that answers with the wrong thing is not believed.
func TestWrongAnswers(t *testing.T) {
	long := make([]byte, kek.MaxWrapped+1)
	for name, c := range map[string]struct {
		liar
		first, wrap, unwrap error
	}{
		"no key":        {liar{}, remote.ErrKey, nil, nil},
		"a bad id":      {liar{id: "../"}, remote.ErrKey, nil, nil},
		"nothing":       {liar{id: "00"}, kek.ErrUnavailable, kek.ErrUnavailable, kek.ErrUnavailable},
		"too much":      {liar{id: "00", wrapped: long, plain: long}, kek.ErrUnavailable, kek.ErrUnavailable, kek.ErrUnavailable},
		"no binding":    {liar{id: "00", wrapped: long[:60], plain: long[:32]}, kek.ErrUnwrap, nil, nil},
		"no such key":   {liar{id: "00", code: codes.NotFound}, kek.ErrUnknown, kek.ErrUnknown, kek.ErrUnknown},
		"does not open": {liar{id: "00", code: codes.DataLoss}, kek.ErrUnwrap, kek.ErrUnwrap, kek.ErrUnwrap},
		"a locked PIN":  {liar{id: "00", code: codes.FailedPrecondition}, kek.ErrUnavailable, kek.ErrUnavailable, kek.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			h := holder(t, lie(t, c.liar))
			if _, err := h.First(t.Context()); !errors.Is(err, c.first) {
				t.Errorf("first: %v", err)
			}
			if c.id != "00" {
				return
			}
			w, err := h.Open(t.Context(), "pkcs11:00")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Wrap(t.Context(), secret.Random(32), nil); !errors.Is(err, c.wrap) {
				t.Errorf("wrap: %v", err)
			}
			if _, err := w.Unwrap(t.Context(), long[:60], nil); !errors.Is(err, c.unwrap) {
				t.Errorf("unwrap: %v", err)
			}
		})
	}
}

func lie(t *testing.T, l liar) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "lie-*")
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	pb.RegisterKeyHolderServer(s, l)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(listener) }()
	t.Cleanup(func() { s.Stop(); <-done; _ = os.RemoveAll(dir) })
	return socket
}
