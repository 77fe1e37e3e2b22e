// Package token writes and reads attestation result tokens: an EAR in a JWT
// signed with ES256 (kbs-protocol 10).
//
// A broker trusts only the tokens that it signed itself. The key in a token's
// header is for relying parties elsewhere; it is never used to verify.
package token

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// Constants of the payload (kbs-protocol 10).
const (
	// Profile is the eat_profile that the field's relying parties know.
	Profile = "tag:github.com,2024:confidential-containers/Trustee"
	// CPU is the name of the submod of the primary evidence.
	CPU = "cpu0"
	// SimulatedRoot is the member of a submod that rests on a simulated root.
	SimulatedRoot = "ear.vouchsafe.simulated-root"

	memberStatus   = "ear.status"
	memberVector   = "ear.trustworthiness-vector"
	memberPolicy   = "ear.appraisal-policy-id"
	memberEvidence = "ear.veraison.annotated-evidence"
)

// MaxSize limits a token that is read, in bytes. Tokens with several devices
// reach 170 KiB (kbs-protocol 20).
const MaxSize = 512 << 10

// ErrInvalid says that a token is not one of ours, or no longer valid.
var ErrInvalid = errors.New("token: invalid")

// Submod is the appraisal of one attester.
type Submod struct {
	Vector     Vector
	PolicyID   string         // the requested id, without class suffix
	Evidence   map[string]any // annotated evidence
	Extensions map[string]any // further members; they cannot replace those above
}

// MarshalJSON writes the appraisal with its status.
func (s Submod) MarshalJSON() ([]byte, error) {
	m := make(map[string]any, len(s.Extensions)+4)
	for k, v := range s.Extensions {
		m[k] = v
	}
	m[memberStatus] = s.Vector.Status()
	m[memberVector] = s.Vector
	m[memberPolicy] = s.PolicyID
	m[memberEvidence] = s.Evidence
	return json.Marshal(m)
}

// Reserved reports whether an extension may not have this name.
func Reserved(name string) bool {
	switch name {
	case memberStatus, memberVector, memberPolicy, memberEvidence, SimulatedRoot:
		return true
	}
	return false
}

// payload is the EAR. Field order is that of the specification's example.
type payload struct {
	Profile  string            `json:"eat_profile"`
	IssuedAt int64             `json:"iat"`
	Expires  int64             `json:"exp"`
	Issuer   string            `json:"iss"`
	ID       string            `json:"jti"`
	Verifier map[string]string `json:"ear.verifier-id"`
	Submods  map[string]Submod `json:"submods"`
}

// Config describes an issuer.
type Config struct {
	Key         *ecdsa.PrivateKey // P-256
	Certificate *x509.Certificate // of Key, shown as x5c
	Issuer      string
	Developer   string
	Build       string
	Lifetime    time.Duration
	Now         func() time.Time
}

// Issuer signs tokens and verifies its own. It is safe for concurrent use.
type Issuer struct {
	cfg    Config
	kid    string
	signer jose.Signer
}

// NewIssuer checks the configuration and returns an issuer.
func NewIssuer(cfg Config) (*Issuer, error) {
	switch {
	case cfg.Key == nil || cfg.Key.Curve.Params().Name != "P-256":
		return nil, errors.New("token: the signing key must be on P-256")
	case cfg.Certificate == nil || !cfg.Key.PublicKey.Equal(cfg.Certificate.PublicKey):
		return nil, errors.New("token: the certificate is not that of the signing key")
	case cfg.Lifetime <= 0 || cfg.Issuer == "" || cfg.Now == nil:
		return nil, errors.New("token: issuer, lifetime and clock must be set")
	}
	sum := sha256.Sum256(cfg.Certificate.RawSubjectPublicKeyInfo)
	kid := base64.RawURLEncoding.EncodeToString(sum[:])
	jwk := jose.JSONWebKey{Key: &cfg.Key.PublicKey, Algorithm: "ES256", Certificates: []*x509.Certificate{cfg.Certificate}}
	opts := (&jose.SignerOptions{}).WithType("JWT").WithHeader("kid", kid).WithHeader("jwk", jwk)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: cfg.Key}, opts)
	if err != nil {
		return nil, fmt.Errorf("token signer: %w", err)
	}
	return &Issuer{cfg: cfg, kid: kid, signer: signer}, nil
}

// KeyID names the signing key.
func (i *Issuer) KeyID() string { return i.kid }

// Issue signs a token under the given id and returns it with its expiry.
func (i *Issuer) Issue(id string, submods map[string]Submod) (string, time.Time, error) {
	now := i.cfg.Now().UTC().Truncate(time.Second)
	exp := now.Add(i.cfg.Lifetime)
	raw, err := json.Marshal(payload{
		Profile: Profile, IssuedAt: now.Unix(), Expires: exp.Unix(), Issuer: i.cfg.Issuer, ID: id,
		Verifier: map[string]string{"developer": i.cfg.Developer, "build": i.cfg.Build},
		Submods:  submods,
	})
	if err != nil {
		return "", time.Time{}, fmt.Errorf("encode token: %w", err)
	}
	jws, err := i.signer.Sign(raw)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("sign token: %w", err)
	}
	text, err := jws.CompactSerialize()
	return text, exp, err
}

// Claims are those of a verified token.
type Claims struct {
	ID      string
	Expires time.Time
	Raw     json.RawMessage // the complete payload, which resource policies read
	Submods map[string]AppraisalClaims
}

// AppraisalClaims are the members of a submod that the broker itself reads.
type AppraisalClaims struct {
	Status   Status          `json:"ear.status"`
	PolicyID string          `json:"ear.appraisal-policy-id"`
	Evidence json.RawMessage `json:"ear.veraison.annotated-evidence"`
}

// TEEKey returns the guest's public key (kbs-protocol 5.2).
func (c Claims) TEEKey() (api.JWK, error) {
	var evidence struct {
		RuntimeData struct {
			Key api.JWK `json:"tee-pubkey"`
		} `json:"runtime_data_claims"`
	}
	if err := json.Unmarshal(c.Submods[CPU].Evidence, &evidence); err != nil {
		return api.JWK{}, fmt.Errorf("token evidence: %w", err)
	}
	if evidence.RuntimeData.Key.Kty == "" {
		return api.JWK{}, errors.New("token has no tee-pubkey")
	}
	return evidence.RuntimeData.Key, nil
}

// Verify accepts a token that this issuer signed and that has not expired. The
// error is ErrInvalid with a reason for the operator.
func (i *Issuer) Verify(text string) (Claims, error) {
	if len(text) > MaxSize {
		return Claims{}, fmt.Errorf("%w: larger than %d bytes", ErrInvalid, MaxSize)
	}
	jws, err := jose.ParseSignedCompact(text, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return Claims{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	// The key is always our own, whatever the header offers.
	header := jws.Signatures[0].Protected
	if header.KeyID != i.kid {
		return Claims{}, fmt.Errorf("%w: signed under another key", ErrInvalid)
	}
	raw, err := jws.Verify(&i.cfg.Key.PublicKey)
	if err != nil {
		return Claims{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	var p struct {
		Issuer   string                     `json:"iss"`
		Expires  *int64                     `json:"exp"`
		IssuedAt int64                      `json:"iat"`
		ID       string                     `json:"jti"`
		Submods  map[string]AppraisalClaims `json:"submods"`
	}
	if err := json.Unmarshal(raw, &p); err != nil {
		return Claims{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	now := i.cfg.Now()
	switch {
	case p.Issuer != i.cfg.Issuer:
		return Claims{}, fmt.Errorf("%w: issuer %q", ErrInvalid, p.Issuer)
	case p.Expires == nil:
		return Claims{}, fmt.Errorf("%w: no expiry", ErrInvalid)
	case !now.Before(time.Unix(*p.Expires, 0)):
		return Claims{}, fmt.Errorf("%w: expired", ErrInvalid)
	case now.Before(time.Unix(p.IssuedAt, 0)):
		return Claims{}, fmt.Errorf("%w: issued in the future", ErrInvalid)
	}
	return Claims{ID: p.ID, Expires: time.Unix(*p.Expires, 0), Raw: raw, Submods: p.Submods}, nil
}
