// Package sealed reads and writes sealed secrets: names of secrets, or secrets
// under a key management service's key, that the owner of a pod signs and puts
// where Kubernetes wants a secret's value. The host sees them and can do nothing
// with them; the agent in the guest opens them (guest-protocol 10).
//
// A sealed secret is "sealed." and a compact JWS (RFC 7515) with ES256, whose
// payload says where the value comes from. The signature keeps the host from
// putting a name of its own choice in the owner's place: without it, whoever
// writes a pod's environment could have any secret of the guest's delivered
// under any name.
package sealed

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/go-jose/go-jose/v4"

	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// Prefix is what every sealed secret starts with.
const Prefix = "sealed."

// MaxSize bounds a sealed secret in bytes: that of an object in Kubernetes.
const MaxSize = 1 << 20

// Types of sealed secrets.
const (
	Vault    = "vault"    // Name is that of a secret at the provider
	Envelope = "envelope" // EncryptedData under a key that the provider decrypts
)

// version is the one version there is.
const version = "0.1.0"

// Payload says where the value comes from (guest-protocol 10.2).
type Payload struct {
	Version  string `json:"version"`
	Type     string `json:"type"`
	Provider string `json:"provider"`
	// Name of the secret at the provider; of provider "kbs" a resource URI. Of
	// type vault.
	Name string `json:"name,omitempty"`
	// Envelope is of type envelope.
	*Envelopment
	// Settings and Annotations are the provider's.
	Settings    map[string]any `json:"provider_settings"`
	Annotations map[string]any `json:"annotations"`
}

// Is reports whether a text claims to be a sealed secret.
func Is(text string) bool { return strings.HasPrefix(text, Prefix) }

// Keys finds the public key of a key ID, as a JWK of P-256 (RFC 7517).
type Keys func(ctx context.Context, kid string) ([]byte, error)

// Object is what the secret is of: the key of an envelope, or the name.
func (p *Payload) Object() string {
	if p.Envelopment != nil {
		return p.KeyID
	}
	return p.Name
}

// Seal signs a payload of type vault for a secret by its name at a provider.
// kid tells guests where the public key is: a resource URI of the broker.
func Seal(provider, name, kid string, key *ecdsa.PrivateKey) (string, error) {
	return Sign(&Payload{Type: Vault, Provider: provider, Name: name}, kid, key)
}

// Sign signs a payload, and sees that it opens. Its version, and settings and
// annotations that are nil, are filled in.
func Sign(p *Payload, kid string, key *ecdsa.PrivateKey) (string, error) {
	switch {
	case key.Curve != elliptic.P256():
		return "", errors.New("seal: the key is not one of P-256")
	case p.Provider == "" || p.Object() == "" || kid == "":
		return "", errors.New("seal: provider, name and key ID are needed")
	}
	full := *p
	full.Version = version
	if full.Settings == nil {
		full.Settings = map[string]any{}
	}
	if full.Annotations == nil {
		full.Annotations = map[string]any{}
	}
	payload, err := json.Marshal(full)
	if err != nil {
		return "", err
	}
	if _, err := parse(payload); err != nil {
		return "", fmt.Errorf("seal: no guest would open it: %w", err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: kid}}, nil)
	if err != nil {
		return "", fmt.Errorf("seal: %w", err)
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		return "", fmt.Errorf("seal: %w", err)
	}
	text, err := jws.CompactSerialize()
	if err != nil {
		return "", fmt.Errorf("seal: %w", err)
	}
	if len(Prefix)+len(text) > MaxSize {
		return "", fmt.Errorf("seal: it would have %d bytes, at most %d are opened", len(Prefix)+len(text), MaxSize)
	}
	return Prefix + text, nil
}

// PublicJWK is what [Keys] is to find for a key.
func PublicJWK(key *ecdsa.PublicKey, kid string) ([]byte, error) {
	if key.Curve != elliptic.P256() {
		return nil, errors.New("the key is not one of P-256")
	}
	return json.Marshal(jose.JSONWebKey{Key: key, KeyID: kid, Algorithm: string(jose.ES256), Use: "sig"})
}

// Open verifies a sealed secret and returns what it says. White space around it
// is ignored: files end in a newline. The prefix may come several times, as
// the field's parser allows.
func Open(ctx context.Context, text string, keys Keys) (*Payload, error) {
	compact, err := strip(text)
	if err != nil {
		return nil, err
	}
	jws, err := jose.ParseSignedCompact(compact, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return nil, fmt.Errorf("sealed secret: not a JWS with ES256: %w", err)
	}
	kid := jws.Signatures[0].Protected.KeyID
	if kid == "" {
		return nil, errors.New("sealed secret: no key ID is signed")
	}
	raw, err := keys(ctx, kid)
	if err != nil {
		return nil, fmt.Errorf("sealed secret: key %.128q: %w", kid, err)
	}
	key, err := publicKey(raw)
	if err != nil {
		return nil, fmt.Errorf("sealed secret: key %.128q: %w", kid, err)
	}
	payload, err := jws.Verify(key)
	if err != nil {
		return nil, fmt.Errorf("sealed secret: key %.128q did not sign it", kid)
	}
	return parse(payload)
}

// UnsafeOpenUnsigned returns what a sealed secret says, whoever wrote it: header
// and signature may be any text.
func UnsafeOpenUnsigned(text string) (*Payload, error) {
	compact, err := strip(text)
	if err != nil {
		return nil, err
	}
	parts := strings.Split(compact, ".")
	if len(parts) != 3 {
		return nil, errors.New("sealed secret: want three parts after \"sealed\"")
	}
	payload, err := base64.RawURLEncoding.Strict().DecodeString(parts[1])
	if err != nil {
		return nil, errors.New("sealed secret: the payload is not base64url without padding")
	}
	return parse(payload)
}

func strip(text string) (string, error) {
	if len(text) > MaxSize {
		return "", fmt.Errorf("sealed secret: %d bytes, at most %d are allowed", len(text), MaxSize)
	}
	text = strings.TrimSpace(text)
	if !Is(text) {
		return "", errors.New("sealed secret: it does not start with \"sealed.\"")
	}
	for Is(text) {
		text = text[len(Prefix):]
	}
	return text, nil
}

func publicKey(raw []byte) (*ecdsa.PublicKey, error) {
	var jwk jose.JSONWebKey
	if err := json.Unmarshal(raw, &jwk); err != nil {
		return nil, errors.New("not a JWK")
	}
	key, ok := jwk.Key.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("not a public key of P-256")
	}
	return key, nil
}

// parse reads a payload. All members of its type must be there; what is not of
// its type is refused, for a reader of another opinion would act on it.
func parse(raw []byte) (*Payload, error) {
	members, err := strictjson.CheckedMembers(raw)
	if err != nil {
		return nil, fmt.Errorf("sealed secret: payload: %w", err)
	}
	p := new(Payload)
	for name, v := range map[string]any{
		"version": &p.Version, "type": &p.Type, "provider": &p.Provider,
		"provider_settings": &p.Settings, "annotations": &p.Annotations,
	} {
		if err := json.Unmarshal(members[name], v); err != nil {
			return nil, fmt.Errorf("sealed secret: payload: member %q is missing or wrong", name)
		}
	}
	switch {
	case p.Version != version:
		return nil, fmt.Errorf("sealed secret: version %.20q, want %q", p.Version, version)
	case p.Type == Envelope:
		p.Envelopment, err = parseEnvelopment(members)
		return p, err
	case p.Type != Vault:
		return nil, fmt.Errorf("sealed secret: type %.20q is neither %q nor %q", p.Type, Vault, Envelope)
	}
	if err := json.Unmarshal(members["name"], &p.Name); err != nil || p.Name == "" {
		return nil, errors.New("sealed secret: payload: no name")
	}
	return p, nil
}
