// Package pkcs11 is the field's plugin of that name (kbs-protocol 8): values
// that are objects of a PKCS#11 token, and a key pair of it that seals what an
// administrator sends and opens it for attested guests.
//
// Administrators write and delete and have things wrapped; guests read and have
// things unwrapped, encrypted to their key. Nobody else gets anything.
package pkcs11

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/plugin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/resource"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// Name of the plugin.
const Name = "pkcs11"

// What the first segment of a path may be.
const (
	values  = "resource"
	wrapKey = "wrap-key"
)

// Wrapper is the key pair.
type Wrapper interface {
	Wrap(ctx context.Context, plaintext secret.Bytes) ([]byte, error)
	Unwrap(ctx context.Context, wrapped []byte) (secret.Bytes, error)
}

// Values are the objects: the resource back end of the token.
type Values interface {
	resource.Backend
	resource.Changer
}

// Plugin is one token's.
type Plugin struct {
	values Values
	pair   Wrapper
}

var _ plugin.Plugin = (*Plugin)(nil)

// New returns the plugin over a token.
func New(v Values, w Wrapper) *Plugin { return &Plugin{v, w} }

// NeedsAdmin implements plugin.Plugin: reading is for guests, all else is not.
func (p *Plugin) NeedsAdmin(_ context.Context, c plugin.Call) (bool, error) {
	return c.Method != http.MethodGet, check(c)
}

// Encrypts implements plugin.Plugin.
func (p *Plugin) Encrypts(_ context.Context, c plugin.Call) (bool, error) {
	return c.Method == http.MethodGet, check(c)
}

// check refuses what the plugin does not have.
func check(c plugin.Call) error {
	methods := []string{http.MethodGet, http.MethodPost, http.MethodDelete}
	switch {
	case len(c.Path) == 1 && c.Path[0] == wrapKey:
		methods = methods[:2]
	case len(c.Path) == 4 && c.Path[0] == values:
	default:
		return fault.Newf(fault.NotFound, "plugin %s has %s/REPO/TYPE/TAG and %s", Name, values, wrapKey)
	}
	if !slices.Contains(methods, c.Method) {
		return fault.Newf(fault.MethodNotAllowed, "plugin %s: %s has no %s", Name, c.Path[0], c.Method)
	}
	return nil
}

// Handle implements plugin.Plugin.
func (p *Plugin) Handle(ctx context.Context, c plugin.Call) (plugin.Answer, error) {
	body, err := p.handle(ctx, c)
	return plugin.Answer{Body: body}, err
}

func (p *Plugin) handle(ctx context.Context, c plugin.Call) ([]byte, error) {
	if err := check(c); err != nil {
		return nil, err
	}
	if c.Path[0] == wrapKey {
		return p.wrapKey(ctx, c)
	}
	path, err := resource.ParsePath(strings.Join(c.Path[1:], "/"))
	if err != nil {
		return nil, err
	}
	switch c.Method {
	case http.MethodGet:
		item, err := p.values.Get(ctx, path, 0)
		if err != nil {
			return nil, err
		}
		return item.Value.Reveal(), nil // the caller wipes it
	case http.MethodPost:
		value := secret.Copy(c.Body)
		defer value.Destroy()
		_, err := p.values.Apply(ctx, resource.Change{Op: resource.OpPut, Path: path, Want: int64(store.Any), Value: value})
		return nil, err
	default:
		_, err := p.values.Apply(ctx, resource.Change{Op: resource.OpDelete, Path: path, Want: int64(store.Any)})
		return nil, err
	}
}

func (p *Plugin) wrapKey(ctx context.Context, c plugin.Call) ([]byte, error) {
	if c.Method == http.MethodPost {
		plain := secret.Copy(c.Body)
		defer plain.Destroy()
		return p.pair.Wrap(ctx, plain)
	}
	plain, err := p.pair.Unwrap(ctx, c.Body)
	if err != nil {
		return nil, err
	}
	return plain.Reveal(), nil // the caller wipes it
}
