package tokenkey

import (
	"bufio"
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	wire "github.com/vouchsafe-cc/vouchsafe/kbs/api/tokenkey"
)

// playSigner plays the program with a key that signs.
func playSigner(manner string, in *bufio.Reader) error {
	key, err := playedKey(manner)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	if err := wire.Send(os.Stdout, wire.Opened{Public: der}); err != nil {
		return err
	}
	for {
		var q wire.Sign
		if err := wire.Receive(in, &q); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		var opts crypto.SignerOpts = map[string]crypto.Hash{wire.SHA256: crypto.SHA256, wire.SHA384: crypto.SHA384}[q.Hash]
		if q.PSS {
			opts = &rsa.PSSOptions{Hash: opts.HashFunc(), SaltLength: rsa.PSSSaltLengthEqualsHash}
		}
		answer := wire.Signed{Error: "the token is away"}
		if q.Hash != wire.SHA384 {
			answer.Error = ""
			if answer.Signature, err = key.Sign(rand.Reader, append(q.Digest, q.Message...), opts); err != nil {
				return err
			}
		}
		if manner == "liar" {
			answer.Signature[9] ^= 1
		}
		if err := wire.Send(os.Stdout, answer); err != nil {
			return err
		}
	}
}

func playedKey(manner string) (key crypto.Signer, err error) {
	switch manner {
	case "ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case "rsa", "liar":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case "x25519":
		var k *ecdh.PrivateKey
		if k, err = ecdh.X25519().GenerateKey(rand.Reader); err == nil {
			key = noSigner{k}
		}
	default:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	return key, err
}

// noSigner is a key that does not sign.
type noSigner struct{ *ecdh.PrivateKey }

func (noSigner) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("it does not sign")
}

func openSigner(t *testing.T, manner, pin string) (*Signer, error) {
	t.Helper()
	return played(t, OpenSigner, manner, pin)
}

func TestSign(t *testing.T) {
	k, err := openSigner(t, "work", "1234")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte("an image"))
	sig, err := k.Sign(nil, sum[:], crypto.SHA256)
	if err != nil || !ecdsa.VerifyASN1(k.Public().(*ecdsa.PublicKey), sum[:], sig) {
		t.Errorf("%x, %v", sig, err)
	}
	if _, err := k.Sign(nil, make([]byte, 48), crypto.SHA384); err == nil || !strings.Contains(err.Error(), "token is away") {
		t.Errorf("%v", err)
	}
	refused(t, k, map[string]question{
		"PSS": {sum[:], &rsa.PSSOptions{Hash: crypto.SHA256, SaltLength: 32}}, "SHA-1": {sum[:20], crypto.SHA1}, "no hash": {sum[:], crypto.Hash(0)},
		"no digest": {nil, crypto.SHA256}, "too long": {bytes.Repeat([]byte{1}, 255), crypto.SHA256}, "huge": {make([]byte, wire.MaxLine), crypto.SHA512},
	})
	if sig, err = k.Sign(nil, sum[:], crypto.SHA256); err != nil || !ecdsa.VerifyASN1(k.Public().(*ecdsa.PublicKey), sum[:], sig) {
		t.Errorf("afterwards: %v", err)
	}
}

type question struct {
	in   []byte
	opts crypto.SignerOpts
}

func refused(t *testing.T, k *Signer, questions map[string]question) {
	t.Helper()
	for name, q := range questions {
		if sig, err := k.Sign(nil, q.in, q.opts); err == nil {
			t.Errorf("%s: %x", name, sig)
		}
	}
}

func TestSignByRSA(t *testing.T) {
	k, err := openSigner(t, "rsa", "1234")
	if err != nil {
		t.Fatal(err)
	}
	public := k.Public().(*rsa.PublicKey)
	sum := sha256.Sum256([]byte("an image"))
	for _, salt := range []int{rsa.PSSSaltLengthEqualsHash, 32} {
		sig, err := k.Sign(nil, sum[:], &rsa.PSSOptions{Hash: crypto.SHA256, SaltLength: salt})
		if err != nil || rsa.VerifyPSS(public, crypto.SHA256, sum[:], sig, &rsa.PSSOptions{SaltLength: 32}) != nil {
			t.Errorf("PSS: %x, %v", sig, err)
		}
	}
	if sig, err := k.Sign(nil, sum[:], crypto.SHA256); err != nil || rsa.VerifyPKCS1v15(public, crypto.SHA256, sum[:], sig) != nil {
		t.Errorf("PKCS#1 v1.5: %x, %v", sig, err)
	}
	refused(t, k, map[string]question{
		"any salt": {sum[:], &rsa.PSSOptions{Hash: crypto.SHA256}}, "no salt": {sum[:], &rsa.PSSOptions{Hash: crypto.SHA256, SaltLength: 1}},
		"no hash": {sum[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}},
	})
}

func TestSignByEd25519(t *testing.T) {
	k, err := openSigner(t, "ed25519", "1234")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{1, wire.MaxMessage} {
		message := make([]byte, n)
		if sig, err := k.Sign(nil, message, crypto.Hash(0)); err != nil || !ed25519.Verify(k.Public().(ed25519.PublicKey), message, sig) {
			t.Errorf("%d bytes: %x, %v", n, sig, err)
		}
	}
	refused(t, k, map[string]question{
		"nothing": {nil, crypto.Hash(0)}, "too long": {make([]byte, wire.MaxMessage+1), crypto.Hash(0)}, "a digest": {make([]byte, 64), crypto.SHA512},
		"with a context": {[]byte("m"), &ed25519.Options{Context: "x"}},
	})
}

// What comes back is a signature, or is not handed on.
func TestSignatureThatDoesNotVerify(t *testing.T) {
	k, err := openSigner(t, "liar", "1234")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte("an image"))
	for _, opts := range []crypto.SignerOpts{crypto.SHA256, &rsa.PSSOptions{Hash: crypto.SHA256, SaltLength: 32}} {
		if sig, err := k.Sign(nil, sum[:], opts); err == nil || !strings.Contains(err.Error(), "no signature") || sig != nil {
			t.Errorf("%x, %v", sig, err)
		}
	}
}

func TestOpenSignerFails(t *testing.T) {
	for manner, reason := range map[string]string{"work": "PIN was refused", "mute": "does not answer", "babble": "does not answer"} {
		if _, err := openSigner(t, manner, "0000"); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: %v", manner, err)
		}
	}
	if _, err := openSigner(t, "x25519", "1234"); err == nil || !strings.Contains(err.Error(), "want RSA, ECDSA or Ed25519") {
		t.Errorf("%v", err)
	}
}
