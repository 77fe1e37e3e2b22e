package authenticode_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure/authenticode"
	"github.com/vouchsafe-cc/vouchsafe/measure/boot/boottest"
	"github.com/vouchsafe-cc/vouchsafe/measure/efi"
	"github.com/vouchsafe-cc/vouchsafe/measure/internal/evidencetest"
)

// signers are keys with certificates: a CA's, one that it issued, a stranger's.
type signer struct {
	key         *rsa.PrivateKey
	certificate *x509.Certificate
}

var signers = sync.OnceValue(func() map[string]signer {
	out := map[string]signer{}
	for i, name := range []string{"ca", "leaf", "stranger"} {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		by := signer{key, nil}
		if name == "leaf" {
			by = out["ca"]
		}
		out[name] = signer{key, certify(int64(i+1), name, key.Public(), by)}
	}
	return out
})

// certify makes a certificate, by itself where nobody else is named. It has ended
// long ago: firmware knows no time.
func certify(serial int64, name string, public crypto.PublicKey, by signer) *x509.Certificate {
	t := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1, 0),
		IsCA: true, BasicConstraintsValid: true,
	}
	parent := by.certificate
	if parent == nil {
		parent = t
	}
	raw, err := x509.CreateCertificate(rand.Reader, t, parent, public, by.key)
	if err != nil {
		panic(err)
	}
	c, err := x509.ParseCertificate(raw)
	if err != nil {
		panic(err)
	}
	return c
}

func image() []byte {
	return boottest.Image(boottest.Section{Name: ".text", Data: bytes.Repeat([]byte("code"), 1000)}, boottest.Section{Name: ".data", Data: []byte("data")})
}

func read(raw []byte) ([]authenticode.Signature, error) {
	p, err := efi.ParsePE(raw)
	if err != nil {
		return nil, err
	}
	return authenticode.Read(p)
}

func TestSign(t *testing.T) {
	leaf, ca, stranger := signers()["leaf"], signers()["ca"], signers()["stranger"]
	signed, err := authenticode.Sign(image(), leaf.key, leaf.certificate)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := authenticode.Sign(image(), leaf.key, leaf.certificate); err != nil || !bytes.Equal(signed, again) {
		t.Errorf("signed twice, and not the same: %v", err)
	}
	all, err := read(signed)
	if err != nil || len(all) != 1 {
		t.Fatalf("%d signatures, %v", len(all), err)
	}
	if s := all[0]; !s.By(leaf.certificate) || !s.By(ca.certificate) || s.By(stranger.certificate) {
		t.Errorf("signed by %v", s.Signer.Subject)
	}
	if all, err := read(image()); err != nil || len(all) != 0 {
		t.Errorf("an image without: %d signatures, %v", len(all), err)
	}
	// Every byte that is signed matters: of the headers, of the content.
	for _, at := range []int{2, 0x305, 0x600, 0x600 + 3999, len(image()) - 1} {
		other := bytes.Clone(signed)
		other[at] ^= 1
		if _, err := read(other); !errors.Is(err, authenticode.ErrSignature) {
			t.Errorf("byte %#x is another: %v", at, err)
		}
	}
	if other, err := authenticode.Sign(append(image(), make([]byte, 8)...), leaf.key, leaf.certificate); err != nil || bytes.HasPrefix(other, signed) {
		t.Errorf("a longer image: %v", err)
	}
}

func TestRefused(t *testing.T) {
	leaf, stranger := signers()["leaf"], signers()["stranger"]
	signed, err := authenticode.Sign(image(), leaf.key, leaf.certificate)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		image       []byte
		key         crypto.Signer
		certificate *x509.Certificate
		want        string
	}{
		"another's certificate": {image(), leaf.key, stranger.certificate, "of another key"},
		"signed already":        {signed, leaf.key, leaf.certificate, "a signature already"},
		"an odd length":         {append(image(), 1), leaf.key, leaf.certificate, "no multiple of 8"},
		"no image":              {[]byte("MZ"), leaf.key, leaf.certificate, "malformed PE image"},
		"a key of a curve":      {image(), curve, certify(9, "curve", curve.Public(), signers()["ca"]), "firmware wants RSA"},
	} {
		if _, err := authenticode.Sign(c.image, c.key, c.certificate); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The field's tools agree: sbverify about what is signed here, and this package
// about what sbsign signs.
func TestOtherTools(t *testing.T) {
	for _, p := range []string{"sbverify", "sbsign"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is not installed, which judges the signatures here (make test installs it)", p)
		}
	}
	dir, leaf, stranger := t.TempDir(), signers()["leaf"], signers()["stranger"]
	signed, err := authenticode.Sign(image(), leaf.key, leaf.certificate)
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.Clone(signed)
	changed[0x600] ^= 1
	key, err := x509.MarshalPKCS8PrivateKey(leaf.key)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"plain.efi": image(), "signed.efi": signed, "changed.efi": changed,
		"key.pem":      pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
		"leaf.pem":     pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.certificate.Raw}),
		"stranger.pem": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: stranger.certificate.Raw}),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) error {
		cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		t.Logf("%v: %s", args, out)
		return err
	}
	if err := run("sbverify", "--cert", "leaf.pem", "signed.efi"); err != nil {
		t.Errorf("sbverify refuses it: %v", err)
	}
	if err := run("sbverify", "--cert", "stranger.pem", "signed.efi"); err == nil {
		t.Error("sbverify takes it as a stranger's")
	}
	if err := run("sbverify", "--cert", "leaf.pem", "changed.efi"); err == nil {
		t.Error("sbverify takes a changed image")
	}
	if err := run("sbsign", "--key", "key.pem", "--cert", "leaf.pem", "--output", "theirs.efi", "plain.efi"); err != nil {
		t.Fatal(err)
	}
	theirs, err := os.ReadFile(filepath.Join(dir, "theirs.efi"))
	if err != nil {
		t.Fatal(err)
	}
	if all, err := read(theirs); err != nil || len(all) != 1 || !all[0].By(leaf.certificate) {
		t.Errorf("%d signatures of sbsign's, %v", len(all), err)
	}
}

// Signatures that osslsigncode made.
func TestRecorded(t *testing.T) {
	for _, name := range []string{"two-sections", "trailing-data", "sections-out-of-order"} {
		all, err := read(evidencetest.File(t, "launch", "own", "authenticode", name+".signed-sha256.efi"))
		if err != nil || len(all) != 1 {
			t.Errorf("%s: %d signatures, %v", name, len(all), err)
		}
	}
}

// What is accepted is over just this image. Keys are others in each process of the
// fuzzer, so whose signature it is cannot be told here.
func FuzzRead(f *testing.F) {
	leaf := signers()["leaf"]
	signed, err := authenticode.Sign(image(), leaf.key, leaf.certificate)
	if err != nil {
		f.Fatal(err)
	}
	pkcs7 := signed[len(image())+8:]
	f.Add(pkcs7)
	f.Add([]byte{0x30, 0xff})
	f.Add([]byte{0x30, 0x84, 0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0x30, 0x80, 0x06, 0x00})
	f.Add([]byte{})
	p, err := efi.ParsePE(image())
	if err != nil {
		f.Fatal(err)
	}
	digest := sha256.New()
	if err := p.Authenticode(digest); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, pkcs7 []byte) {
		raw, err := p.WithCertificate(pkcs7)
		if err != nil {
			t.Fatal(err)
		}
		all, err := read(raw)
		if err != nil {
			return
		}
		if len(all) != 1 || !bytes.Contains(pkcs7, digest.Sum(nil)) {
			t.Errorf("%d signatures, of another image", len(all))
		}
	})
}
