package token_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/asn1"
	"errors"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/vouchsafe-cc/vouchsafe/kbs-pkcs11/internal/token"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// how a key signs.
type how struct {
	opts crypto.SignerOpts
	in   []byte
}

type signature struct {
	make token.Made
	how  []how
}

// signatures are those of every kind of key.
func signatures(t *testing.T) map[string]signature {
	t.Helper()
	s256, s384, s512 := sha256.Sum256([]byte("m")), sha512.Sum384([]byte("m")), sha512.Sum512([]byte("m"))
	pss := func(h crypto.Hash, salt int) crypto.SignerOpts { return &rsa.PSSOptions{Hash: h, SaltLength: salt} }
	const equal = rsa.PSSSaltLengthEqualsHash
	return map[string]signature{
		"p256":    {token.Made{Curve: elliptic.P256()}, []how{{crypto.SHA256, s256[:]}}},
		"p384":    {token.Made{Curve: elliptic.P384()}, []how{{crypto.SHA384, s384[:]}}},
		"p521":    {token.Made{Curve: elliptic.P521()}, []how{{crypto.SHA512, s512[:]}}},
		"rsa":     {token.Made{Bits: 2048}, []how{{crypto.SHA256, s256[:]}, {pss(crypto.SHA256, equal), s256[:]}, {pss(crypto.SHA512, 64), s512[:]}}},
		"rsa5":    {token.Made{Bits: 3072}, []how{{crypto.SHA512, s512[:]}, {pss(crypto.SHA384, 48), s384[:]}}},
		"ed25519": {token.Made{Edwards: true}, []how{{crypto.Hash(0), []byte("m")}, {crypto.Hash(0), make([]byte, token.MaxMessage)}}},
	}
}

func TestSign(t *testing.T) {
	tok, ctx := open(t), t.Context()
	for name, c := range signatures(t) {
		t.Run(name, func(t *testing.T) {
			if err := token.MakeSigner(tok, name, "id of "+name, c.make); err != nil {
				t.Fatal(err)
			}
			for _, p := range []token.Pair{{Label: name}, {ID: "id of " + name}, {Label: name, ID: "id of " + name}} {
				k, err := tok.Signer(ctx, p)
				if err != nil {
					t.Fatal(err)
				}
				for _, how := range c.how {
					sig, err := tok.Sign(ctx, k, how.opts, how.in)
					if err != nil || !good(k.Public(), how.opts, how.in, sig) {
						t.Fatalf("%s: %x, %v", p, sig, err)
					}
				}
				if _, err := tok.Sign(ctx, k, crypto.SHA1, make([]byte, 20)); !errors.Is(err, token.ErrSize) {
					t.Errorf("SHA-1: %v", err)
				}
				if _, err := tok.Sign(ctx, k, c.how[0].opts, nil); !errors.Is(err, token.ErrSize) {
					t.Errorf("nothing: %v", err)
				}
			}
			if err := token.Break(tok); err != nil {
				t.Fatal(err)
			}
			if k, err := tok.Signer(ctx, token.Pair{Label: name}); err != nil || k.Public() == nil {
				t.Errorf("after its sessions were closed: %v", err)
			}
		})
	}
}

// What would be signed in another way than was meant is not signed.
func TestSignThatIsRefused(t *testing.T) {
	tok := open(t)
	sum := sha256.Sum256([]byte("m"))
	ec := newSigner(t, tok, "refused ec", token.Made{Curve: elliptic.P256()})
	rs := newSigner(t, tok, "refused rsa", token.Made{Bits: 2048})
	ed := newSigner(t, tok, "refused ed", token.Made{Edwards: true})
	for name, c := range map[string]struct {
		key  token.Signer
		opts crypto.SignerOpts
		in   []byte
		want error
	}{
		"PSS by ECDSA":          {ec, &rsa.PSSOptions{Hash: crypto.SHA256, SaltLength: 32}, sum[:], token.ErrKey},
		"a message by ECDSA":    {ec, crypto.Hash(0), []byte("m"), token.ErrSize},
		"a shorter digest":      {ec, crypto.SHA256, sum[1:], token.ErrSize},
		"another salt":          {rs, &rsa.PSSOptions{Hash: crypto.SHA256, SaltLength: 20}, sum[:], token.ErrSize},
		"any salt":              {rs, &rsa.PSSOptions{Hash: crypto.SHA256, SaltLength: rsa.PSSSaltLengthAuto}, sum[:], token.ErrSize},
		"PSS of a shorter one":  {rs, &rsa.PSSOptions{Hash: crypto.SHA256, SaltLength: 32}, sum[1:], token.ErrSize},
		"a message by RSA":      {rs, crypto.Hash(0), []byte("m"), token.ErrSize},
		"a digest by Ed25519":   {ed, crypto.SHA256, sum[:], token.ErrSize},
		"PSS by Ed25519":        {ed, &rsa.PSSOptions{Hash: crypto.SHA256, SaltLength: 32}, sum[:], token.ErrSize},
		"a message that is big": {ed, crypto.Hash(0), make([]byte, token.MaxMessage+1), token.ErrSize},
	} {
		if sig, err := tok.Sign(t.Context(), c.key, c.opts, c.in); !errors.Is(err, c.want) {
			t.Errorf("%s: %x, %v, want %v", name, sig, err, c.want)
		}
	}
}

// A mechanism that is not there is named, and is no reason to log in again.
func TestMechanismThatIsLacking(t *testing.T) {
	cfg := config()
	asked := 0
	cfg.PIN = func() (secret.Bytes, error) {
		asked++
		return secret.New([]byte(pin)), nil
	}
	tok := openAs(t, cfg)
	k := newSigner(t, tok, "old", token.Made{Bits: 2048, Only: pkcs11.CKM_RSA_PKCS})
	sum := sha256.Sum256([]byte("m"))
	_, err := tok.Sign(t.Context(), k, &rsa.PSSOptions{Hash: crypto.SHA256, SaltLength: rsa.PSSSaltLengthEqualsHash}, sum[:])
	if !errors.Is(err, token.ErrMechanism) || errors.Is(err, token.ErrAway) || !strings.Contains(err.Error(), "CKM_RSA_PKCS_PSS with SHA-256") {
		t.Errorf("got %v", err)
	}
	if sig, err := tok.Sign(t.Context(), k, crypto.SHA256, sum[:]); err != nil || !good(k.Public(), crypto.SHA256, sum[:], sig) {
		t.Errorf("with the one that is there: %v", err)
	}
	if asked != 1 {
		t.Errorf("the PIN was asked for %d times", asked)
	}
}

// Some keys want the PIN for every signature. One that is refused is not tried
// again.
func TestKeyThatWantsThePINEachTime(t *testing.T) {
	cfg := config()
	asked, word := 0, pin
	cfg.PIN = func() (secret.Bytes, error) {
		asked++
		return secret.New([]byte(word)), nil
	}
	tok := openAs(t, cfg)
	k := newSigner(t, tok, "always", token.Made{Curve: elliptic.P256(), Always: true})
	sum := sha256.Sum256([]byte("m"))
	for range 2 {
		if sig, err := tok.Sign(t.Context(), k, crypto.SHA256, sum[:]); err != nil || !good(k.Public(), crypto.SHA256, sum[:], sig) {
			t.Fatalf("got %v", err)
		}
	}
	if asked != 3 {
		t.Errorf("the PIN was asked for %d times, want 3: the login and two signatures", asked)
	}
	word = "wrong"
	for range 3 {
		if _, err := tok.Sign(t.Context(), k, crypto.SHA256, sum[:]); !errors.Is(err, token.ErrPIN) {
			t.Errorf("with a wrong PIN: %v", err)
		}
	}
	if asked != 4 {
		t.Errorf("a PIN that was refused was tried %d times", asked-3)
	}
	if err := tok.Close(); err != nil {
		t.Fatal(err)
	}
	openAs(t, config()) // which makes the token forget that it counted
}

func good(key crypto.PublicKey, opts crypto.SignerOpts, in, sig []byte) bool {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(k, in, sig)
	case ed25519.PublicKey:
		return ed25519.Verify(k, in, sig)
	case *rsa.PublicKey:
		if _, ok := opts.(*rsa.PSSOptions); ok {
			return rsa.VerifyPSS(k, opts.HashFunc(), in, sig, &rsa.PSSOptions{SaltLength: opts.HashFunc().Size()}) == nil
		}
		return rsa.VerifyPKCS1v15(k, opts.HashFunc(), in, sig) == nil
	}
	return false
}

func TestSignersThatAreRefused(t *testing.T) {
	tok, ctx := open(t), t.Context()
	p256 := elliptic.P256()
	for name, c := range map[string]struct {
		make   token.Made
		err    error
		reason string
	}{
		"readable":    {token.Made{Curve: p256, Readable: true}, token.ErrKey, "read out"},
		"no twin":     {token.Made{Curve: p256, NoPublic: true}, token.ErrUnknown, "no public key"},
		"does not":    {token.Made{Curve: p256, Silent: true}, token.ErrUnknown, "may sign"},
		"short":       {token.Made{Bits: 1024}, token.ErrKey, "1024 bits"},
		"other curve": {token.Made{Params: []byte{6, 5, 0x2b, 0x81, 4, 0, 10}}, token.ErrKey, "1.3.132.0.10"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := token.MakeSigner(tok, name, name, c.make); err != nil {
				t.Fatal(err)
			}
			if _, err := tok.Signer(ctx, token.Pair{Label: name}); !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.reason) {
				t.Errorf("got %v", err)
			}
		})
	}
	if _, err := tok.Signer(ctx, token.Pair{Label: "nobody"}); !errors.Is(err, token.ErrUnknown) {
		t.Errorf("got %v", err)
	}
	for _, id := range []string{"one", "two"} {
		if err := token.MakeSigner(tok, "twice", id, token.Made{Curve: p256}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := tok.Signer(ctx, token.Pair{Label: "twice"}); !errors.Is(err, token.ErrKey) {
		t.Errorf("of two keys one was taken: %v", err)
	}
	if _, err := tok.Signer(ctx, token.Pair{Label: "twice", ID: "two"}); err != nil {
		t.Error(err)
	}
}

// A public key that is not that of the private one beside it is found out.
func TestSignerWithAnothersPublicKey(t *testing.T) {
	tok := open(t)
	sum := sha256.Sum256([]byte("m"))
	for name, c := range map[string]struct {
		make token.Made
		how  how
	}{
		"mixed":    {token.Made{Curve: elliptic.P256()}, how{crypto.SHA256, sum[:]}},
		"mixed ed": {token.Made{Edwards: true}, how{crypto.Hash(0), []byte("m")}},
	} {
		c.make.NoPrivate = true
		if err := token.MakeSigner(tok, name, name, c.make); err != nil {
			t.Fatal(err)
		}
		c.make.NoPrivate, c.make.NoPublic = false, true
		k := newSigner(t, tok, name, c.make)
		if _, err := tok.Sign(t.Context(), k, c.how.opts, c.how.in); !errors.Is(err, token.ErrKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Cards give the two halves labels of their own, and one CKA_ID.
func TestHalvesOfOneID(t *testing.T) {
	tok := open(t)
	k := newSigner(t, tok, "Private key for Digital Signature", token.Made{Curve: elliptic.P384(), PublicLabel: "Public key for Digital Signature"})
	sum := sha512.Sum384([]byte("m"))
	if sig, err := tok.Sign(t.Context(), k, crypto.SHA384, sum[:]); err != nil || !good(k.Public(), crypto.SHA384, sum[:], sig) {
		t.Errorf("got %v", err)
	}
}

// A token is named by whatever it says of itself.
func TestWhich(t *testing.T) {
	tok := open(t)
	info, slot, err := token.Info(tok)
	if err := errors.Join(err, tok.Close()); err != nil { // the library has one life at a time
		t.Fatal(err)
	}
	other := slot + 1
	for name, c := range map[string]struct {
		which token.Which
		ok    bool
	}{
		"label":           {token.Which{Label: "kbs"}, true},
		"serial":          {token.Which{Serial: info.SerialNumber}, true},
		"all":             {token.Which{Label: "kbs", Serial: info.SerialNumber, Manufacturer: info.ManufacturerID, Model: info.Model, Slot: &slot}, true},
		"slot":            {token.Which{Slot: &slot}, true},
		"another slot":    {token.Which{Label: "kbs", Slot: &other}, false},
		"another serial":  {token.Which{Label: "kbs", Serial: "0"}, false},
		"another maker":   {token.Which{Label: "kbs", Manufacturer: "nobody"}, false},
		"another model":   {token.Which{Label: "kbs", Model: "none"}, false},
		"several of them": {token.Which{Manufacturer: info.ManufacturerID}, false},
		"nothing":         {token.Which{}, false},
	} {
		cfg := config()
		cfg.Token = c.which
		if tok, err := token.Open(cfg); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		} else if err == nil {
			_ = tok.Close()
		}
	}
}

// A point that is there as it is may begin as an OCTET STRING does.
func TestParsePointThatLooksLikeAnother(t *testing.T) {
	p256 := []byte{6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7}
	var raw []byte
	for len(raw) == 0 || raw[1] != 63 { // as many bytes as then follow
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if raw, err = key.PublicKey.Bytes(); err != nil {
			t.Fatal(err)
		}
	}
	wrapped, err := asn1.Marshal(raw)
	if err != nil {
		t.Fatal(err)
	}
	for _, point := range [][]byte{raw, wrapped} {
		if _, err := token.ParsePoint(p256, point); err != nil {
			t.Errorf("%x: %v", point, err)
		}
	}
	edwards := append([]byte{4, 30}, make([]byte, 30)...)
	if key, err := token.ParseEdwards([]byte{6, 3, 0x2b, 0x65, 0x70}, edwards); err != nil || !key.(ed25519.PublicKey).Equal(ed25519.PublicKey(edwards)) {
		t.Errorf("%x: %v", key, err)
	}
}

func FuzzParsePoint(f *testing.F) {
	p256 := []byte{6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7}
	x, y := elliptic.P256().Params().Gx.FillBytes(make([]byte, 32)), elliptic.P256().Params().Gy.FillBytes(make([]byte, 32))
	point := append(append([]byte{4}, x...), y...)
	f.Add(p256, point)
	f.Add(p256, append([]byte{4, 65}, point...))
	f.Add([]byte{6, 3, 0x2b, 0x65, 0x70}, append([]byte{4, 32}, x...))
	f.Add(append([]byte{19, 12}, "edwards25519"...), x)
	f.Add([]byte{6, 255}, []byte{4, 255})
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, params, raw []byte) {
		if key, err := token.ParsePoint(params, raw); err == nil {
			if k := key.(*ecdsa.PublicKey); !k.Curve.IsOnCurve(k.X, k.Y) { //nolint:staticcheck // the question is whether it is
				t.Fatalf("%x is no point", raw)
			}
		}
		if key, err := token.ParseEdwards(params, raw); err == nil && len(key.(ed25519.PublicKey)) != ed25519.PublicKeySize {
			t.Fatalf("%x is no key", raw)
		}
	})
}
