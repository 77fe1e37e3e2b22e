package tokenkey

import (
	"bufio"
	"bytes"
	"crypto"
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
	var key crypto.Signer
	var err error
	switch manner {
	case "ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
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
		answer := wire.Signed{Error: "the token is away"}
		if q.Hash == wire.SHA256 {
			answer.Error = ""
			if answer.Signature, err = key.Sign(rand.Reader, q.Digest, crypto.SHA256); err != nil {
				return err
			}
		}
		if err := wire.Send(os.Stdout, answer); err != nil {
			return err
		}
	}
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
	for name, c := range map[string]struct {
		digest []byte
		opts   crypto.SignerOpts
	}{
		"PSS": {sum[:], &rsa.PSSOptions{Hash: crypto.SHA256}}, "SHA-1": {sum[:20], crypto.SHA1}, "no hash": {sum[:], crypto.Hash(0)},
		"no digest": {nil, crypto.SHA256}, "too long": {bytes.Repeat([]byte{1}, 255), crypto.SHA256}, "huge": {make([]byte, wire.MaxLine), crypto.SHA512},
	} {
		if _, err := k.Sign(nil, c.digest, c.opts); err == nil {
			t.Errorf("%s was signed", name)
		}
	}
	if sig, err = k.Sign(nil, sum[:], crypto.SHA256); err != nil || !ecdsa.VerifyASN1(k.Public().(*ecdsa.PublicKey), sum[:], sig) {
		t.Errorf("afterwards: %v", err)
	}
}

func TestOpenSignerFails(t *testing.T) {
	for manner, reason := range map[string]string{"work": "PIN was refused", "mute": "does not answer", "babble": "does not answer"} {
		if _, err := openSigner(t, manner, "0000"); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: %v", manner, err)
		}
	}
	if _, err := openSigner(t, "ed25519", "1234"); err == nil || !strings.Contains(err.Error(), "want RSA or ECDSA") {
		t.Errorf("%v", err)
	}
}
