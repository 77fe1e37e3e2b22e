// Package pkcs11 is the broker's way to the process kbs-pkcs11, which talks to
// a PKCS#11 token (ADR 16): a connection to its socket, and the values and the
// key pair that it serves beside master keys (kbs/api/proto/tokenstore).
//
// The library of a token is C code; in another process it cannot read the
// broker's memory, nor end the broker when it breaks, nor keep it waiting for
// longer than the limits here. Secrets cross the socket, so it must be the
// broker's own user's or root's; that is checked for every connection.
package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	pb "github.com/vouchsafe-cc/vouchsafe/kbs/api/proto/tokenstore"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// MaxValue bounds a value in a token, in bytes.
const MaxValue = 64 << 10

const (
	maxAnswer = 256 << 10 // bytes
	patience  = 5 * time.Second
	longest   = time.Second // between two attempts to connect
	calls     = 64          // at a time: the token is slow, and the rest of the broker is not to wait for it
)

// Dial returns a connection to the process at a socket. Nothing is dialled yet,
// and one that was lost is made again.
func Dial(socket string) (*grpc.ClientConn, error) {
	dial := func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx, socket) }
	retry := backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: longest}
	conn, err := grpc.NewClient("passthrough:///kbs-pkcs11", grpc.WithContextDialer(dial),
		grpc.WithTransportCredentials(insecure.NewCredentials()), // the kernel names the other side
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: retry, MinConnectTimeout: longest}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)))
	if err != nil {
		return nil, fmt.Errorf("pkcs11: %w", err)
	}
	return conn, nil
}

func dial(ctx context.Context, socket string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	uid, err := owner(c.(*net.UnixConn))
	if err == nil && uid != 0 && uid != uint32(os.Geteuid()) {
		err = fmt.Errorf("%s is served by the user %d, who is neither us nor root", socket, uid)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// owner asks the kernel who listens.
func owner(c *net.UnixConn) (uid uint32, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *syscall.Ucred
	ask := func(fd uintptr) {
		cred, err = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}
	if outer := raw.Control(ask); outer != nil {
		return 0, outer
	}
	if err != nil {
		return 0, err
	}
	return cred.Uid, nil
}

// Cause is what a failed call means, and what the process said of it, cut to
// what a log line can bear.
func Cause(err error) (codes.Code, error) {
	const maxMessage = 200
	s := status.Convert(err)
	text := s.Message()
	return s.Code(), fmt.Errorf("kbs-pkcs11: %s: %s", s.Code(), text[:min(len(text), maxMessage)])
}

// Within runs one call in bounded time.
func Within(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return do(ctx)
}

// Token is what one process serves beside master keys. It is safe for
// concurrent use. Its errors are store.ErrNotFound, or faults: Unavailable
// unless the caller could do better.
type Token struct {
	conn  *grpc.ClientConn
	store pb.TokenStoreClient
	pair  pb.KeyWrapClient
	busy  chan struct{}
}

// Open returns the token behind a socket.
func Open(socket string) (*Token, error) {
	conn, err := Dial(socket)
	if err != nil {
		return nil, err
	}
	return &Token{conn, pb.NewTokenStoreClient(conn), pb.NewKeyWrapClient(conn), make(chan struct{}, calls)}, nil
}

// Close ends the connection.
func (t *Token) Close() error { return t.conn.Close() }

// Get returns the value with a label.
func (t *Token) Get(ctx context.Context, path string) (secret.Bytes, error) {
	var out secret.Bytes
	err := t.call(ctx, func(ctx context.Context) error {
		r, err := t.store.Get(ctx, &pb.GetRequest{Path: path})
		out = secret.New(r.GetValue())
		return err
	})
	if err == nil && out.Len() > MaxValue {
		out.Destroy()
		return secret.Bytes{}, fault.Newf(fault.Unavailable, "kbs-pkcs11: a value of %d bytes, at most %d are taken", out.Len(), MaxValue)
	}
	return out, err
}

// Put stores a value, at most MaxValue, in place of what has the label.
func (t *Token) Put(ctx context.Context, path string, value secret.Bytes) error {
	return t.call(ctx, func(ctx context.Context) error {
		_, err := t.store.Put(ctx, &pb.PutRequest{Path: path, Value: value.Reveal()})
		return err
	})
}

// Delete removes what has a label, and returns its size.
func (t *Token) Delete(ctx context.Context, path string) (size int, err error) {
	err = t.call(ctx, func(ctx context.Context) error {
		r, err := t.store.Delete(ctx, &pb.DeleteRequest{Path: path})
		size = int(r.GetSize())
		return err
	})
	return size, err
}

// Entry is one value in a list.
type Entry struct {
	Path string
	Size int
}

// List returns at most limit values in order of their paths, and the path to go
// on after.
func (t *Token) List(ctx context.Context, prefix, after string, limit int) (page []Entry, next string, err error) {
	const most = 1000 // that the process gives at once
	err = t.call(ctx, func(ctx context.Context) error {
		r, err := t.store.List(ctx, &pb.ListRequest{Prefix: prefix, After: after, Limit: int32(min(limit, most))})
		for _, e := range r.GetEntries() {
			page = append(page, Entry{e.GetPath(), int(e.GetSize())})
		}
		next = r.GetNext()
		return err
	})
	return page, next, err
}

// Wrap has the token seal a value under its public key.
func (t *Token) Wrap(ctx context.Context, plaintext secret.Bytes) (wrapped []byte, err error) {
	err = t.call(ctx, func(ctx context.Context) error {
		r, err := t.pair.Wrap(ctx, &pb.WrapKeyRequest{Plaintext: plaintext.Reveal()})
		wrapped = r.GetWrapped()
		return err
	})
	return wrapped, err
}

// Unwrap has the token open what Wrap made.
func (t *Token) Unwrap(ctx context.Context, wrapped []byte) (secret.Bytes, error) {
	var out secret.Bytes
	err := t.call(ctx, func(ctx context.Context) error {
		r, err := t.pair.Unwrap(ctx, &pb.UnwrapKeyRequest{Wrapped: wrapped})
		out = secret.New(r.GetPlaintext())
		return err
	})
	return out, err
}

func (t *Token) call(ctx context.Context, do func(context.Context) error) error {
	err := Within(ctx, func(ctx context.Context) error {
		select {
		case t.busy <- struct{}{}:
			defer func() { <-t.busy }()
		case <-ctx.Done():
			return fmt.Errorf("%d calls wait already: %w", calls, ctx.Err())
		}
		return do(ctx)
	})
	if err == nil {
		return nil
	}
	switch code, cause := Cause(err); code {
	case codes.NotFound:
		return fmt.Errorf("%w: %w", store.ErrNotFound, cause)
	case codes.InvalidArgument, codes.DataLoss:
		return fault.New(fault.InvalidRequest, cause)
	default:
		return fault.New(fault.Unavailable, cause)
	}
}
