// Package remote is the holder whose keys a process of its own keeps, such as
// kbs-pkcs11 with a PKCS#11 token: it is asked over a unix socket, by the
// protocol of kbs/api/proto/keyholder. What crosses the socket are data keys of
// 32 bytes; see package pkcs11 for who may be at its other end.
package remote

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	pb "github.com/vouchsafe-cc/vouchsafe/kbs/api/proto/keyholder"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/kek"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/pkcs11"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// ErrKey says that the process holds no key to begin with.
var ErrKey = errors.New("pkcs11: there is no key")

const (
	prefix = "pkcs11:" // of the ids of its keys
	maxID  = 48        // characters after the prefix
)

// Holder is the process behind one socket. It is safe for concurrent use.
type Holder struct {
	conn *grpc.ClientConn
	keys pb.KeyHolderClient
}

var _ kek.Holder = (*Holder)(nil)

// New returns the holder at a socket. Nothing is dialled yet.
func New(socket string) (*Holder, error) {
	conn, err := pkcs11.Dial(socket)
	if err != nil {
		return nil, err
	}
	return &Holder{conn: conn, keys: pb.NewKeyHolderClient(conn)}, nil
}

// Close ends the connection.
func (h *Holder) Close() error { return h.conn.Close() }

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
	err := pkcs11.Within(ctx, do)
	if err == nil {
		return nil
	}
	switch code, cause := pkcs11.Cause(err); code {
	case codes.NotFound:
		return fmt.Errorf("%w: %w", kek.ErrUnknown, cause)
	case codes.DataLoss:
		return fmt.Errorf("%w: %w", kek.ErrUnwrap, cause)
	default:
		return fmt.Errorf("%w: %w", kek.ErrUnavailable, cause)
	}
}
