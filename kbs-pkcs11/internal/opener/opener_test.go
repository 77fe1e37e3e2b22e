package opener

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/kbs-pkcs11/internal/token"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api/tokenkey"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// fake is a token that opens what begins with the name of the padding.
type fake struct {
	key    *rsa.PublicKey
	err    error
	closed bool
}

func (f *fake) PublicKey(context.Context, token.Pair) (*rsa.PublicKey, error) { return f.key, f.err }
func (f *fake) Signer(context.Context, token.Pair) (token.Signer, error) {
	return token.Signer{}, f.err
}
func (f *fake) Sign(context.Context, token.Signer, crypto.SignerOpts, []byte) ([]byte, error) {
	return nil, token.ErrAway
}
func (f *fake) Close() error { f.closed = true; return nil }

func (f *fake) UnwrapKey(_ context.Context, p token.Pair, wrapped []byte) (secret.Bytes, error) {
	rest, ok := bytes.CutPrefix(wrapped, []byte(p.Label+" "+p.ID+" "+string(p.Padding)+" "))
	if !ok {
		return secret.Bytes{}, token.ErrOpen
	}
	return secret.Copy(rest), nil
}

// conversation writes documents, and returns what was answered and how it ended.
func conversation(t *testing.T, tok *fake, questions ...any) (*strings.Reader, error) {
	t.Helper()
	var in, out bytes.Buffer
	for _, q := range questions {
		if text, ok := q.(string); ok {
			in.WriteString(text)
			continue
		}
		if err := tokenkey.Send(&in, q); err != nil {
			t.Fatal(err)
		}
	}
	err := Serve(t.Context(), &in, &out, func(tokenkey.Open) (Token, error) { return tok, nil })
	return strings.NewReader(out.String()), err
}

func TestServe(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	which := tokenkey.Open{Module: "m", Which: tokenkey.Which{Token: "t"}, Object: "o", ID: []byte("i"), Use: tokenkey.ToDecrypt, PIN: []byte("1234")}
	tok := &fake{key: &key.PublicKey}
	out, err := conversation(t, tok, which,
		tokenkey.Decrypt{Hash: tokenkey.SHA1, Sealed: []byte("o i RsaPkcsOaepSha1 one")},
		tokenkey.Decrypt{Hash: "md5", Sealed: []byte("o i RsaPkcsOaepSha1 two")},
		tokenkey.Decrypt{Hash: tokenkey.SHA256, Sealed: []byte("x")},
		tokenkey.Decrypt{Hash: tokenkey.SHA256, Sealed: []byte("o i RsaPkcsOaep four")})
	if err != nil || !tok.closed {
		t.Fatalf("%v, closed %v", err, tok.closed)
	}
	r := tokenkey.NewReader(out)
	var opened tokenkey.Opened
	if err := tokenkey.Receive(r, &opened); err != nil || len(opened.Public) == 0 || opened.Error != "" {
		t.Fatalf("%+v, %v", opened, err)
	}
	for i, want := range []tokenkey.Decrypted{{Plain: []byte("one")}, {Error: "not supported"}, {Error: "does not open"}, {Plain: []byte("four")}} {
		var got tokenkey.Decrypted
		if err := tokenkey.Receive(r, &got); err != nil || !bytes.Equal(got.Plain, want.Plain) || !strings.Contains(got.Error, want.Error) {
			t.Errorf("answer %d: %+v, %v", i, got, err)
		}
	}
	if err := tokenkey.Receive(r, &opened); !errors.Is(err, io.EOF) {
		t.Errorf("after the answers: %v", err)
	}
}

func TestServeRefuses(t *testing.T) {
	named := tokenkey.Which{Token: "t"}
	good := tokenkey.Open{Module: "m", Which: named, Object: "o", Use: tokenkey.ToDecrypt}
	for name, c := range map[string]struct {
		tok      *fake
		question any
		told     bool // to the other side
	}{
		"no key":        {&fake{err: token.ErrUnknown}, good, true},
		"no module":     {&fake{}, tokenkey.Open{Which: named, Object: "o", Use: tokenkey.ToDecrypt}, true},
		"no token":      {&fake{}, tokenkey.Open{Module: "m", Object: "o", Use: tokenkey.ToDecrypt}, true},
		"no use":        {&fake{}, tokenkey.Open{Module: "m", Which: named, Object: "o"}, true},
		"another use":   {&fake{}, tokenkey.Open{Module: "m", Which: named, Object: "o", Use: "wrap"}, true},
		"no signer":     {&fake{err: token.ErrUnknown}, tokenkey.Open{Module: "m", Which: named, Object: "o", Use: tokenkey.ToSign}, true},
		"no name":       {&fake{}, tokenkey.Open{Module: "m", Which: named, Use: tokenkey.ToDecrypt}, true},
		"nothing":       {&fake{}, "", false},
		"another thing": {&fake{}, "hello\n", false},
	} {
		out, err := conversation(t, c.tok, c.question)
		if err == nil {
			t.Errorf("%s: it was served", name)
		}
		var opened tokenkey.Opened
		if rerr := tokenkey.Receive(tokenkey.NewReader(out), &opened); (rerr == nil && opened.Error != "") != c.told {
			t.Errorf("%s: told %+v, %v", name, opened, rerr)
		}
	}
}

func TestAsked(t *testing.T) {
	digest := make([]byte, 48)
	for name, c := range map[string]struct {
		q    tokenkey.Sign
		opts crypto.SignerOpts
	}{
		"a digest":         {tokenkey.Sign{Hash: tokenkey.SHA384, Digest: digest}, crypto.SHA384},
		"PSS":              {tokenkey.Sign{Hash: tokenkey.SHA384, Digest: digest, PSS: true}, &rsa.PSSOptions{Hash: crypto.SHA384, SaltLength: rsa.PSSSaltLengthEqualsHash}},
		"a message":        {tokenkey.Sign{Message: digest}, crypto.Hash(0)},
		"nothing":          {tokenkey.Sign{}, nil},
		"SHA-1":            {tokenkey.Sign{Hash: tokenkey.SHA1, Digest: digest[:20]}, nil},
		"both":             {tokenkey.Sign{Hash: tokenkey.SHA384, Digest: digest, Message: digest}, nil},
		"a hashed message": {tokenkey.Sign{Hash: tokenkey.SHA384, Message: digest}, nil},
		"PSS of a message": {tokenkey.Sign{PSS: true, Message: digest}, nil},
	} {
		opts, in, err := asked(c.q)
		if !reflect.DeepEqual(opts, c.opts) || (err == nil) != (c.opts != nil) || err == nil && !bytes.Equal(in, digest) {
			t.Errorf("%s: %v, %x, %v", name, opts, in, err)
		}
	}
}

// A signal ends the process though nobody asks anything, and logs out.
func TestServeEndsWithItsContext(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	in, ask := io.Pipe()
	answers, out := io.Pipe()
	defer func() { _ = ask.Close() }()
	tok := &fake{key: &key.PublicKey}
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, in, out, func(tokenkey.Open) (Token, error) { return tok, nil }) }()
	which := tokenkey.Open{Module: "m", Which: tokenkey.Which{Token: "t"}, Object: "o", Use: tokenkey.ToDecrypt}
	if err := tokenkey.Send(ask, which); err != nil {
		t.Fatal(err)
	}
	var opened tokenkey.Opened
	if err := tokenkey.Receive(tokenkey.NewReader(answers), &opened); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) || !tok.closed {
		t.Errorf("%v, closed %v", err, tok.closed)
	}
}
