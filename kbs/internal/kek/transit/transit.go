// Package transit is the holder whose keys are a Vault's or OpenBao's: one key
// of a transit engine, each version of it a master key of its own.
//
// The broker sends data keys of 32 bytes there, wrapped and unwrapped, with
// where they belong as associated data; no resource's value ever goes. It needs
// "update" on <mount>/encrypt/<key> and <mount>/decrypt/<key>, "read" on
// <mount>/keys/<key>, and, unless somebody else rotates the key, "update" on
// <mount>/keys/<key>/rotate.
package transit

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/kek"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/vault"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// ErrKey says that the transit key cannot serve as a master key.
var ErrKey = errors.New("transit: not a usable key")

// usable are the key types that authenticate associated data.
var usable = map[string]bool{
	"aes128-gcm96": true, "aes256-gcm96": true, "chacha20-poly1305": true, "xchacha20-poly1305": true,
}

// Holder is one key of a transit engine.
type Holder struct {
	c          *vault.Client
	mount, key string
}

var _ kek.Holder = (*Holder)(nil)

// New returns the holder over mount ("" is "transit") and key, both of letters,
// digits, dots, dashes and underscores.
func New(c *vault.Client, mount, key string) *Holder {
	if mount == "" {
		mount = "transit"
	}
	return &Holder{c: c, mount: mount, key: key}
}

// id of a version: transit:<mount>.<key>:v<version>.
func (h *Holder) id(version int) string {
	return fmt.Sprintf("transit:%s.%s:v%d", h.mount, h.key, version)
}

func (h *Holder) path(op string) string {
	return url.PathEscape(h.mount) + "/" + op + "/" + url.PathEscape(h.key)
}

// description is what the engine says about a key.
type description struct {
	Type       string `json:"type"`
	Derived    bool   `json:"derived"`
	Latest     int    `json:"latest_version"`
	MinDecrypt int    `json:"min_decryption_version"`
	MinEncrypt int    `json:"min_encryption_version"`
	Deletable  bool   `json:"deletion_allowed"`
}

func (h *Holder) describe(ctx context.Context) (description, error) {
	var d description
	err := h.c.Do(ctx, vault.Call{Method: http.MethodGet, Path: h.path("keys")}, &d)
	switch {
	case errors.Is(err, vault.ErrNotFound):
		return d, fmt.Errorf("%w: there is no key %s at %s", ErrKey, h.key, h.mount)
	case err != nil:
		return d, fmt.Errorf("transit: %w", err)
	case !usable[d.Type] || d.Derived:
		return d, fmt.Errorf("%w: %s is of type %s, derived %t; want aes256-gcm96, not derived", ErrKey, h.key, d.Type, d.Derived)
	case d.Latest < 1:
		return d, fmt.Errorf("%w: %s has no version", ErrKey, h.key)
	}
	return d, nil
}

// First returns the newest version: who looks after the Vault may rotate there.
func (h *Holder) First(ctx context.Context) (kek.Wrapper, error) {
	d, err := h.describe(ctx)
	if err != nil {
		return nil, err
	}
	w := version{h, d.Latest}
	if err := kek.Try(ctx, w); err != nil {
		return nil, err
	}
	return w, nil
}

// Open returns a version that the engine still decrypts.
func (h *Holder) Open(ctx context.Context, id string) (kek.Wrapper, error) {
	text, ok := strings.CutPrefix(id, strings.TrimSuffix(h.id(0), "0"))
	n, err := strconv.Atoi(text)
	if !ok || err != nil || h.id(n) != id {
		return nil, kek.ErrUnknown
	}
	d, err := h.describe(ctx)
	if err != nil {
		return nil, err
	}
	if n < d.MinDecrypt || n > d.Latest {
		return nil, fmt.Errorf("%w: version %d of %s is not there to decrypt with", kek.ErrUnknown, n, h.key)
	}
	return version{h, n}, nil
}

// Make rotates the key within the engine.
func (h *Holder) Make(ctx context.Context) (kek.Wrapper, error) {
	// Once: another try after a lost answer would make yet another version.
	err := h.c.Do(ctx, vault.Call{Method: http.MethodPost, Path: h.path("keys") + "/rotate", In: struct{}{}, Once: true}, nil)
	if err != nil {
		return nil, fmt.Errorf("transit: rotate: %w", err)
	}
	return h.First(ctx)
}

// version is one version of the key.
type version struct {
	h *Holder
	n int
}

func (v version) ID() string { return v.h.id(v.n) }

// prefix is what the engine's ciphertexts begin with.
func (v version) prefix() string { return "vault:v" + strconv.Itoa(v.n) + ":" }

// Wrap has the engine encrypt the key. What is kept is the ciphertext without
// its prefix, decoded: the engine's text is half as long again.
func (v version) Wrap(ctx context.Context, key secret.Bytes, bound []byte) ([]byte, error) {
	in := map[string]any{
		"plaintext":       base64.StdEncoding.EncodeToString(key.Reveal()),
		"associated_data": base64.StdEncoding.EncodeToString(bound),
		"key_version":     v.n,
	}
	var out struct {
		Ciphertext string `json:"ciphertext"`
	}
	if err := v.h.c.Do(ctx, vault.Call{Method: http.MethodPost, Path: v.h.path("encrypt"), In: in}, &out); err != nil {
		return nil, fmt.Errorf("transit: encrypt: %w", err)
	}
	text, ok := strings.CutPrefix(out.Ciphertext, v.prefix())
	raw, err := base64.StdEncoding.DecodeString(text)
	if !ok || err != nil || len(raw) <= key.Len() || len(raw) > kek.MaxWrapped {
		return nil, fmt.Errorf("%w: the ciphertext is not one of version %d", vault.ErrUnavailable, v.n)
	}
	return raw, nil
}

// Unwrap has the engine decrypt.
func (v version) Unwrap(ctx context.Context, wrapped, bound []byte) (secret.Bytes, error) {
	in := map[string]any{
		"ciphertext":      v.prefix() + base64.StdEncoding.EncodeToString(wrapped),
		"associated_data": base64.StdEncoding.EncodeToString(bound),
	}
	var out struct {
		Plaintext []byte `json:"plaintext"`
	}
	err := v.h.c.Do(ctx, vault.Call{Method: http.MethodPost, Path: v.h.path("decrypt"), In: in}, &out)
	switch {
	case unauthentic(err):
		return secret.Bytes{}, fmt.Errorf("%w: under %s: %w", kek.ErrUnwrap, v.ID(), err)
	case err != nil:
		return secret.Bytes{}, fmt.Errorf("transit: decrypt: %w", err)
	case len(out.Plaintext) == 0:
		return secret.Bytes{}, fmt.Errorf("%w: the engine gave no plaintext", vault.ErrUnavailable)
	}
	return secret.New(out.Plaintext), nil
}

// unauthentic tells a ciphertext that does not open from a key version that the
// engine may not use any more: both are bad requests to it.
func unauthentic(err error) bool {
	return errors.Is(err, vault.ErrRefused) && !strings.Contains(err.Error(), "disallowed by policy")
}
