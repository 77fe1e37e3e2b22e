// Package opener decrypts or signs with one key pair of a token for the process that
// holds the other ends of two pipes: kbsctl, which has no cgo and so cannot load
// a token's library (ADR 49). The protocol is kbs/api/tokenkey.
package opener

import (
	"bufio"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io"

	"github.com/vouchsafe-cc/vouchsafe/kbs-pkcs11/internal/token"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api/tokenkey"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// ErrTold says that the other side was told why, and will tell whoever asked it.
var ErrTold = errors.New("told")

// A Token is what the opener needs of one.
type Token interface {
	PublicKey(ctx context.Context, p token.Pair) (*rsa.PublicKey, error)
	UnwrapKey(ctx context.Context, p token.Pair, wrapped []byte) (secret.Bytes, error)
	Signer(ctx context.Context, p token.Pair) (token.Signer, error)
	Sign(ctx context.Context, k token.Signer, opts crypto.SignerOpts, in []byte) ([]byte, error)
	Close() error
}

// A user does what a key was opened for.
type user interface {
	public() crypto.PublicKey
	// answer reads one question and answers it; io.EOF says that there is none.
	answer(ctx context.Context, in *bufio.Reader, out io.Writer) error
}

// Serve reads which key is wanted and what for, has open log in at its token, and
// answers until in or ctx ends. That a key cannot be had is told to the other side, and
// is the error too, an [ErrTold]. If ctx ends, a goroutine may stay behind that reads in.
func Serve(ctx context.Context, in io.Reader, out io.Writer, open func(tokenkey.Open) (Token, error)) error {
	r := tokenkey.NewReader(until{ctx, in})
	var which tokenkey.Open
	if err := tokenkey.Receive(r, &which); err != nil {
		return fmt.Errorf("which key: %w", err)
	}
	defer clear(which.PIN)
	tok, u, public, err := begin(ctx, which, open)
	if err != nil {
		if serr := tokenkey.Send(out, tokenkey.Opened{Error: err.Error()}); serr != nil {
			return errors.Join(err, serr)
		}
		return fmt.Errorf("%w: %w", ErrTold, err)
	}
	defer func() { _ = tok.Close() }()
	if err := tokenkey.Send(out, tokenkey.Opened{Public: public}); err != nil {
		return err
	}
	for {
		if err := u.answer(ctx, r, out); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func begin(ctx context.Context, which tokenkey.Open, open func(tokenkey.Open) (Token, error)) (Token, user, []byte, error) {
	p := token.Pair{Label: which.Object, ID: string(which.ID)}
	if which.Module == "" || which.Which == (tokenkey.Which{}) || p.Label == "" && p.ID == "" {
		return nil, nil, nil, errors.New("a module, a token and a key are needed")
	}
	use, ok := map[string]func(context.Context, Token, token.Pair) (user, error){tokenkey.ToDecrypt: toDecrypt, tokenkey.ToSign: toSign}[which.Use]
	if !ok {
		return nil, nil, nil, fmt.Errorf("a key is for %s or %s, not for %.20q", tokenkey.ToDecrypt, tokenkey.ToSign, which.Use)
	}
	tok, err := open(which)
	if err != nil {
		return nil, nil, nil, err
	}
	var der []byte
	u, err := use(ctx, tok, p)
	if err == nil {
		der, err = x509.MarshalPKIXPublicKey(u.public())
	}
	if err != nil {
		return nil, nil, nil, errors.Join(err, tok.Close())
	}
	return tok, u, der, nil
}

// until is a reader whose Read ends with ctx: that of a pipe waits for whoever
// holds the other end.
type until struct {
	ctx context.Context //nolint:containedctx // an io.Reader takes none
	in  io.Reader
}

// Read leaves p to a read that goes on when ctx has ended; nobody looks at p then.
func (u until) Read(p []byte) (n int, err error) {
	type result struct {
		n   int
		err error
	}
	done := make(chan result, 1)
	go func() {
		n, err := u.in.Read(p)
		done <- result{n, err}
	}()
	select {
	case r := <-done:
		return r.n, r.err
	case <-u.ctx.Done():
		return 0, u.ctx.Err()
	}
}

// decrypter opens what was sealed under the public key.
type decrypter struct {
	tok  Token
	pair token.Pair
	key  *rsa.PublicKey
}

func toDecrypt(ctx context.Context, tok Token, p token.Pair) (user, error) {
	key, err := tok.PublicKey(ctx, p)
	return &decrypter{tok, p, key}, err
}

func (d *decrypter) public() crypto.PublicKey { return d.key }

func (d *decrypter) answer(ctx context.Context, in *bufio.Reader, out io.Writer) error {
	var q tokenkey.Decrypt
	if err := tokenkey.Receive(in, &q); err != nil {
		return err
	}
	padding, ok := map[string]token.Padding{tokenkey.SHA1: token.OAEPSHA1, tokenkey.SHA256: token.OAEP}[q.Hash]
	if !ok {
		return tokenkey.Send(out, tokenkey.Decrypted{Error: fmt.Sprintf("OAEP with %.20q is not supported", q.Hash)})
	}
	p := d.pair
	p.Padding = padding
	plain, err := d.tok.UnwrapKey(ctx, p, q.Sealed)
	if err != nil {
		return tokenkey.Send(out, tokenkey.Decrypted{Error: err.Error()})
	}
	defer plain.Destroy()
	return tokenkey.Send(out, tokenkey.Decrypted{Plain: plain.Reveal()})
}

// signer signs digests, and messages if its key is of Ed25519.
type signer struct {
	tok Token
	key token.Signer
}

func toSign(ctx context.Context, tok Token, p token.Pair) (user, error) {
	key, err := tok.Signer(ctx, p)
	return &signer{tok, key}, err
}

func (s *signer) public() crypto.PublicKey { return s.key.Public() }

func (s *signer) answer(ctx context.Context, in *bufio.Reader, out io.Writer) error {
	var q tokenkey.Sign
	if err := tokenkey.Receive(in, &q); err != nil {
		return err
	}
	opts, input, err := asked(q)
	if err != nil {
		return tokenkey.Send(out, tokenkey.Signed{Error: err.Error()})
	}
	sig, err := s.tok.Sign(ctx, s.key, opts, input)
	if err != nil {
		return tokenkey.Send(out, tokenkey.Signed{Error: err.Error()})
	}
	return tokenkey.Send(out, tokenkey.Signed{Signature: sig})
}

// asked is what a question means; whether the key can do that, the token says.
func asked(q tokenkey.Sign) (opts crypto.SignerOpts, input []byte, err error) {
	if len(q.Message) > 0 {
		if q.Hash != "" || len(q.Digest) > 0 || q.PSS {
			return nil, nil, errors.New("a message is signed or a digest, not both")
		}
		return crypto.Hash(0), q.Message, nil
	}
	h, ok := map[string]crypto.Hash{tokenkey.SHA256: crypto.SHA256, tokenkey.SHA384: crypto.SHA384, tokenkey.SHA512: crypto.SHA512}[q.Hash]
	switch {
	case !ok:
		return nil, nil, fmt.Errorf("digests by %.20q are not signed", q.Hash)
	case q.PSS:
		return &rsa.PSSOptions{Hash: h, SaltLength: rsa.PSSSaltLengthEqualsHash}, q.Digest, nil
	}
	return h, q.Digest, nil
}
