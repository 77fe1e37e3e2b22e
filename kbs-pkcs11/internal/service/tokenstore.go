package service

import (
	"context"

	"github.com/vouchsafe-cc/vouchsafe/kbs-pkcs11/internal/token"
	ts "github.com/vouchsafe-cc/vouchsafe/kbs/api/proto/tokenstore"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// Objects are values that are objects of a token.
type Objects interface {
	Get(ctx context.Context, path string) (secret.Bytes, error)
	Put(ctx context.Context, path string, value secret.Bytes) error
	Delete(ctx context.Context, path string) (size int, err error)
	List(ctx context.Context, prefix, after string, limit int) (page []token.Entry, next string, err error)
}

// Pairs seals and opens with key pairs of a token.
type Pairs interface {
	WrapKey(ctx context.Context, p token.Pair, plaintext secret.Bytes) ([]byte, error)
	UnwrapKey(ctx context.Context, p token.Pair, wrapped []byte) (secret.Bytes, error)
}

type objects struct {
	ts.UnimplementedTokenStoreServer
	of Objects
}

func (o *objects) Get(ctx context.Context, in *ts.GetRequest) (*ts.GetResponse, error) {
	value, err := o.of.Get(ctx, in.GetPath())
	if err != nil {
		return nil, coded(err)
	}
	return &ts.GetResponse{Value: value.Reveal()}, nil // not wiped: see Unwrap
}

func (o *objects) Put(ctx context.Context, in *ts.PutRequest) (*ts.PutResponse, error) {
	value := secret.New(in.GetValue())
	defer value.Destroy()
	if err := o.of.Put(ctx, in.GetPath(), value); err != nil {
		return nil, coded(err)
	}
	return &ts.PutResponse{}, nil
}

func (o *objects) Delete(ctx context.Context, in *ts.DeleteRequest) (*ts.DeleteResponse, error) {
	size, err := o.of.Delete(ctx, in.GetPath())
	if err != nil {
		return nil, coded(err)
	}
	return &ts.DeleteResponse{Size: int64(size)}, nil
}

func (o *objects) List(ctx context.Context, in *ts.ListRequest) (*ts.ListResponse, error) {
	page, next, err := o.of.List(ctx, in.GetPrefix(), in.GetAfter(), int(in.GetLimit()))
	if err != nil {
		return nil, coded(err)
	}
	out := &ts.ListResponse{Next: next}
	for _, e := range page {
		out.Entries = append(out.Entries, &ts.Entry{Path: e.Path, Size: int64(e.Size)})
	}
	return out, nil
}

type pair struct {
	ts.UnimplementedKeyWrapServer
	of   Pairs
	pair token.Pair
}

func (p *pair) Wrap(ctx context.Context, in *ts.WrapKeyRequest) (*ts.WrapKeyResponse, error) {
	plain := secret.New(in.GetPlaintext())
	defer plain.Destroy()
	wrapped, err := p.of.WrapKey(ctx, p.pair, plain)
	if err != nil {
		return nil, coded(err)
	}
	return &ts.WrapKeyResponse{Wrapped: wrapped}, nil
}

func (p *pair) Unwrap(ctx context.Context, in *ts.UnwrapKeyRequest) (*ts.UnwrapKeyResponse, error) {
	plain, err := p.of.UnwrapKey(ctx, p.pair, in.GetWrapped())
	if err != nil {
		return nil, coded(err)
	}
	return &ts.UnwrapKeyResponse{Plaintext: plain.Reveal()}, nil // not wiped: see Unwrap of keys
}
