package tokenkey

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"fmt"
	"io"

	wire "github.com/vouchsafe-cc/vouchsafe/kbs/api/tokenkey"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// A Signer signs with a private key that stays in its token. It is a
// [crypto.Signer] of digests by SHA-2: ECDSA, or RSA with PKCS#1 v1.5. It is safe
// for concurrent use: questions take turns.
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
	case *rsa.PublicKey, *ecdsa.PublicKey:
		return &Signer{t, key}, nil
	}
	_ = t.Close() // there was nothing to do
	return nil, fmt.Errorf("%s: a key of type %T, want RSA or ECDSA", u, key)
}

// Public returns the public key.
func (s *Signer) Public() crypto.PublicKey { return s.public }

// Sign has the token sign a digest. Where randomness comes from is the token's
// affair.
func (s *Signer) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if _, pss := opts.(*rsa.PSSOptions); pss {
		return nil, fmt.Errorf("%s: a token's key signs with PKCS#1 v1.5, not PSS", s.uri)
	}
	name, ok := map[crypto.Hash]string{crypto.SHA256: wire.SHA256, crypto.SHA384: wire.SHA384, crypto.SHA512: wire.SHA512}[opts.HashFunc()]
	if !ok || len(digest) != opts.HashFunc().Size() {
		return nil, fmt.Errorf("%s: %d bytes are no digest by SHA-2", s.uri, len(digest))
	}
	var answer wire.Signed
	if err := s.ask(wire.Sign{Hash: name, Digest: digest}, &answer); err != nil {
		return nil, err
	}
	if answer.Error != "" {
		return nil, s.refusal(answer.Error)
	}
	return answer.Signature, nil
}
