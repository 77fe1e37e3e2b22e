package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/vouchsafe-cc/vouchsafe/kbs-pkcs11/internal/token"
	pb "github.com/vouchsafe-cc/vouchsafe/kbs/api/proto/keyholder"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

func TestListen(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	l, err := Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if _, err := Listen(t.Context(), path); !errors.Is(err, ErrServed) {
		t.Errorf("beside another: %v", err)
	}
	l.(owned).SetUnlinkOnClose(false) // as if the process had been killed
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Listen(t.Context(), path)
	if err != nil {
		t.Fatalf("in place of a socket that was left: %v", err)
	}
	_ = again.Close()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(t.Context(), file); err == nil {
		t.Error("a file was taken for a socket")
	}
	if raw, err := os.ReadFile(file); err != nil || string(raw) != "precious" {
		t.Errorf("the file is now %q, %v", raw, err)
	}
}

type others = Keys // by another name than its method's

// broken fails as it is told to; without an error it breaks.
type broken struct {
	others
	err error
}

func (k broken) Wrap(context.Context, string, string, secret.Bytes, []byte) ([]byte, error) {
	if k.err == nil {
		panic("of-the-secret")
	}
	return nil, fmt.Errorf("in a test: %w", k.err)
}

func TestFailures(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want codes.Code
	}{
		"unknown":  {token.ErrUnknown, codes.NotFound},
		"no fit":   {token.ErrOpen, codes.DataLoss},
		"size":     {token.ErrSize, codes.InvalidArgument},
		"bad key":  {token.ErrKey, codes.FailedPrecondition},
		"PIN":      {token.ErrPIN, codes.FailedPrecondition},
		"away":     {token.ErrAway, codes.Unavailable},
		"anything": {errors.New("x"), codes.Internal},
		"a panic":  {nil, codes.Internal},
	} {
		t.Run(name, func(t *testing.T) {
			var log strings.Builder
			client, stop := serve(t, broken{err: c.err}, slog.New(slog.NewTextHandler(&log, nil)))
			_, err := client.Wrap(t.Context(), &pb.WrapRequest{Plaintext: []byte("k")})
			_, large := client.Wrap(t.Context(), &pb.WrapRequest{Plaintext: make([]byte, maxRequest)})
			stop()
			if status.Code(err) != c.want || status.Code(large) != codes.ResourceExhausted {
				t.Errorf("%v, want %v; a large one: %v", err, c.want, large)
			}
			if strings.Contains(log.String(), "of-the-secret") || (c.want != codes.DataLoss) != strings.Contains(log.String(), "method=") {
				t.Errorf("logged: %s", log.String())
			}
		})
	}
}

func serve(t *testing.T, k Keys, logger *slog.Logger) (pb.KeyHolderClient, func()) {
	t.Helper()
	path := filepath.Join(shortDir(t), "s")
	l, err := Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, Served{Keys: k, Label: "label"}, logger) }()
	conn := dial(t, path)
	return pb.NewKeyHolderClient(conn), func() {
		cancel()
		if err := errors.Join(<-done, conn.Close()); err != nil {
			t.Errorf("serve: %v", err)
		}
	}
}

// shortDir is a folder with a name that is short enough for a socket in it.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "svc-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func dial(t *testing.T, path string) *grpc.ClientConn {
	t.Helper()
	to := func(context.Context, string) (net.Conn, error) { return net.Dial("unix", path) }
	conn, err := grpc.NewClient("passthrough:///x", grpc.WithContextDialer(to), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// A request that never comes in whole does not keep the process from ending.
func TestServeEnds(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	l, err := Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- Serve(ctx, l, Served{Keys: broken{}, Drain: time.Millisecond}, slog.New(slog.DiscardHandler))
	}()
	conn := dial(t, path)
	defer func() { _ = conn.Close() }()
	stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true}, pb.KeyHolder_Wrap_FullMethodName)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pb.NewKeyHolderClient(conn).Wrap(t.Context(), &pb.WrapRequest{}); status.Code(err) != codes.Internal {
		t.Fatal(err) // once this call is answered, the other one has begun
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := stream.RecvMsg(&pb.WrapResponse{}); err == nil {
		t.Error("half a request was answered")
	}
}
