package tokenkey

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	wire "github.com/vouchsafe-cc/vouchsafe/kbs/api/tokenkey"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// The test binary plays the program: the real one, with a real token, is in
// tests/interop/kbs.
func TestMain(m *testing.M) {
	if manner := os.Getenv("TOKENKEY_TEST_MANNER"); manner != "" && len(os.Args) == 2 && os.Args[1] == "open" {
		if err := play(manner); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func play(manner string) error {
	if manner == "mute" {
		return nil
	}
	in := wire.NewReader(os.Stdin)
	var which wire.Open
	if err := wire.Receive(in, &which); err != nil {
		return err
	}
	if manner == "babble" {
		_, err := os.Stdout.WriteString("<html>\n")
		return err
	}
	if string(which.PIN) != "1234" || which.Which.Token != "t" || which.Object != "o" || which.Module != "/m" {
		return wire.Send(os.Stdout, wire.Opened{Error: "the PIN was refused"})
	}
	if which.Use == wire.ToSign {
		return playSigner(manner, in)
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return err
	}
	if err := wire.Send(os.Stdout, wire.Opened{Public: der}); err != nil {
		return err
	}
	for {
		var q wire.Decrypt
		if err := wire.Receive(in, &q); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if manner == "die" {
			return nil
		}
		h := map[string]crypto.Hash{wire.SHA1: crypto.SHA1, wire.SHA256: crypto.SHA256}[q.Hash]
		plain, err := key.Decrypt(nil, q.Sealed, &rsa.OAEPOptions{Hash: h})
		answer := wire.Decrypted{Plain: plain}
		if err != nil {
			answer.Error = "it does not open"
		}
		if err := wire.Send(os.Stdout, answer); err != nil {
			return err
		}
	}
}

func open(t *testing.T, manner, pin string) (*Key, error) {
	t.Helper()
	return played(t, Open, manner, pin)
}

// played opens a key of the program that this test plays.
func played[K io.Closer](t *testing.T, open func(context.Context, string, URI, secret.Bytes, io.Writer) (K, error), manner, pin string) (K, error) {
	t.Helper()
	t.Setenv("TOKENKEY_TEST_MANNER", manner)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	k, err := open(t.Context(), self, URI{Which: wire.Which{Token: "t"}, Object: "o", Module: "/m"}, secret.New([]byte(pin)), io.Discard)
	if err == nil {
		t.Cleanup(func() { _ = k.Close() })
	}
	return k, err
}

func TestDecrypt(t *testing.T) {
	k, err := open(t, "work", "1234")
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range []crypto.Hash{crypto.SHA1, crypto.SHA256} {
		sealed, err := rsa.EncryptOAEP(h.New(), rand.Reader, k.Public().(*rsa.PublicKey), []byte("options"), nil)
		if err != nil {
			t.Fatal(err)
		}
		if plain, err := k.Decrypt(nil, sealed, &rsa.OAEPOptions{Hash: h}); err != nil || !bytes.Equal(plain, []byte("options")) {
			t.Errorf("%v: %v", h, err)
		}
		sealed[3]++
		if _, err := k.Decrypt(nil, sealed, &rsa.OAEPOptions{Hash: h}); err == nil || !strings.Contains(err.Error(), "does not open") {
			t.Errorf("%v, altered: %v", h, err)
		}
	}
	// What an image may hold at the place of a sealed key ends nothing.
	for _, n := range []int{0, 255, wire.MaxLine} {
		if _, err := k.Decrypt(nil, make([]byte, n), &rsa.OAEPOptions{Hash: crypto.SHA256}); err == nil || !strings.Contains(err.Error(), "want 256") {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	sealed, err := rsa.EncryptOAEP(crypto.SHA256.New(), rand.Reader, k.Public().(*rsa.PublicKey), []byte("options"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := k.Decrypt(nil, sealed, &rsa.OAEPOptions{Hash: crypto.SHA256}); err != nil || string(plain) != "options" {
		t.Errorf("afterwards: %v", err)
	}
	for name, opts := range map[string]crypto.DecrypterOpts{
		"PKCS#1 v1.5": &rsa.PKCS1v15DecryptOptions{}, "nothing": nil, //nolint:staticcheck // it is refused
		"SHA-512": &rsa.OAEPOptions{Hash: crypto.SHA512},
		"a label": &rsa.OAEPOptions{Hash: crypto.SHA1, Label: []byte("x")}, "two hashes": &rsa.OAEPOptions{Hash: crypto.SHA256, MGFHash: crypto.SHA1},
	} {
		if _, err := k.Decrypt(nil, []byte("x"), opts); err == nil {
			t.Errorf("%s was asked for", name)
		}
	}
	if err := k.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if _, err := k.Decrypt(nil, sealed, &rsa.OAEPOptions{Hash: crypto.SHA256}); err == nil {
		t.Error("a closed key answers")
	}
}

func TestOpenFails(t *testing.T) {
	for manner, reason := range map[string]string{"work": "PIN was refused", "mute": "does not answer", "babble": "does not answer"} {
		if _, err := open(t, manner, "0000"); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: %v", manner, err)
		}
	}
	if _, err := Open(t.Context(), "/nonexistent", URI{}, secret.New([]byte("x")), io.Discard); err == nil {
		t.Error("a program was started that is not there")
	}
}

// A program that ended makes an error of every question.
func TestProgramThatDied(t *testing.T) {
	k, err := open(t, "die", "1234")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := k.Decrypt(nil, make([]byte, 256), &rsa.OAEPOptions{Hash: crypto.SHA1}); err == nil || !strings.Contains(err.Error(), "does not answer") {
			t.Errorf("%v", err)
		}
	}
}
