package kms

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/secret"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// azure is one Azure Key Vault or Managed HSM, which endpoint_url names: its keys
// for envelopes, its secrets for vaults. The credential is {"tenant_id","client_id","client_secret"}
// of an application.
type azure struct {
	common
	Authority string `json:"authority_url"` // of clouds other than the public one
	Scope     string `json:"scope"`         // of the vault's kind; that of Key Vault if empty

	uri string
}

var (
	azureName   = form{regexp.MustCompile(`^[0-9A-Za-z-]+(/[0-9A-Za-z]+)?$`), 192} // NAME[/VERSION]
	azureTenant = form{regexp.MustCompile(`^[0-9A-Za-z.-]+$`), 253}
)

// azureKeyWraps are the algorithms that are taken; the first one is the usual.
// Padding by PKCS #1 and OAEP with SHA-1 are not.
var azureKeyWraps = map[string]bool{"RSA-OAEP-256": true, "A256KW": true}

func newAzure(settings map[string]any, f files) (driver, error) {
	a := &azure{Authority: "https://login.microsoftonline.com", Scope: "https://vault.azure.net/.default"}
	if err := read("provider_settings", settings, a); err != nil {
		return nil, err
	}
	if err := errors.Join(a.check(), checkURL("endpoint_url", a.Endpoint), checkURL("authority_url", a.Authority)); err != nil {
		return nil, err
	}
	var err error
	a.uri, err = f.credential(a.Credential, "")
	return a, err
}

func (a *azure) needs() []string { return []string{a.uri} }

func (a *azure) open(e env, credentials []secret.Bytes) (service, error) {
	d, err := parseDocument(credentials[0])
	if err != nil {
		return nil, err
	}
	tenant, id, password := d.text("tenant_id"), d.text("client_id"), d.secret("client_secret")
	if !azureTenant.fits(tenant) || id == "" || password.Len() == 0 {
		password.Destroy()
		return nil, fault.Newf(fault.Unauthenticated, "the credential is not an application's")
	}
	c, err := newCaller(e, a.Roots)
	if err != nil {
		password.Destroy()
		return nil, err
	}
	at := strings.TrimSuffix(a.Authority, "/") + "/" + tenant + "/oauth2/v2.0/token"
	login := newBearer(c, e.now, at, func() (url.Values, error) {
		return url.Values{"grant_type": {"client_credentials"}, "client_id": {id}, "client_secret": {string(password.Reveal())}, "scope": {a.Scope}}, nil
	})
	return &azureClient{azure: a, bearer: login, password: password}, nil
}

type azureClient struct {
	*azure
	*bearer
	password secret.Bytes
}

func (c *azureClient) close() {
	c.bearer.close()
	c.password.Destroy()
	c.caller.close()
}

// do calls one of the vault's addresses.
func (c *azureClient) do(ctx context.Context, path string, in, out any) error {
	return c.json(ctx, "Azure", c.at("")+"/"+path+"?api-version=7.4", in, out, judgeAzure)
}

func judgeAzure(_ int, body []byte) (fault.Code, string) {
	var said struct {
		Error struct {
			Code string `json:"code"`
		} `json:"error"`
	}
	_ = json.Unmarshal(body, &said) // it may be anything
	return "", said.Error.Code
}

func (c *azureClient) secret(ctx context.Context, name string, annotations map[string]any) (secret.Bytes, error) {
	if err := annotated(annotations, &struct{}{}); err != nil {
		return secret.Bytes{}, err
	}
	if !azureName.fits(name) {
		return secret.Bytes{}, fault.New(fault.SealedInvalid, errors.New("name: want NAME[/VERSION]"))
	}
	var out struct {
		Value json.RawMessage `json:"value"`
	}
	if err := c.do(ctx, "secrets/"+name, nil, &out); err != nil {
		return secret.Bytes{}, err
	}
	defer clear(out.Value)
	text, err := strictjson.Text(out.Value)
	if err != nil {
		return secret.Bytes{}, malformed("Azure")
	}
	return secret.Copy(text), nil
}

// azureWrap says how an envelope's key is wrapped.
type azureWrap struct {
	Algorithm string `json:"algorithm"`
}

// azureResult is the answer to wrapkey and unwrapkey.
type azureResult struct {
	KID   string          `json:"kid"` // the key's address, with its version
	Value json.RawMessage `json:"value"`
}

func (c *azureClient) key(ctx context.Context, verb, keyID, algorithm string, value []byte) (r azureResult, err error) {
	if algorithm == "" {
		algorithm = "RSA-OAEP-256"
	}
	switch {
	case !azureName.fits(keyID):
		return r, fault.New(fault.SealedInvalid, errors.New("key_id: want NAME[/VERSION]"))
	case !azureKeyWraps[algorithm]:
		return r, fault.Newf(fault.SealedInvalid, "annotations: algorithm %.40q is not taken", algorithm)
	}
	in := map[string]string{"alg": algorithm, "value": base64.RawURLEncoding.EncodeToString(value)}
	err = c.do(ctx, "keys/"+withVersion(keyID)+"/"+verb, in, &r)
	return r, err
}

// withVersion keeps the place of a version that is not named: the newest one's.
func withVersion(keyID string) string {
	if strings.Contains(keyID, "/") {
		return keyID
	}
	return keyID + "/"
}

func (c *azureClient) decrypt(ctx context.Context, keyID string, wrapped []byte, annotations map[string]any) (secret.Bytes, error) {
	var a azureWrap
	if err := annotated(annotations, &a); err != nil {
		return secret.Bytes{}, err
	}
	r, err := c.key(ctx, "unwrapkey", keyID, a.Algorithm, wrapped)
	if err != nil {
		return secret.Bytes{}, err
	}
	defer clear(r.Value)
	return base64Text("Azure", r.Value, base64.RawURLEncoding)
}

func (c *azureClient) encrypt(ctx context.Context, keyID string, key secret.Bytes) (Wrapped, error) {
	r, err := c.key(ctx, "wrapkey", keyID, "", key.Reveal())
	if err != nil {
		return Wrapped{}, err
	}
	text, err := base64Text("Azure", r.Value, base64.RawURLEncoding)
	if err != nil {
		return Wrapped{}, err
	}
	// Only the version that wrapped it unwraps it; the newest may be another one
	// tomorrow.
	name, _, _ := strings.Cut(keyID, "/")
	_, version, found := strings.Cut(r.KID, "/keys/"+name+"/")
	full := fmt.Sprintf("%s/%s", name, version)
	if !found || !azureName.fits(full) {
		return Wrapped{}, malformed("Azure")
	}
	return wrapped("Azure", full, text.Reveal(), nil)
}
