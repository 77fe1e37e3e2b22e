package tokenkey

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"

	wire "github.com/vouchsafe-cc/vouchsafe/kbs/api/tokenkey"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// A Signer signs with a private key that stays in its token. It is a
// [crypto.Signer] of digests by SHA-2, with ECDSA or with RSA by PKCS#1 v1.5 or
// RSASSA-PSS with a salt as long as the digest, and of messages with Ed25519. It
// is safe for concurrent use: questions take turns.
type Signer struct {
	*talk
	public crypto.PublicKey
}

// OpenSigner is [Open] for a key that signs.
func OpenSigner(ctx context.Context, program string, u URI, pin secret.Bytes, stderr io.Writer) (*Signer, error) {
	t, key, err := start(ctx, program, u, wire.ToSign, pin, stderr)
	if err != nil {
		return nil, err
	}
	switch key.(type) {
	case *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey:
		return &Signer{t, key}, nil
	}
	_ = t.Close() // there was nothing to do
	return nil, fmt.Errorf("%s: a key of type %T, want RSA, ECDSA or Ed25519", u, key)
}

// Public returns the public key.
func (s *Signer) Public() crypto.PublicKey { return s.public }

// Sign has the token sign a digest, or with Ed25519 a message, and verifies what
// came back. Where randomness comes from is the token's affair.
func (s *Signer) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	q, err := s.question(digest, opts)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.uri, err)
	}
	var answer wire.Signed
	if err := s.ask(q, &answer); err != nil {
		return nil, err
	}
	if answer.Error != "" {
		return nil, s.refusal(answer.Error)
	}
	if !s.verifies(digest, opts, answer.Signature) {
		return nil, fmt.Errorf("%s: what came back is no signature of that key", s.uri)
	}
	return answer.Signature, nil
}

// question refuses what would end the conversation, or be signed as something else.
func (s *Signer) question(in []byte, opts crypto.SignerOpts) (wire.Sign, error) {
	if _, ok := s.public.(ed25519.PublicKey); ok {
		if opts != crypto.Hash(0) || len(in) == 0 || len(in) > wire.MaxMessage {
			return wire.Sign{}, fmt.Errorf("a key of Ed25519 in a token signs messages of 1 to %d bytes, this one has %d", wire.MaxMessage, len(in))
		}
		return wire.Sign{Message: in}, nil
	}
	h := opts.HashFunc()
	name, ok := map[crypto.Hash]string{crypto.SHA256: wire.SHA256, crypto.SHA384: wire.SHA384, crypto.SHA512: wire.SHA512}[h]
	if !ok || len(in) != h.Size() {
		return wire.Sign{}, fmt.Errorf("%d bytes are no digest by SHA-2", len(in))
	}
	pss, wanted := opts.(*rsa.PSSOptions)
	if _, ok := s.public.(*rsa.PublicKey); wanted && (!ok || pss.SaltLength != rsa.PSSSaltLengthEqualsHash && pss.SaltLength != h.Size()) {
		return wire.Sign{}, errors.New("PSS is for RSA keys, with a salt as long as the digest")
	}
	return wire.Sign{Hash: name, Digest: in, PSS: wanted}, nil
}

func (s *Signer) verifies(in []byte, opts crypto.SignerOpts, sig []byte) bool {
	switch key := s.public.(type) {
	case *rsa.PublicKey:
		if pss, ok := opts.(*rsa.PSSOptions); ok {
			return rsa.VerifyPSS(key, pss.HashFunc(), in, sig, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
		}
		return rsa.VerifyPKCS1v15(key, opts.HashFunc(), in, sig) == nil
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(key, in, sig)
	case ed25519.PublicKey:
		return ed25519.Verify(key, in, sig)
	}
	return false
}
