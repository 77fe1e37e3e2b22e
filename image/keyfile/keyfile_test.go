package keyfile

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/secret"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func openssl(t testing.TB, args ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("openssl is not installed: apt-get install openssl")
		}
		t.Skip("openssl is not installed: apt-get install openssl")
	}
	cmd := exec.CommandContext(t.Context(), "openssl", args...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, &errs)
	}
	return out
}

// newKey writes a key without a password to a file.
func newKey(t testing.TB) (file string, der []byte) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "key")
	must(t, os.WriteFile(file, openssl(t, "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"), 0o600))
	raw, err := os.ReadFile(file)
	must(t, err)
	block, _ := pem.Decode(raw)
	return file, block.Bytes
}

// What openssl locks is opened, in every form that it offers and we read.
func TestUnlock(t *testing.T) {
	file, want := newKey(t)
	word := secret.New([]byte("open sesame"))
	for name, tt := range map[string]struct {
		args   []string
		reason string // empty: it opens
	}{
		"its default":   {nil, ""},
		"AES-128":       {[]string{"-v2", "aes-128-cbc"}, ""},
		"AES-192":       {[]string{"-v2", "aes-192-cbc", "-iter", "1"}, ""},
		"SHA-1":         {[]string{"-v2prf", "hmacWithSHA1"}, ""},
		"SHA-512":       {[]string{"-v2prf", "hmacWithSHA512"}, ""},
		"scrypt":        {[]string{"-scrypt"}, ""},
		"triple DES":    {[]string{"-v2", "des3"}, "AES in CBC mode is"},
		"an old scheme": {[]string{"-v1", "PBE-SHA1-3DES"}, "PBES2 is"},
		"too long":      {[]string{"-iter", "5000001"}, "iterations"},
	} {
		t.Run(name, func(t *testing.T) {
			doc := secret.New(openssl(t, append([]string{"pkcs8", "-topk8", "-in", file, "-passout", "pass:open sesame"}, tt.args...)...))
			if !Locked(doc) {
				t.Error("it does not look locked")
			}
			got, err := Unlock(doc, word)
			if tt.reason != "" {
				if err == nil || !strings.Contains(err.Error(), tt.reason) {
					t.Errorf("%v, want %q", err, tt.reason)
				}
				return
			}
			must(t, err)
			if block, _ := pem.Decode(got.Reveal()); block == nil || !bytes.Equal(block.Bytes, want) || Locked(got) {
				t.Error("another key came out")
			}
			if _, err := Unlock(doc, secret.New([]byte("open barley"))); !errors.Is(err, ErrPassword) {
				t.Errorf("a wrong password: %v", err)
			}
		})
	}
}

// What is locked here openssl opens, and so do we.
func TestLock(t *testing.T) {
	file, want := newKey(t)
	plain, err := os.ReadFile(file)
	must(t, err)
	word := secret.New([]byte("open sesame"))
	locked, err := Lock(secret.New(plain), word)
	must(t, err)
	must(t, os.WriteFile(file, locked.Reveal(), 0o600))
	if got := openssl(t, "pkcs8", "-in", file, "-passin", "pass:open sesame", "-outform", "DER", "-topk8", "-nocrypt"); !bytes.Equal(got, want) {
		t.Error("openssl reads another key")
	}
	again, err := Unlock(locked, word)
	must(t, err)
	if block, _ := pem.Decode(again.Reveal()); !bytes.Equal(block.Bytes, want) {
		t.Error("we read another key")
	}
	if _, err := Lock(secret.New(plain), secret.Bytes{}); err == nil {
		t.Error("locked without a password")
	}
}

func TestUnlockRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"no PEM":        "key",
		"no password":   "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
		"the old form":  "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n",
		"not DER":       "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
		"far too large": strings.Repeat("x", maxFile+1),
	} {
		if _, err := Unlock(secret.New([]byte(text)), secret.New([]byte("x"))); err == nil || errors.Is(err, ErrPassword) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Whatever is accepted is within the limits, and means a key or a wrong password.
func FuzzParseLock(f *testing.F) {
	l := lock{salt: []byte("salt"), iterations: 1, keySize: 32, iv: make([]byte, 16)}
	der, err := l.marshal(make([]byte, 32))
	must(f, err)
	f.Add(der)
	f.Fuzz(func(t *testing.T, der []byte) {
		l, err := parseLock(der)
		if err != nil {
			return
		}
		if l.iterations = 1; l.scrypt != nil { // the cost is the caller's
			l.scrypt = &scryptCost{2, 1, 1}
		}
		if plain, err := l.open(secret.New([]byte("x"))); err == nil {
			_, _ = x509.ParsePKCS8PrivateKey(plain)
		}
	})
}
