package ship

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/image/trust"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// A SignForm is how a signature is written.
type SignForm string

// SignTag is cosign's first form, simple signing under a tag, which every
// verifier of the field reads. SignBundle is a bundle of version 0.3 among the
// image's referrers, which cosign 3 writes and looks for first. SignNotation is
// a JWS of the Notary Project, also among them.
const (
	SignTag      SignForm = "tag"
	SignBundle   SignForm = "bundle"
	SignNotation SignForm = "notation"
)

// SignForms are all forms, in the order in which they are written.
func SignForms() []SignForm { return []SignForm{SignBundle, SignNotation, SignTag} }

// SignOptions say how an image is signed.
type SignOptions struct {
	// Forms are those of the signatures; none: SignTag and SignBundle, so that old
	// verifiers and new ones find what they look for.
	Forms []SignForm
	// Annotations are signed too: a policy can ask for them, for example for a
	// version that is not below a floor.
	Annotations map[string]string
	// Certificates are for SignNotation: PEM, that of the key first, then those above
	// it, with the root.
	Certificates []byte
	Time         func() time.Time // when it is signed, for SignNotation; nil: now
	Registry     registry.Config
}

// SignResult says what was signed and where the signatures lie.
type SignResult struct {
	Digest     string             `json:"digest"` // that was signed: the index of a multi-platform image
	Key        string             `json:"key"`    // fingerprint of the public key
	Signatures []WrittenSignature `json:"signatures"`
}

// WrittenSignature is one signature in the registry.
type WrittenSignature struct {
	Form      SignForm `json:"form"`
	Reference string   `json:"reference"`
}

// Sign signs what ref points to with a PEM PKCS#8 key and pushes the signature
// in each of the forms. Signatures that are there already stay, and to sign
// again as before changes nothing (but in the form of Notation, which signs the
// time and at random). Two signers at the same moment may overwrite each other's
// entries, for registries cannot compare and swap a tag.
func Sign(ctx context.Context, ref string, key secret.Bytes, o SignOptions) (SignResult, error) {
	signer, err := ParsePrivateKey(key)
	if err != nil {
		return SignResult{}, err
	}
	return SignWith(ctx, ref, signer, o)
}

// SignWith is [Sign] with a key that may be elsewhere, for example in a token: RSA
// that signs with PKCS#1 v1.5, and for the form of Notation with RSASSA-PSS and a
// salt as long as the hash; ECDSA; or Ed25519, but for Notation. ECDSA that takes
// randomness signs anew each time.
func SignWith(ctx context.Context, ref string, signer crypto.Signer, o SignOptions) (SignResult, error) {
	s, err := newSigning(ref, signer, o)
	if err != nil {
		return SignResult{}, err
	}
	root, err := s.at.source.Manifest(ctx, s.at.version)
	if err != nil {
		return SignResult{}, err
	}
	done := SignResult{Digest: root.Digest.String(), Key: s.fingerprint}
	write := map[SignForm]func(context.Context, registry.Manifest) (string, error){
		SignTag: s.tag, SignBundle: s.bundle, SignNotation: s.notation,
	}
	for _, form := range SignForms() {
		if !slices.Contains(s.o.Forms, form) {
			continue
		}
		where, err := write[form](ctx, root)
		if err != nil {
			return done, fmt.Errorf("signature of the form %s: %w", form, err)
		}
		done.Signatures = append(done.Signatures, WrittenSignature{Form: form, Reference: where})
	}
	return done, nil
}

// A signing is what all forms need.
type signing struct {
	o           SignOptions
	at          *place
	signer      crypto.Signer
	fingerprint string
}

// newSigning refuses what cannot be written before anything is.
func newSigning(ref string, signer crypto.Signer, o SignOptions) (*signing, error) {
	if len(o.Forms) == 0 {
		o.Forms = []SignForm{SignTag, SignBundle}
	}
	for _, f := range o.Forms {
		if !slices.Contains(SignForms(), f) {
			return nil, fmt.Errorf("there is no signature of the form %.40q", f)
		}
	}
	notation := slices.Contains(o.Forms, SignNotation)
	if notation != (len(o.Certificates) > 0) {
		return nil, errors.New("the form notation needs certificates, and no other form uses any")
	}
	if notation {
		if _, err := newNotary(signer, o.Certificates); err != nil {
			return nil, err
		}
	}
	if _, _, ok := registry.ParseLayout(ref); ok {
		return nil, errNoRegistry
	}
	client, err := registry.NewClient(o.Registry)
	if err != nil {
		return nil, err
	}
	at, err := openPlace(client, ref, toChange)
	if err != nil {
		return nil, err
	}
	fingerprint, err := trust.Fingerprint(signer.Public())
	return &signing{o: o, at: at, signer: signer, fingerprint: fingerprint}, err
}
