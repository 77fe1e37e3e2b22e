package kms

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/vault"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// hashicorp is a HashiCorp Vault or an OpenBao, at endpoint_url: a KV engine of
// version 2 for vaults, a transit engine for envelopes. The credential is what
// the way to log in wants beside names: a token, a secret id or a JWT.
type hashicorp struct {
	common
	Namespace string `json:"namespace"`
	Mount     string `json:"mount"`      // of the engine; "secret" and "transit" if empty
	Auth      string `json:"auth"`       // token, approle or jwt; token if empty
	AuthMount string `json:"auth_mount"` // that of the method's name if empty
	RoleID    string `json:"role_id"`    // of approle
	Role      string `json:"role"`       // of jwt

	uri string
}

var vaultMount = regexp.MustCompile(`^[\w-]+(/[\w-]+)*$`)

func newVault(settings map[string]any, f files) (driver, error) {
	h := &hashicorp{Auth: "token"}
	if err := read("provider_settings", settings, h); err != nil {
		return nil, err
	}
	if err := errors.Join(h.check(), checkURL("endpoint_url", h.Endpoint)); err != nil {
		return nil, err
	}
	for _, mount := range []string{h.Mount, h.AuthMount} {
		if mount != "" && !vaultMount.MatchString(mount) {
			return nil, fmt.Errorf("provider_settings: mount %.80q", mount)
		}
	}
	switch {
	case h.Auth == "token" && h.RoleID == "" && h.Role == "", h.Auth == "approle" && h.RoleID != "" && h.Role == "", h.Auth == "jwt" && h.Role != "" && h.RoleID == "":
	default:
		return nil, errors.New("provider_settings: auth is token, approle with role_id, or jwt with role")
	}
	var err error
	h.uri, err = f.credential(h.Credential, "")
	return h, err
}

func (h *hashicorp) needs() []string { return []string{h.uri} }

func (h *hashicorp) open(e env, credentials []secret.Bytes) (service, error) {
	pool, err := roots(h.Roots)
	if err != nil {
		return nil, fault.New(fault.SealedInvalid, err)
	}
	own := secret.Copy(credentials[0].Reveal())
	auth := vault.Token(own)
	switch h.Auth {
	case "approle":
		auth = vault.AppRoleSecret(h.AuthMount, h.RoleID, own)
	case "jwt":
		auth = vault.JWT(h.AuthMount, h.Role, own)
	}
	c, err := vault.New(vault.Config{
		Address: h.Endpoint, Namespace: h.Namespace, RootCAs: pool, Timeout: e.timeout, Auth: auth, Now: e.now, Pause: e.pause,
	})
	if err != nil {
		own.Destroy()
		return nil, fault.New(fault.SealedInvalid, err)
	}
	return &vaultClient{hashicorp: h, client: c, own: own}, nil
}

type vaultClient struct {
	*hashicorp
	client *vault.Client
	own    secret.Bytes
}

func (c *vaultClient) close() {
	c.client.Close()
	c.own.Destroy()
}

func (c *vaultClient) at(usual string) string {
	if c.Mount != "" {
		return c.Mount
	}
	return usual
}

// do calls, and gives a failure its code.
func (c *vaultClient) do(ctx context.Context, call vault.Call, out any) error {
	err := c.client.Do(ctx, call, out)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, vault.ErrUnavailable):
		return fault.New(fault.Unavailable, err)
	case errors.Is(err, vault.ErrLogin):
		return fault.New(fault.Unauthenticated, err)
	case errors.Is(err, vault.ErrForbidden):
		return fault.New(fault.Forbidden, err)
	case errors.Is(err, vault.ErrNotFound):
		return fault.New(fault.NotFound, err)
	}
	return fault.New(fault.SealedInvalid, err)
}

// vaultField says what of a secret is wanted.
type vaultField struct {
	Field   string `json:"field"`   // the member that holds the value; "value" if empty
	Version string `json:"version"` // a number; the newest if empty
}

func (c *vaultClient) secret(ctx context.Context, name string, annotations map[string]any) (secret.Bytes, error) {
	a := vaultField{Field: "value"}
	if err := annotated(annotations, &a); err != nil {
		return secret.Bytes{}, err
	}
	path, err := vaultPath(name)
	if err != nil {
		return secret.Bytes{}, err
	}
	call := vault.Call{Method: http.MethodGet, Path: c.at("secret") + "/data/" + path}
	if a.Version != "" {
		if n, err := strconv.ParseUint(a.Version, 10, 31); err != nil || n == 0 {
			return secret.Bytes{}, fault.New(fault.SealedInvalid, errors.New("annotations: version is no number"))
		}
		call.Query = url.Values{"version": {a.Version}}
	}
	var out struct {
		Data     map[string]json.RawMessage `json:"data"`
		Metadata struct {
			Version int64 `json:"version"`
		} `json:"metadata"`
	}
	if err := c.do(ctx, call, &out); err != nil {
		return secret.Bytes{}, err
	}
	defer func() {
		for _, raw := range out.Data {
			clear(raw)
		}
	}()
	if a.Version != "" && strconv.FormatInt(out.Metadata.Version, 10) != a.Version {
		return secret.Bytes{}, malformed("Vault")
	}
	raw, ok := out.Data[a.Field]
	if !ok {
		return secret.Bytes{}, fault.New(fault.NotFound, fmt.Errorf("the secret has no member %.80q", a.Field))
	}
	value, err := vault.Value(raw, out.Data["encoding"])
	if err != nil {
		return secret.Bytes{}, fault.New(fault.SealedInvalid, err)
	}
	return secret.New(value), nil
}

// vaultPath escapes a name of segments.
func vaultPath(name string) (string, error) {
	var parts []string
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part == "." || part == ".." {
			return "", fault.New(fault.SealedInvalid, fmt.Errorf("%.200q is not the path of a secret or a key", name))
		}
		parts = append(parts, url.PathEscape(part))
	}
	return strings.Join(parts, "/"), nil
}

func (c *vaultClient) transit(op, keyID string, in any) (vault.Call, error) {
	key, err := vaultPath(keyID)
	if err != nil || strings.Contains(keyID, "/") {
		return vault.Call{}, fault.New(fault.SealedInvalid, errors.New("key_id is not the name of a key"))
	}
	return vault.Call{Method: http.MethodPost, Path: c.at("transit") + "/" + op + "/" + key, In: in}, nil
}

func (c *vaultClient) decrypt(ctx context.Context, keyID string, wrapped []byte, annotations map[string]any) (secret.Bytes, error) {
	if err := annotated(annotations, &struct{}{}); err != nil {
		return secret.Bytes{}, err
	}
	call, err := c.transit("decrypt", keyID, map[string]string{"ciphertext": string(wrapped)})
	if err != nil {
		return secret.Bytes{}, err
	}
	var out struct {
		Plaintext []byte `json:"plaintext"`
	}
	if err := c.do(ctx, call, &out); err != nil {
		return secret.Bytes{}, err
	}
	return plaintext("Vault", out.Plaintext)
}

// encrypt keeps the engine's own text, "vault:v1:...", which says the version.
func (c *vaultClient) encrypt(ctx context.Context, keyID string, key secret.Bytes) (Wrapped, error) {
	call, err := c.transit("encrypt", keyID, map[string]string{"plaintext": base64.StdEncoding.EncodeToString(key.Reveal())})
	if err != nil {
		return Wrapped{}, err
	}
	var out struct {
		Ciphertext string `json:"ciphertext"`
	}
	if err := c.do(ctx, call, &out); err != nil {
		return Wrapped{}, err
	}
	return wrapped("Vault", keyID, []byte(out.Ciphertext), nil)
}
