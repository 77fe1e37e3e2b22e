package token_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/kbs-pkcs11/internal/token"
)

func TestSign(t *testing.T) {
	tok, ctx := open(t), t.Context()
	s256, s384, s512 := sha256.Sum256([]byte("m")), sha512.Sum384([]byte("m")), sha512.Sum512([]byte("m"))
	for name, c := range map[string]struct {
		make   token.Made
		hash   crypto.Hash
		digest []byte
	}{
		"p256": {token.Made{Curve: elliptic.P256()}, crypto.SHA256, s256[:]},
		"p384": {token.Made{Curve: elliptic.P384()}, crypto.SHA384, s384[:]},
		"p521": {token.Made{Curve: elliptic.P521()}, crypto.SHA512, s512[:]},
		"rsa":  {token.Made{Bits: 2048}, crypto.SHA256, s256[:]},
		"rsa5": {token.Made{Bits: 3072}, crypto.SHA512, s512[:]},
	} {
		t.Run(name, func(t *testing.T) {
			if err := token.MakeSigner(tok, name, "id of "+name, c.make); err != nil {
				t.Fatal(err)
			}
			for _, p := range []token.Pair{{Label: name}, {ID: "id of " + name}, {Label: name, ID: "id of " + name}} {
				k, err := tok.Signer(ctx, p)
				if err != nil {
					t.Fatal(err)
				}
				sig, err := tok.Sign(ctx, k, c.hash, c.digest)
				if err != nil || !good(k.Public(), c.hash, c.digest, sig) {
					t.Fatalf("%s: %x, %v", p, sig, err)
				}
				if _, err := tok.Sign(ctx, k, c.hash, c.digest[1:]); !errors.Is(err, token.ErrSize) {
					t.Errorf("a digest of another length: %v", err)
				}
				if _, err := tok.Sign(ctx, k, crypto.SHA1, c.digest[:20]); !errors.Is(err, token.ErrSize) {
					t.Errorf("SHA-1: %v", err)
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

func good(key crypto.PublicKey, h crypto.Hash, digest, sig []byte) bool {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(k, digest, sig)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(k, h, digest, sig) == nil
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
	tok, ctx := open(t), t.Context()
	for _, m := range []struct {
		id   string
		made token.Made
	}{{"mixed", token.Made{Curve: elliptic.P256(), NoPublic: true}}, {"mixed", token.Made{Curve: elliptic.P256(), NoPrivate: true}}} {
		if err := token.MakeSigner(tok, "mixed", m.id, m.made); err != nil {
			t.Fatal(err)
		}
	}
	k, err := tok.Signer(ctx, token.Pair{Label: "mixed"})
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte("m"))
	if _, err := tok.Sign(ctx, k, crypto.SHA256, sum[:]); !errors.Is(err, token.ErrKey) {
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

func FuzzParsePoint(f *testing.F) {
	p256 := []byte{6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7}
	x, y := elliptic.P256().Params().Gx.FillBytes(make([]byte, 32)), elliptic.P256().Params().Gy.FillBytes(make([]byte, 32))
	point := append(append([]byte{4}, x...), y...)
	f.Add(p256, point)
	f.Add(p256, append([]byte{4, 65}, point...))
	f.Add([]byte{6, 255}, []byte{4, 255})
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, params, raw []byte) {
		if key, err := token.ParsePoint(params, raw); err == nil && !key.Curve.IsOnCurve(key.X, key.Y) { //nolint:staticcheck // the question is whether it is
			t.Fatalf("%x is no point", raw)
		}
	})
}
