// Package vaultkv is a resource back end in the KV secrets engine, version 2,
// of a HashiCorp Vault or an OpenBao.
//
// A resource repo/type/tag is the secret of that path below the engine's
// mount. Its value is the member "value", in base64 where the member "encoding"
// says so, which is how this back end writes it. Secrets of other authors are
// read as the field's brokers read them (kbs-protocol 8.1): a text stands for
// its bytes, a list of numbers for bytes, and anything else for its JSON.
package vaultkv

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/resource"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/vault"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// Field is the member of a secret that holds the value, unless the
// configuration names another.
const Field = "value"

// Backend is one KV engine. It is safe for concurrent use.
type Backend struct {
	client *vault.Client
	mount  string
	field  string
}

var (
	_ resource.Backend = (*Backend)(nil)
	_ resource.Changer = (*Backend)(nil)
	_ resource.Lister  = (*Backend)(nil)
)

// New returns the back end over the engine at mount, for example "secret".
func New(client *vault.Client, mount, field string) *Backend {
	if field == "" {
		field = Field
	}
	return &Backend{client, strings.Trim(mount, "/"), field}
}

// Traits implements resource.Backend. What is said about a resource has no
// place in the engine that others would respect, so it keeps none.
func (b *Backend) Traits() resource.Traits {
	return resource.Traits{Changes: true, Lists: true, Versions: true, Compares: true}
}

// version is the metadata of one version of a secret.
type version struct {
	Version   int64     `json:"version"`
	Created   time.Time `json:"created_time"`
	Destroyed bool      `json:"destroyed"`
	Deleted   string    `json:"deletion_time"` // "" if it is not
}

// Get implements resource.Backend.
func (b *Backend) Get(ctx context.Context, p resource.Path, n int64) (resource.Item, error) {
	if err := check(p); err != nil {
		return resource.Item{}, err
	}
	if n < 0 {
		return resource.Item{}, store.ErrNotFound
	}
	var out struct {
		Data     map[string]json.RawMessage `json:"data"`
		Metadata version                    `json:"metadata"`
	}
	call := vault.Call{Method: http.MethodGet, Path: b.path("data", p)}
	if n > 0 {
		call.Query = url.Values{"version": {strconv.FormatInt(n, 10)}}
	}
	if err := b.do(ctx, call, &out); err != nil {
		return resource.Item{}, err
	}
	defer func() {
		for _, raw := range out.Data {
			clear(raw)
		}
	}()
	if out.Data == nil || out.Metadata.Destroyed || n > 0 && out.Metadata.Version != n {
		return resource.Item{}, fmt.Errorf("version %d of %s: %w", n, p, store.ErrNotFound)
	}
	raw, ok := out.Data[b.field]
	if !ok {
		return resource.Item{}, fmt.Errorf("the secret at %s has no member %q: %w", p, b.field, store.ErrNotFound)
	}
	value, err := decode(raw, out.Data["encoding"])
	if err != nil {
		return resource.Item{}, fmt.Errorf("the secret at %s: %w", p, err)
	}
	return resource.Item{Value: value, Info: api.ResourceInfo{
		Path: p.String(), Version: out.Metadata.Version, Value: out.Metadata.Version, Size: value.Len(), Time: out.Metadata.Created,
	}}, nil
}

func decode(raw, encoding json.RawMessage) (secret.Bytes, error) {
	b, err := vault.Value(raw, encoding)
	if err != nil {
		return secret.Bytes{}, err
	}
	return bounded(b)
}

func bounded(b []byte) (secret.Bytes, error) {
	if len(b) > resource.MaxValue {
		clear(b)
		return secret.Bytes{}, resource.ErrTooLarge
	}
	return secret.New(b), nil
}

// Apply implements resource.Changer.
func (b *Backend) Apply(ctx context.Context, c resource.Change) (api.ResourceInfo, error) {
	if err := check(c.Path); err != nil {
		return api.ResourceInfo{}, err
	}
	switch {
	case c.Meta != nil || c.Op == resource.OpMeta:
		return api.ResourceInfo{}, fmt.Errorf("%w: it keeps nothing that is said about a resource", resource.ErrUnsupported)
	case c.Value.Len() > resource.MaxValue:
		return api.ResourceInfo{}, resource.ErrTooLarge
	}
	switch c.Op {
	case resource.OpPut:
		return b.put(ctx, c, c.Value)
	case resource.OpRollback:
		return b.rollback(ctx, c)
	case resource.OpDestroy:
		return b.destroy(ctx, c)
	case resource.OpDelete:
		return b.remove(ctx, c)
	default:
		return api.ResourceInfo{}, resource.ErrUnsupported
	}
}

// put writes the next version, by compare-and-swap where a version was seen:
// the engine compares, so nobody comes between.
func (b *Backend) put(ctx context.Context, c resource.Change, value secret.Bytes) (api.ResourceInfo, error) {
	want := c.Want
	if want == int64(store.Absent) {
		m, err := b.known(ctx, c.Path)
		if err != nil {
			return api.ResourceInfo{}, err
		}
		if m.alive() {
			return api.ResourceInfo{}, fmt.Errorf("%s is at version %d: %w", c.Path, m.Current, store.ErrConflict)
		}
		want = m.Current // of a secret that was deleted
	}
	in := map[string]any{"data": map[string]any{b.field: base64.StdEncoding.EncodeToString(value.Reveal()), "encoding": vault.Base64}}
	if want != int64(store.Any) {
		in["options"] = map[string]any{"cas": want}
	}
	var out version
	// An answer that got lost may have been a success: a second try without a
	// version would only write the same again.
	call := vault.Call{Method: http.MethodPost, Path: b.path("data", c.Path), In: in, Once: want != int64(store.Any)}
	if err := b.do(ctx, call, &out); err != nil {
		return api.ResourceInfo{}, conflict(err)
	}
	return api.ResourceInfo{
		Path: c.Path.String(), Version: out.Version, Value: out.Version, Size: value.Len(), Time: out.Created, Author: c.Author,
	}, nil
}

// conflict recognises the engine's refusal to swap.
func conflict(err error) error {
	if errors.Is(err, vault.ErrRefused) && strings.Contains(err.Error(), "check-and-set") {
		return fmt.Errorf("%w: %w", store.ErrConflict, err)
	}
	return err
}

func (b *Backend) rollback(ctx context.Context, c resource.Change) (api.ResourceInfo, error) {
	if c.Version <= 0 {
		return api.ResourceInfo{}, fmt.Errorf("version %d of %s: %w", c.Version, c.Path, store.ErrNotFound)
	}
	old, err := b.Get(ctx, c.Path, c.Version)
	if err != nil {
		return api.ResourceInfo{}, err
	}
	defer old.Value.Destroy()
	return b.put(ctx, c, old.Value)
}

// secretMetadata is what the engine knows of a secret beside its values.
type secretMetadata struct {
	Current  int64              `json:"current_version"`
	Versions map[string]version `json:"versions"` // by number
}

// alive reports whether the newest version has a value.
func (m secretMetadata) alive() bool {
	v, ok := m.Versions[strconv.FormatInt(m.Current, 10)]
	return ok && !v.Destroyed && v.Deleted == ""
}

// known reads the metadata, empty for a path that was never written.
func (b *Backend) known(ctx context.Context, p resource.Path) (secretMetadata, error) {
	var m secretMetadata
	err := b.do(ctx, vault.Call{Method: http.MethodGet, Path: b.path("metadata", p)}, &m)
	if errors.Is(err, store.ErrNotFound) {
		return secretMetadata{}, nil
	}
	if err != nil {
		return m, err
	}
	for number, v := range m.Versions { // the engine tells it by the name only
		if v.Version, err = strconv.ParseInt(number, 10, 64); err != nil {
			return m, fmt.Errorf("%w: a version named %.20q", vault.ErrUnavailable, number)
		}
		m.Versions[number] = v
	}
	return m, err
}

// seen compares the version that a change names with the newest one. The
// engine has no compare-and-swap for what follows, so a change in the moment
// between is not noticed.
func (b *Backend) seen(ctx context.Context, c resource.Change) (secretMetadata, error) {
	m, err := b.known(ctx, c.Path)
	switch {
	case err != nil:
		return m, err
	case !m.alive():
		return m, fmt.Errorf("%s: %w", c.Path, store.ErrNotFound)
	case c.Want != int64(store.Any) && c.Want != m.Current:
		return m, fmt.Errorf("%s is at version %d, not %d: %w", c.Path, m.Current, c.Want, store.ErrConflict)
	}
	return m, nil
}

func (b *Backend) destroy(ctx context.Context, c resource.Change) (api.ResourceInfo, error) {
	m, err := b.seen(ctx, c)
	if err != nil {
		return api.ResourceInfo{}, err
	}
	v, ok := m.Versions[strconv.FormatInt(c.Version, 10)]
	switch {
	case !ok || v.Destroyed:
		return api.ResourceInfo{}, fmt.Errorf("version %d of %s: %w", c.Version, c.Path, store.ErrNotFound)
	case c.Version == m.Current:
		return api.ResourceInfo{}, resource.ErrCurrent
	}
	if err := b.wipe(ctx, c.Path, c.Version); err != nil {
		return api.ResourceInfo{}, err
	}
	return b.Describe(ctx, c.Path)
}

// remove destroys every value. The engine keeps that there was a secret, and
// counts on from there: no later version can be taken for an old one.
func (b *Backend) remove(ctx context.Context, c resource.Change) (api.ResourceInfo, error) {
	m, err := b.seen(ctx, c)
	if err != nil {
		return api.ResourceInfo{}, err
	}
	info, err := b.Describe(ctx, c.Path)
	if err != nil {
		return info, err
	}
	var all []int64
	for _, v := range m.Versions {
		if !v.Destroyed {
			all = append(all, v.Version)
		}
	}
	return info, b.wipe(ctx, c.Path, all...)
}

func (b *Backend) wipe(ctx context.Context, p resource.Path, versions ...int64) error {
	return b.do(ctx, vault.Call{Method: http.MethodPut, Path: b.path("destroy", p), In: map[string]any{"versions": versions}}, nil)
}

// check guards against a Path that was never parsed.
func check(p resource.Path) error {
	if q, err := resource.ParsePath(p.String()); err != nil || q != p {
		return resource.ErrPath
	}
	return nil
}

func (b *Backend) path(what string, p resource.Path) string {
	return b.mount + "/" + what + "/" + p.String() // segments of a path need no escape
}

// do makes a call and turns its failure into what the broker knows: a Vault
// that is away or does not let us in is our trouble, and no caller's.
func (b *Backend) do(ctx context.Context, call vault.Call, out any) error {
	err := b.client.Do(ctx, call, out)
	switch {
	case errors.Is(err, vault.ErrNotFound):
		return fmt.Errorf("%w: %w", store.ErrNotFound, err)
	case errors.Is(err, vault.ErrUnavailable), errors.Is(err, vault.ErrForbidden):
		return fault.New(fault.Unavailable, err)
	}
	return err
}
