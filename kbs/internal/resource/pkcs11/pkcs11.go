// Package pkcs11 is a resource back end in a PKCS#11 token: a resource
// repo/type/tag is the object with that label, as the field's plugin of the
// name has it (kbs-protocol 8). What this back end writes are private data
// objects; it also reads data objects and secret keys of other authors, if the
// token gives them out.
//
// A token has neither versions nor a place for what is said about a resource,
// and no compare-and-swap, so this back end has none.
package pkcs11

import (
	"context"
	"fmt"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/pkcs11"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/resource"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// Token is what the back end needs of a token; see package pkcs11 of the
// broker.
type Token interface {
	Get(ctx context.Context, path string) (secret.Bytes, error)
	Put(ctx context.Context, path string, value secret.Bytes) error
	Delete(ctx context.Context, path string) (size int, err error)
	List(ctx context.Context, prefix, after string, limit int) (page []pkcs11.Entry, next string, err error)
}

// Backend is one token. It is safe for concurrent use.
type Backend struct{ token Token }

var (
	_ resource.Backend = (*Backend)(nil)
	_ resource.Changer = (*Backend)(nil)
	_ resource.Lister  = (*Backend)(nil)
)

// New returns the back end over a token.
func New(t Token) *Backend { return &Backend{t} }

// Traits implements resource.Backend.
func (b *Backend) Traits() resource.Traits { return resource.Traits{Changes: true, Lists: true} }

// Get implements resource.Backend.
func (b *Backend) Get(ctx context.Context, p resource.Path, version int64) (resource.Item, error) {
	if err := check(p); err != nil {
		return resource.Item{}, err
	}
	if version != 0 {
		return resource.Item{}, fmt.Errorf("%w: a token keeps no versions", resource.ErrUnsupported)
	}
	value, err := b.token.Get(ctx, p.String())
	if err != nil {
		return resource.Item{}, err
	}
	return resource.Item{Value: value, Info: api.ResourceInfo{Path: p.String(), Size: value.Len()}}, nil
}

// Apply implements resource.Changer.
func (b *Backend) Apply(ctx context.Context, c resource.Change) (api.ResourceInfo, error) {
	if err := check(c.Path); err != nil {
		return api.ResourceInfo{}, err
	}
	switch {
	case c.Op != resource.OpPut && c.Op != resource.OpDelete, c.Meta != nil:
		return api.ResourceInfo{}, fmt.Errorf("%w: a token keeps a value and nothing else", resource.ErrUnsupported)
	case c.Want != int64(store.Any):
		return api.ResourceInfo{}, fmt.Errorf("%w: a token cannot compare", resource.ErrUnsupported)
	case c.Value.Len() > pkcs11.MaxValue:
		return api.ResourceInfo{}, fmt.Errorf("%w: %d bytes, at most %d in a token", resource.ErrTooLarge, c.Value.Len(), pkcs11.MaxValue)
	}
	info := api.ResourceInfo{Path: c.Path.String(), Size: c.Value.Len(), Author: c.Author}
	if c.Op == resource.OpPut {
		return info, b.token.Put(ctx, info.Path, c.Value)
	}
	var err error
	info.Size, err = b.token.Delete(ctx, info.Path)
	return info, err
}

// Describe implements resource.Lister. It reads the value: a token does not
// tell the size of one otherwise.
func (b *Backend) Describe(ctx context.Context, p resource.Path) (api.ResourceInfo, error) {
	item, err := b.Get(ctx, p, 0)
	item.Value.Destroy()
	return item.Info, err
}

// List implements resource.Lister.
func (b *Backend) List(ctx context.Context, q resource.Query) (resource.Page, error) {
	if q.Limit < 1 {
		return resource.Page{}, store.ErrLimit
	}
	if q.Owner != "" || len(q.Labels) > 0 || !q.Expires.IsZero() {
		return resource.Page{}, nil // nothing here has an owner, labels or an end
	}
	entries, next, err := b.token.List(ctx, q.Prefix, q.After, q.Limit)
	if err != nil {
		return resource.Page{}, err
	}
	page := resource.Page{Next: next}
	for _, e := range entries {
		if _, err := resource.ParsePath(e.Path); err == nil && strings.HasPrefix(e.Path, q.Prefix) {
			page.Items = append(page.Items, api.ResourceInfo{Path: e.Path, Size: e.Size})
		}
	}
	return page, nil
}

// check guards against a Path that was never parsed.
func check(p resource.Path) error {
	if q, err := resource.ParsePath(p.String()); err != nil || q != p {
		return resource.ErrPath
	}
	return nil
}
