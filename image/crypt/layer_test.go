package crypt

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/containers/ocicrypt/blockcipher"
	"github.com/opencontainers/go-digest"

	"github.com/vouchsafe-cc/vouchsafe/secret"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func randomBytes(n int) []byte { return secret.Random(n).Reveal() }

func encrypt(t testing.TB, plain []byte) (ciphertext []byte, pub Public, priv Private) {
	t.Helper()
	e, err := NewEncrypter(bytes.NewReader(plain))
	must(t, err)
	ciphertext, err = io.ReadAll(e)
	must(t, err)
	pub, priv, err = e.Options(digest.FromBytes(plain))
	must(t, err)
	return ciphertext, pub, priv
}

func decrypt(src io.Reader, pub Public, priv Private) ([]byte, error) {
	d, err := NewDecrypter(src, pub, priv)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(d)
}

func TestRoundTrip(t *testing.T) {
	for _, size := range []int{0, 1, 15, 16, 17, 4095, 1 << 16, 1<<20 + 3} {
		plain := randomBytes(size)
		ct, pub, priv := encrypt(t, plain)
		for name, src := range map[string]io.Reader{
			"whole": bytes.NewReader(ct), "byte by byte": iotest.OneByteReader(bytes.NewReader(ct)), "error with data": iotest.DataErrReader(bytes.NewReader(ct)),
		} {
			if got, err := decrypt(src, pub, priv); err != nil || !bytes.Equal(got, plain) {
				t.Errorf("%d bytes, %s: %v", size, name, err)
			}
		}
		if size >= 16 && bytes.Contains(ct, plain[:16]) {
			t.Error("the ciphertext holds the plaintext")
		}
	}
}

func TestEveryLayerHasItsOwnKey(t *testing.T) {
	_, _, a := encrypt(t, []byte("same"))
	_, _, b := encrypt(t, []byte("same"))
	if a.Key.Equal(b.Key) || bytes.Equal(a.Nonce, b.Nonce) || a.ID() == b.ID() {
		t.Fatal("two layers share key or nonce")
	}
}

func TestTampering(t *testing.T) {
	plain := randomBytes(10_000)
	ct, pub, priv := encrypt(t, plain)
	flip := func(b []byte, i int) []byte {
		c := bytes.Clone(b)
		c[i] ^= 1 << (randomBytes(1)[0] % 8)
		return c
	}
	tests := map[string]struct {
		ct  []byte
		pub Public
	}{
		"first byte":  {flip(ct, 0), pub},
		"middle byte": {flip(ct, 5000), pub},
		"last byte":   {flip(ct, len(ct)-1), pub},
		"cut":         {ct[:len(ct)-1], pub},
		"longer":      {append(bytes.Clone(ct), 0), pub},
		"empty":       {nil, pub},
		"other HMAC":  {ct, Public{HMAC: flip(pub.HMAC, 3)}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for _, src := range []io.Reader{bytes.NewReader(tt.ct), iotest.DataErrReader(bytes.NewReader(tt.ct))} {
				_, err := decrypt(src, tt.pub, priv)
				e, ok := errors.AsType[*HMACError](err)
				if !ok || e.Seen == e.Wanted {
					t.Fatalf("got %v", err)
				}
			}
		})
	}
	t.Run("the error stays", func(t *testing.T) {
		d, err := NewDecrypter(bytes.NewReader(ct[1:]), pub, priv)
		must(t, err)
		_, first := io.Copy(io.Discard, d)
		_, second := d.Read(make([]byte, 1))
		if first == nil || !errors.Is(second, first) {
			t.Fatalf("%v, then %v", first, second)
		}
	})
}

func TestSourceErrorsAreNotTheEnd(t *testing.T) {
	ct, pub, priv := encrypt(t, randomBytes(1000))
	broken := io.MultiReader(bytes.NewReader(ct), iotest.ErrReader(io.ErrUnexpectedEOF))
	if _, err := decrypt(broken, pub, priv); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("decrypt: %v", err)
	}
	e, err := NewEncrypter(iotest.ErrReader(io.ErrUnexpectedEOF))
	must(t, err)
	if _, err := io.ReadAll(e); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("encrypt: %v", err)
	}
	if _, _, err := e.Options(""); err == nil {
		t.Fatal("half a layer got its options")
	}
}

func TestWrongLengths(t *testing.T) {
	ct, pub, priv := encrypt(t, []byte("x"))
	for name, f := range map[string]func(*Public, *Private){
		"no HMAC":     func(p *Public, _ *Private) { p.HMAC = nil },
		"short HMAC":  func(p *Public, _ *Private) { p.HMAC = p.HMAC[:31] },
		"no nonce":    func(_ *Public, q *Private) { q.Nonce = nil },
		"long nonce":  func(_ *Public, q *Private) { q.Nonce = make([]byte, 17) },
		"GCM's nonce": func(p *Public, _ *Private) { p.Nonce = make([]byte, 12) },
		"no key":      func(_ *Public, q *Private) { q.Key = secret.Bytes{} },
		"short key":   func(_ *Public, q *Private) { q.Key = secret.Random(16) },
	} {
		p, q := pub, priv
		f(&p, &q)
		if _, err := decrypt(bytes.NewReader(ct), p, q); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

// What we encrypt ocicrypt decrypts, and the reverse.
func TestBlockCipherOfOcicrypt(t *testing.T) {
	handler, err := blockcipher.NewLayerBlockCipherHandler()
	must(t, err)
	for _, size := range []int{0, 1, 4096, 100_001} {
		plain := randomBytes(size)

		ct, pub, priv := encrypt(t, plain)
		r, _, err := handler.Decrypt(bytes.NewReader(ct), blockcipher.LayerBlockCipherOptions{
			Public: blockcipher.PublicLayerBlockCipherOptions{CipherType: blockcipher.AES256CTR, Hmac: pub.HMAC},
			Private: blockcipher.PrivateLayerBlockCipherOptions{SymmetricKey: priv.Key.Reveal(),
				CipherOptions: map[string][]byte{"nonce": priv.Nonce}},
		})
		must(t, err)
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("ours of %d bytes through theirs: %v", size, err)
		}

		r, fin, err := handler.Encrypt(bytes.NewReader(plain), blockcipher.AES256CTR)
		must(t, err)
		ct, err = io.ReadAll(r)
		must(t, err)
		opts, err := fin()
		must(t, err)
		nonce, _ := opts.GetOpt("nonce")
		got, err := decrypt(bytes.NewReader(ct), Public{HMAC: opts.Public.Hmac}, Private{Key: secret.New(opts.Private.SymmetricKey), Nonce: nonce})
		if err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("theirs of %d bytes through ours: %v", size, err)
		}
	}
}
