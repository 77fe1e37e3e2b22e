// Package opener decrypts with one RSA key pair of a token for the process that
// holds the other ends of two pipes: kbsctl, which has no cgo and so cannot load
// a token's library (ADR 49). The protocol is kbs/api/tokenkey.
package opener

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io"

	"github.com/vouchsafe-cc/vouchsafe/kbs-pkcs11/internal/token"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api/tokenkey"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// A Token is what the opener needs of one.
type Token interface {
	PublicKey(ctx context.Context, p token.Pair) (*rsa.PublicKey, error)
	UnwrapKey(ctx context.Context, p token.Pair, wrapped []byte) (secret.Bytes, error)
	Close() error
}

// Serve reads which key is wanted, has open log in at its token, and decrypts
// until in ends. That a key cannot be had is told to the other side, and is the
// error too.
func Serve(ctx context.Context, in io.Reader, out io.Writer, open func(tokenkey.Open) (Token, error)) error {
	r := tokenkey.NewReader(in)
	var which tokenkey.Open
	if err := tokenkey.Receive(r, &which); err != nil {
		return fmt.Errorf("which key: %w", err)
	}
	pair := token.Pair{Label: which.Object, ID: string(which.ID)}
	tok, public, err := begin(ctx, which, pair, open)
	if err != nil {
		return errors.Join(err, tokenkey.Send(out, tokenkey.Opened{Error: err.Error()}))
	}
	defer func() { _ = tok.Close() }()
	if err := tokenkey.Send(out, tokenkey.Opened{Public: public}); err != nil {
		return err
	}
	for {
		var q tokenkey.Decrypt
		if err := tokenkey.Receive(r, &q); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := answer(ctx, out, tok, pair, q); err != nil {
			return err
		}
	}
}

func begin(ctx context.Context, which tokenkey.Open, p token.Pair, open func(tokenkey.Open) (Token, error)) (Token, []byte, error) {
	if which.Module == "" || which.Token == "" || p.Label == "" && p.ID == "" {
		return nil, nil, errors.New("a module, a token and a key are needed")
	}
	tok, err := open(which)
	if err != nil {
		return nil, nil, err
	}
	var der []byte
	key, err := tok.PublicKey(ctx, p)
	if err == nil {
		der, err = x509.MarshalPKIXPublicKey(key)
	}
	if err != nil {
		return nil, nil, errors.Join(err, tok.Close())
	}
	return tok, der, nil
}

func answer(ctx context.Context, out io.Writer, tok Token, p token.Pair, q tokenkey.Decrypt) error {
	paddings := map[string]token.Padding{tokenkey.SHA1: token.OAEPSHA1, tokenkey.SHA256: token.OAEP}
	padding, ok := paddings[q.Hash]
	if !ok {
		return tokenkey.Send(out, tokenkey.Decrypted{Error: fmt.Sprintf("OAEP with %.20q is not supported", q.Hash)})
	}
	p.Padding = padding
	plain, err := tok.UnwrapKey(ctx, p, q.Sealed)
	if err != nil {
		return tokenkey.Send(out, tokenkey.Decrypted{Error: err.Error()})
	}
	defer plain.Destroy()
	return tokenkey.Send(out, tokenkey.Decrypted{Plain: plain.Reveal()})
}
