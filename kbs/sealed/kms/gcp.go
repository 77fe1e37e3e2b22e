package kms

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"hash/crc32"
	"net/url"
	"regexp"
	"strconv"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// gcp is Google's Cloud KMS for envelopes and Secret Manager for vaults. The
// credential is the key file of a service account; endpoint_url takes the place
// of both services' addresses, for regional ones.
type gcp struct {
	common

	uri string
}

// What names look like. A secret without a version is the latest one.
var (
	gcpSecret = form{regexp.MustCompile(`^projects/\w[\w.:-]*(/locations/[\w-]+)?/secrets/[\w-]+(/versions/[\w-]+)?$`), 512}
	gcpLatest = regexp.MustCompile(`/versions/[^/]+$`)
	gcpKey    = form{regexp.MustCompile(`^projects/\w[\w.:-]*/locations/[\w-]+/keyRings/[\w-]+/cryptoKeys/[\w-]+$`), 320}
)

const gcpScope = "https://www.googleapis.com/auth/cloud-platform"

func newGCP(settings map[string]any, f files) (driver, error) {
	g := new(gcp)
	if err := read("provider_settings", settings, g); err != nil {
		return nil, err
	}
	if err := g.check(); err != nil {
		return nil, err
	}
	var err error
	g.uri, err = f.credential(g.Credential, "")
	return g, err
}

func (g *gcp) needs() []string { return []string{g.uri} }

// serviceAccount is a credential that can be read.
type serviceAccount struct {
	email, tokenURI string
	signer          jose.Signer
}

func parseServiceAccount(raw secret.Bytes) (a serviceAccount, err error) {
	d, err := parseDocument(raw)
	if err != nil {
		return a, err
	}
	bad := fault.Newf(fault.Unauthenticated, "the credential is not the key of a service account")
	text := d.secret("private_key")
	defer text.Destroy()
	block, _ := pem.Decode(text.Reveal())
	if block == nil {
		return a, bad
	}
	defer clear(block.Bytes)
	private, err := parseRSA(block.Bytes)
	if err != nil {
		return a, bad
	}
	a = serviceAccount{email: d.text("client_email"), tokenURI: d.text("token_uri")}
	if u, err := url.Parse(a.tokenURI); a.email == "" || err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		return a, bad
	}
	a.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256,
		Key: jose.JSONWebKey{Key: private, KeyID: d.text("private_key_id")}}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return a, bad
	}
	return a, nil
}

func (g *gcp) open(e env, credentials []secret.Bytes) (service, error) {
	account, err := parseServiceAccount(credentials[0])
	if err != nil {
		return nil, err
	}
	c, err := newCaller(e, g.Roots)
	if err != nil {
		return nil, err
	}
	// A JWT in place of a client's secret (RFC 7523).
	login := newBearer(c, e.now, account.tokenURI, func() (url.Values, error) {
		now := e.now()
		assertion, err := jwt.Signed(account.signer).Claims(map[string]any{
			"iss": account.email, "scope": gcpScope, "aud": account.tokenURI, "iat": now.Unix(), "exp": now.Add(longestToken).Unix(),
		}).Serialize()
		if err != nil {
			return nil, fault.Newf(fault.Unauthenticated, "the service account's key does not sign")
		}
		return url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {assertion}}, nil
	})
	return &gcpClient{gcp: g, bearer: login}, nil
}

type gcpClient struct {
	*gcp
	*bearer
}

func (c *gcpClient) close() {
	c.bearer.close()
	c.caller.close()
}

func judgeGCP(_ int, body []byte) (fault.Code, string) {
	var said struct {
		Error struct {
			Status string `json:"status"`
		} `json:"error"`
	}
	_ = json.Unmarshal(body, &said) // it may be anything
	if said.Error.Status == "FAILED_PRECONDITION" {
		return fault.Forbidden, said.Error.Status // the key or the version is disabled or destroyed
	}
	return "", said.Error.Status
}

// intact compares the checksum that comes with a value, if one does.
func intact(value []byte, sum string) bool {
	if sum == "" {
		return true
	}
	n, err := strconv.ParseInt(sum, 10, 64)
	return err == nil && n == int64(crc32.Checksum(value, crc32.MakeTable(crc32.Castagnoli)))
}

func (c *gcpClient) secret(ctx context.Context, name string, annotations map[string]any) (secret.Bytes, error) {
	if err := annotated(annotations, &struct{}{}); err != nil {
		return secret.Bytes{}, err
	}
	if !gcpSecret.fits(name) {
		return secret.Bytes{}, fault.New(fault.SealedInvalid, errors.New("name: want projects/P/secrets/S[/versions/V]"))
	}
	if !gcpLatest.MatchString(name) {
		name += "/versions/latest"
	}
	var out struct {
		Payload struct {
			Data []byte `json:"data"`
			Sum  string `json:"dataCrc32c"`
		} `json:"payload"`
	}
	if err := c.json(ctx, "Google", c.at("https://secretmanager.googleapis.com")+"/v1/"+name+":access", nil, &out, judgeGCP); err != nil {
		return secret.Bytes{}, err
	}
	if !intact(out.Payload.Data, out.Payload.Sum) {
		return secret.Bytes{}, malformed("Google")
	}
	return plaintext("Google", out.Payload.Data)
}

// gcpAAD is what an envelope's key is bound to beside its key.
type gcpAAD struct {
	AAD string `json:"additional_authenticated_data"` // base64
}

func (c *gcpClient) key(keyID, verb string) (string, error) {
	if !gcpKey.fits(keyID) {
		return "", fault.New(fault.SealedInvalid, errors.New("key_id: want projects/P/locations/L/keyRings/R/cryptoKeys/K"))
	}
	return c.at("https://cloudkms.googleapis.com") + "/v1/" + keyID + ":" + verb, nil
}

func (c *gcpClient) decrypt(ctx context.Context, keyID string, wrapped []byte, annotations map[string]any) (secret.Bytes, error) {
	var a gcpAAD
	if err := annotated(annotations, &a); err != nil {
		return secret.Bytes{}, err
	}
	to, err := c.key(keyID, "decrypt")
	if err != nil {
		return secret.Bytes{}, err
	}
	in := map[string]string{"ciphertext": base64.StdEncoding.EncodeToString(wrapped)}
	if a.AAD != "" {
		in["additionalAuthenticatedData"] = a.AAD
	}
	var out struct {
		Plaintext []byte `json:"plaintext"`
		Sum       string `json:"plaintextCrc32c"`
	}
	if err := c.json(ctx, "Google", to, in, &out, judgeGCP); err != nil {
		return secret.Bytes{}, err
	}
	if !intact(out.Plaintext, out.Sum) {
		return secret.Bytes{}, malformed("Google")
	}
	return plaintext("Google", out.Plaintext)
}

func (c *gcpClient) encrypt(ctx context.Context, keyID string, key secret.Bytes) (Wrapped, error) {
	to, err := c.key(keyID, "encrypt")
	if err != nil {
		return Wrapped{}, err
	}
	var out struct {
		Ciphertext []byte `json:"ciphertext"`
	}
	if err := c.json(ctx, "Google", to, map[string][]byte{"plaintext": key.Reveal()}, &out, judgeGCP); err != nil {
		return Wrapped{}, err
	}
	return wrapped("Google", keyID, out.Ciphertext, nil)
}
