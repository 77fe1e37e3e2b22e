package tokenkey

import (
	"context"
	"crypto"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"

	wire "github.com/vouchsafe-cc/vouchsafe/kbs/api/tokenkey"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// A Key decrypts with a private key that stays in its token. It is a
// [crypto.Decrypter] for RSA-OAEP with SHA-1 or SHA-256 and no label; everything
// else is refused. It is safe for concurrent use: questions take turns.
type Key struct {
	*talk
	public *rsa.PublicKey
}

// Open starts the program, which logs in at the token once with the PIN, and
// learns the public key. The program ends with ctx or Close, whichever is first,
// and what it says of itself goes to stderr.
func Open(ctx context.Context, program string, u URI, pin secret.Bytes, stderr io.Writer) (*Key, error) {
	t, key, err := start(ctx, program, u, wire.ToDecrypt, pin, stderr)
	if err != nil {
		return nil, err
	}
	public, ok := key.(*rsa.PublicKey)
	if !ok {
		_ = t.Close() // there was nothing to do
		return nil, fmt.Errorf("%s: a key of type %T, want RSA", u, key)
	}
	return &Key{t, public}, nil
}

// Public returns the public key.
func (k *Key) Public() crypto.PublicKey { return k.public }

// Decrypt has the token open what was sealed under the public key. opts is an
// [*rsa.OAEPOptions].
func (k *Key) Decrypt(_ io.Reader, sealed []byte, opts crypto.DecrypterOpts) ([]byte, error) {
	oaep, ok := opts.(*rsa.OAEPOptions)
	if !ok || len(oaep.Label) > 0 || oaep.MGFHash != 0 && oaep.MGFHash != oaep.Hash {
		return nil, errors.New("a token's key is used for OAEP without a label alone")
	}
	hashes := map[crypto.Hash]string{crypto.SHA1: wire.SHA1, crypto.SHA256: wire.SHA256}
	name, ok := hashes[oaep.Hash]
	if !ok {
		return nil, fmt.Errorf("a token's key is not used for OAEP with %v", oaep.Hash)
	}
	if len(sealed) != k.public.Size() { // a longer one would end the conversation
		return nil, fmt.Errorf("%s: what is sealed has %d bytes, want %d", k.uri, len(sealed), k.public.Size())
	}
	var answer wire.Decrypted
	if err := k.ask(wire.Decrypt{Hash: name, Sealed: sealed}, &answer); err != nil {
		return nil, err
	}
	if answer.Error != "" {
		return nil, k.refusal(answer.Error)
	}
	return answer.Plain, nil
}
