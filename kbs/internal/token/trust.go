package token

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/jwks"
)

// TrustConfig says whose tokens are accepted beside our own (kbs-protocol
// 5.2).
type TrustConfig struct {
	Certificates []string // PEM files: authorities, or leaves themselves
	KeySets      []string // file://, a path or https://
	TEEKeys      []string // further pointers to the guest's key, tried first
	// InsecureHeaderJWK accepts whatever key a token brings along: anybody can
	// then make a token. It exists because the field's sample configurations
	// use it.
	InsecureHeaderJWK bool

	HTTP   *http.Client // nil: one with limits
	Now    func() time.Time
	Logger *slog.Logger
}

// Trust is the issuers that the configuration names. What they publish is read
// again while it is used. It is safe for concurrent use.
type Trust struct {
	sets     []*jwks.Set
	anchors  *anchors
	insecure bool
	teeKeys  []string
	now      func() time.Time
}

// NewTrust returns nil if nobody is named. Files must be readable now; what is
// elsewhere may be down while a broker starts.
func NewTrust(ctx context.Context, c TrustConfig) (*Trust, error) {
	t := &Trust{insecure: c.InsecureHeaderJWK, teeKeys: append(slices.Clone(c.TEEKeys), fieldTEEKeys...), now: c.Now}
	for _, uri := range c.KeySets {
		set, err := jwks.New(jwks.Config{URI: uri, HTTP: c.HTTP, Now: c.Now, Logger: c.Logger})
		if err != nil {
			return nil, err
		}
		if _, err := set.Find(ctx, "-"); err != nil && !errors.Is(err, jwks.ErrNoKey) && !strings.HasPrefix(uri, "http") {
			return nil, err
		}
		t.sets = append(t.sets, set)
	}
	if len(c.Certificates) > 0 {
		var err error
		if t.anchors, err = newAnchors(c.Certificates, c.Now, c.Logger); err != nil {
			return nil, err
		}
	}
	if len(t.sets) == 0 && t.anchors == nil && !t.insecure {
		return nil, nil
	}
	return t, nil
}

// verify accepts a token that a trusted key signed, and returns a function
// that tells whether it would be trusted again.
func (t *Trust) verify(ctx context.Context, c compact) (func(context.Context) bool, error) {
	alg := jose.SignatureAlgorithm(c.header.Algorithm)
	if !slices.Contains(jwks.Accepted(), alg) {
		return nil, fmt.Errorf("signed with %.16q", c.header.Algorithm)
	}
	for _, set := range t.sets {
		for _, k := range named(ctx, set, c.header.KeyID) {
			if k.Algorithm == string(alg) && len(jwks.Algorithms(k)) > 0 && c.verify(k.Key) == nil {
				return func(ctx context.Context) bool {
					return slices.ContainsFunc(named(ctx, set, k.KeyID), func(x jose.JSONWebKey) bool { return same(x.Key, k.Key) })
				}, nil
			}
		}
	}
	if len(c.header.JWK) == 0 {
		return nil, fmt.Errorf("no trusted issuer has the key %.64q", c.header.KeyID)
	}
	k, chain, err := headerKey(c.header.JWK)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(jwks.Algorithms(k), alg) {
		return nil, fmt.Errorf("the key in the header cannot sign with %.16q", c.header.Algorithm)
	}
	if err := c.verify(k.Key); err != nil {
		return nil, err
	}
	if t.insecure {
		return func(context.Context) bool { return true }, nil
	}
	endorsed := func(context.Context) bool { return t.anchors != nil && t.anchors.endorse(k, chain) == nil }
	if t.anchors == nil {
		return nil, errors.New("the key in the header is endorsed by nobody")
	}
	return endorsed, t.anchors.endorse(k, chain)
}

// named returns the keys that a set has under exactly this id, with their
// algorithm: a key that fits every header would be one too many.
func named(ctx context.Context, set *jwks.Set, kid string) []jose.JSONWebKey {
	if kid == "" {
		return nil
	}
	all, err := set.Find(ctx, kid)
	if err != nil {
		return nil // the set has logged it
	}
	return slices.DeleteFunc(slices.Clone(all), func(k jose.JSONWebKey) bool { return k.KeyID != kid || k.Algorithm == "" })
}

func same(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

// headerKey reads the jwk of a JOSE header with the chain that endorses it. Its
// certificates may be in either alphabet (kbs-protocol 0).
func headerKey(raw json.RawMessage) (jose.JSONWebKey, []*x509.Certificate, error) {
	var k jose.JSONWebKey
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil {
		return k, nil, fmt.Errorf("jwk: %w", err)
	}
	var encoded []string
	if x5c, ok := members["x5c"]; ok {
		if err := json.Unmarshal(x5c, &encoded); err != nil {
			return k, nil, fmt.Errorf("x5c: %w", err)
		}
	}
	if len(encoded) > maxChain {
		return k, nil, fmt.Errorf("x5c: more than %d certificates", maxChain)
	}
	for _, name := range []string{"x5c", "x5u", "x5t", "x5t#S256"} {
		delete(members, name)
	}
	bare, err := json.Marshal(members)
	if err != nil {
		return k, nil, fmt.Errorf("jwk: %w", err)
	}
	if err := k.UnmarshalJSON(bare); err != nil {
		return k, nil, fmt.Errorf("jwk: %w", err)
	}
	if !k.IsPublic() || len(jwks.Algorithms(k)) == 0 {
		return k, nil, errors.New("jwk: it cannot verify a signature")
	}
	var chain []*x509.Certificate
	for _, text := range encoded {
		der, err := anyBase64(text)
		if err != nil {
			return k, nil, fmt.Errorf("x5c: %w", err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return k, nil, fmt.Errorf("x5c: %w", err)
		}
		chain = append(chain, cert)
	}
	return k, chain, nil
}

func anyBase64(text string) ([]byte, error) {
	text = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(text, "="))
	return base64.RawStdEncoding.DecodeString(text)
}
