// Package remote is the holder whose keys a process of its own keeps, such as
// kbs-pkcs11 with a PKCS#11 token: it is asked over a unix socket, by the
// protocol of kbs/api/proto/keyholder.
//
// The library of a token is C code; in another process it cannot read the
// broker's memory, nor end the broker when it breaks. What crosses the socket
// are data keys of 32 bytes, so the socket must be the broker's own user's or
// root's; that is checked for every connection.
package remote

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	pb "github.com/vouchsafe-cc/vouchsafe/kbs/api/proto/keyholder"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/kek"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// ErrKey says that the process holds no key to begin with.
var ErrKey = errors.New("pkcs11: there is no key")

const (
	prefix     = "pkcs11:" // of the ids of its keys
	maxID      = 48        // characters after the prefix
	maxAnswer  = 256 << 10 // bytes
	maxMessage = 200       // bytes of what it says about an error
	patience   = 5 * time.Second
	longest    = time.Second // between two attempts to connect
)

// Holder is the process behind one socket. It is safe for concurrent use.
type Holder struct {
	conn *grpc.ClientConn
	keys pb.KeyHolderClient
}

var _ kek.Holder = (*Holder)(nil)

// New returns the holder at a socket. Nothing is dialled yet.
func New(socket string) (*Holder, error) {
	dial := func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx, socket) }
	retry := backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: longest}
	conn, err := grpc.NewClient("passthrough:///kbs-pkcs11", grpc.WithContextDialer(dial),
		grpc.WithTransportCredentials(insecure.NewCredentials()), // the kernel names the other side
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: retry, MinConnectTimeout: longest}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)))
	if err != nil {
		return nil, fmt.Errorf("pkcs11: %w", err)
	}
	return &Holder{conn: conn, keys: pb.NewKeyHolderClient(conn)}, nil
}

// Close ends the connection.
func (h *Holder) Close() error { return h.conn.Close() }

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

// First returns the newest key: `kbs-pkcs11 init` makes the first one.
func (h *Holder) First(ctx context.Context) (kek.Wrapper, error) {
	ids, err := h.list(ctx)
	if err != nil {
		return nil, err
	}
	if len(ids) == 0 {
		return nil, fmt.Errorf("%w: make one with kbs-pkcs11 init", ErrKey)
	}
	return h.sound(ctx, ids[len(ids)-1])
}

// Open returns a key that the token has.
func (h *Holder) Open(ctx context.Context, id string) (kek.Wrapper, error) {
	short, ok := strings.CutPrefix(id, prefix)
	if !ok {
		return nil, kek.ErrUnknown
	}
	ids, err := h.list(ctx)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(ids, short) {
		return nil, kek.ErrUnknown
	}
	return key{h, short}, nil
}

// Make makes a key within the token.
func (h *Holder) Make(ctx context.Context) (kek.Wrapper, error) {
	var out *pb.Key
	err := call(ctx, func(ctx context.Context) (err error) {
		out, err = h.keys.Make(ctx, &pb.MakeRequest{})
		return err
	})
	if err != nil {
		return nil, err
	}
	return h.sound(ctx, out.GetId())
}

func (h *Holder) list(ctx context.Context) ([]string, error) {
	var ids []string
	err := call(ctx, func(ctx context.Context) error {
		out, err := h.keys.Describe(ctx, &pb.DescribeRequest{})
		for _, k := range out.GetKeys() {
			ids = append(ids, k.GetId())
		}
		return err
	})
	return ids, err
}

// sound sees that a key has a name that can be stored, and works.
func (h *Holder) sound(ctx context.Context, id string) (kek.Wrapper, error) {
	if id == "" || len(id) > maxID || strings.Trim(id, "0123456789abcdef") != "" {
		return nil, fmt.Errorf("%w: %q is not a key's id", ErrKey, id[:min(len(id), maxID)])
	}
	k := key{h, id}
	return k, kek.Try(ctx, k)
}

type key struct {
	h  *Holder
	id string
}

func (k key) ID() string { return prefix + k.id }

func (k key) Wrap(ctx context.Context, plain secret.Bytes, bound []byte) ([]byte, error) {
	var out []byte
	err := call(ctx, func(ctx context.Context) error {
		r, err := k.h.keys.Wrap(ctx, &pb.WrapRequest{KeyId: k.id, Plaintext: plain.Reveal(), Bound: bound})
		out = r.GetWrapped()
		return err
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("wrap under %s: %w", k.ID(), err)
	case len(out) <= plain.Len() || len(out) > kek.MaxWrapped:
		return nil, fmt.Errorf("%w: it made %d bytes of %d", kek.ErrUnavailable, len(out), plain.Len())
	}
	return out, nil
}

func (k key) Unwrap(ctx context.Context, wrapped, bound []byte) (secret.Bytes, error) {
	var out []byte
	err := call(ctx, func(ctx context.Context) error {
		r, err := k.h.keys.Unwrap(ctx, &pb.UnwrapRequest{KeyId: k.id, Wrapped: wrapped, Bound: bound})
		out = r.GetPlaintext()
		return err
	})
	switch {
	case err != nil:
		return secret.Bytes{}, fmt.Errorf("unwrap under %s: %w", k.ID(), err)
	case len(out) == 0 || len(out) >= len(wrapped):
		clear(out)
		return secret.Bytes{}, fmt.Errorf("%w: it opened %d bytes to %d", kek.ErrUnavailable, len(wrapped), len(out))
	}
	return secret.New(out), nil
}

// call runs one call in bounded time, and gives its failure the meaning that
// the protocol says.
func call(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := do(ctx)
	if err == nil {
		return nil
	}
	s := status.Convert(err)
	text := s.Message()
	cause := fmt.Errorf("kbs-pkcs11: %s: %s", s.Code(), text[:min(len(text), maxMessage)])
	switch s.Code() {
	case codes.NotFound:
		return fmt.Errorf("%w: %w", kek.ErrUnknown, cause)
	case codes.DataLoss:
		return fmt.Errorf("%w: %w", kek.ErrUnwrap, cause)
	default:
		return fmt.Errorf("%w: %w", kek.ErrUnavailable, cause)
	}
}
