// Package token shows that an image is opened and signed with private keys that never
// leave a PKCS#11 token: kbsctl, kbs-pkcs11 and SoftHSM. That the packets are
// ocicrypt's is shown in image/crypt; Debian's skopeo was built without tokens.
package token

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"

	"github.com/vouchsafe-cc/vouchsafe/tests/internal/programs"
)

const module = "/usr/lib/softhsm/libsofthsm2.so"

// A stage has the two programs, a token with a key pair, and an image.
type stage struct {
	*testing.T
	dir string
	env []string
	pin string // file

	word string // the PIN itself
}

func newStage(t *testing.T) *stage {
	t.Helper()
	for _, need := range []string{module, "/usr/bin/softhsm2-util"} {
		if _, err := os.Stat(need); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatal(err)
			}
			t.Skip("SKIP: no SoftHSM (Debian: softhsm2 and libsofthsm2)")
		}
	}
	s := &stage{T: t, dir: t.TempDir()}
	s.env = append(os.Environ(), "SOFTHSM2_CONF="+s.path("softhsm2.conf"), "HOME="+s.dir, "PATH="+s.path("bin")+":"+os.Getenv("PATH"))
	for _, err := range []error{programs.Build(t.Context(), s.path("bin"), "kbs/cmd/kbsctl"), programs.BuildC(t.Context(), s.path("bin"), "kbs-pkcs11/cmd/kbs-pkcs11")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	pin := make([]byte, 8)
	_, _ = rand.Read(pin)
	word := hex.EncodeToString(pin)
	s.pin = s.write("pin", word+"\n")
	s.write("softhsm2.conf", "directories.tokendir = "+s.dir+"\nlog.level = ERROR\n")
	s.run("softhsm2-util", "--init-token", "--free", "--label", "owner", "--pin", word, "--so-pin", word)
	s.word = word
	s.importKey("image", "a1ff", "RSA", "rsa_keygen_bits:3072")
	s.importKey("other", "b2", "RSA", "rsa_keygen_bits:3072")
	s.importKey("p256", "c3", "EC", "ec_paramgen_curve:P-256")
	s.importKey("p384", "d4", "EC", "ec_paramgen_curve:P-384")
	s.importKey("ed25519", "e4", "ED25519")
	s.image()
	return s
}

// importKey puts a key pair into the token; it cannot be read out again.
func (s *stage) importKey(label, id, algorithm string, options ...string) {
	s.Helper()
	file := s.path(label + ".key")
	args := []string{"genpkey", "-algorithm", algorithm, "-out", file}
	for _, o := range options {
		args = append(args, "-pkeyopt", o)
	}
	s.run("openssl", args...)
	s.run("openssl", "pkey", "-in", file, "-pubout", "-out", s.path(label+".pub"))
	s.run("softhsm2-util", "--import", file, "--token", "owner", "--label", label, "--id", id, "--pin", s.word)
	if err := os.Remove(file); err != nil {
		s.Fatal(err)
	}
}

func (s *stage) image() {
	s.Helper()
	img, err := random.Image(3000, 2)
	if err != nil {
		s.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		s.Fatal(err)
	}
	config.OS, config.Architecture = "linux", "amd64"
	if img, err = mutate.ConfigFile(img, config); err != nil {
		s.Fatal(err)
	}
	l, err := layout.Write(s.path("app"), empty.Index)
	if err == nil {
		err = l.AppendImage(img, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "1"}))
	}
	if err != nil {
		s.Fatal(err)
	}
}

func (s *stage) path(name string) string { return filepath.Join(s.dir, name) }

func (s *stage) write(name, text string) string {
	s.Helper()
	if err := os.WriteFile(s.path(name), []byte(text), 0o600); err != nil {
		s.Fatal(err)
	}
	return s.path(name)
}

func (s *stage) try(program string, args ...string) (string, error) {
	if b := s.path("bin/" + program); program == "kbsctl" {
		program = b
	}
	cmd := exec.CommandContext(s.Context(), program, args...)
	cmd.Env, cmd.Dir = s.env, s.dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (s *stage) run(program string, args ...string) string {
	s.Helper()
	out, err := s.try(program, args...)
	if err != nil {
		s.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	return out
}

func (s *stage) fails(reason string, args ...string) {
	s.Helper()
	if out, err := s.try("kbsctl", args...); err == nil || !strings.Contains(out, reason) {
		s.Errorf("kbsctl %s: %v, want %q in\n%s", strings.Join(args, " "), err, reason, out)
	}
}

// uri names a key of the token by words such as object=image.
func (s *stage) uri(which string) string {
	return fmt.Sprintf("pkcs11:token=owner;%s?module-path=%s&pin-source=file:%s", which, module, s.pin)
}

// server is a registry for one test.
func server(t *testing.T) (host string) {
	t.Helper()
	s := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// What the token signs is verified by the public half, which lies in a file.
func TestSignedByAToken(t *testing.T) {
	s, host := newStage(t), server(t)
	other := s.write("other.json", fmt.Sprintf(`{"default":[{"type":"sigstoreSigned","keyPath":%q}],"transports":{}}`, s.path("other.pub")))
	for _, key := range []string{"p256", "p384", "image", "ed25519"} {
		ref := host + "/" + key + ":1"
		s.run("kbsctl", "image", "encrypt", "oci:app:1", "--to", ref, "--recipient", "jwe:image.pub", "--sign", s.uri("object="+key), "--insecure-plain-http", host)
		policy := s.write(key+".json", fmt.Sprintf(`{"default":[{"type":"sigstoreSigned","keyPath":%q}],"transports":{}}`, s.path(key+".pub")))
		s.run("kbsctl", "image", "verify", ref, "--policy", policy, "--insecure-plain-http", host)
		s.fails("by a key that calls itself", "image", "verify", ref, "--policy", other, "--insecure-plain-http", host)
		s.run("kbsctl", "image", "sign", ref, "--key", s.uri("object=other"), "--form", "tag", "--insecure-plain-http", host)
		s.run("kbsctl", "image", "verify", ref, "--policy", other, "--insecure-plain-http", host)
	}
	s.fails("no private key that may sign", "image", "sign", host+"/p256:1", "--key", s.uri("object=none"), "--insecure-plain-http", host)
	s.fails("want one", "image", "sign", host+"/p256:1", "--key", strings.Replace(s.uri("object=p256"), "token=owner", "token=owner;serial=0", 1), "--insecure-plain-http", host)
	// What is too long to be signed in a token is told, and ends nothing.
	s.fails("signs messages of", "image", "sign", host+"/p256:1", "--key", s.uri("object=ed25519"), "--annotation", "a="+strings.Repeat("x", 33<<10), "--insecure-plain-http", host)
}

// Notation's signatures, with the hash that its specification has for each size of
// keys (signature specification, "Algorithm Selection"), are judged under a root.
func TestNotationByAToken(t *testing.T) {
	s, host := newStage(t), server(t)
	s.importKey("p521", "e5", "EC", "ec_paramgen_curve:P-521")
	s.importKey("rsa2048", "f6", "RSA", "rsa_keygen_bits:2048")
	s.importKey("rsa4096", "f7", "RSA", "rsa_keygen_bits:4096")
	ca := newAuthority(t)
	root := s.write("root.pem", string(ca.root))
	stranger := s.write("stranger.pem", string(newAuthority(t).root))
	policy := func(root string) string {
		return s.write("notation.json", fmt.Sprintf(`{"default":[{"type":"notationSigned","caPath":%q,
			"trustedIdentities":["x509.subject: C=DE, ST=Berlin, O=Shop"],"insecureIgnoreRevocation":true}],"transports":{}}`, root))
	}
	sign := func(key, chain string, more ...string) []string {
		return append([]string{"image", "sign", host + "/app:" + key, "--key", s.uri("object=" + key), "--certificate", chain, "--insecure-plain-http", host}, more...)
	}
	for key, algorithm := range map[string]string{"p256": "ES256", "p384": "ES384", "p521": "ES512", "rsa2048": "PS256", "image": "PS384", "rsa4096": "PS512"} {
		ref := host + "/app:" + key
		s.run("kbsctl", "image", "encrypt", "oci:app:1", "--to", ref, "--recipient", "jwe:image.pub", "--insecure-plain-http", host)
		s.fails("", "image", "verify", ref, "--policy", policy(root), "--insecure-plain-http", host)
		chain := s.write(key+".pem", ca.chain(s, key))
		s.run("kbsctl", sign(key, chain, "--form", "notation", "--annotation", "version=2")...)
		if out := s.run("kbsctl", "image", "verify", ref, "--policy", policy(root), "--insecure-plain-http", host, "-o", "json"); !strings.Contains(out, "notation-jws") {
			t.Errorf("%s: %s", key, out)
		}
		s.fails("", "image", "verify", ref, "--policy", policy(stranger), "--insecure-plain-http", host)
		if got := notationAlgorithm(t, ref); got != algorithm {
			t.Errorf("%s: signed by %s, want %s", key, got, algorithm)
		}
	}
	s.fails("not that of the signing key", sign("p256", s.path("p384.pem"), "--form", "notation")...)
	s.fails("Notation", sign("ed25519", s.write("ed25519.pem", ca.chain(s, "ed25519")), "--form", "notation")...)

	// A token that does not know PSS is named for what it lacks, and still signs
	// the other forms.
	s.write("softhsm2.conf", "directories.tokendir = "+s.dir+"\nlog.level = ERROR\nslots.mechanisms = CKM_RSA_PKCS,CKM_ECDSA\n")
	s.fails("CKM_RSA_PKCS_PSS with SHA-384", sign("image", s.path("image.pem"), "--form", "notation")...)
	s.run("kbsctl", "image", "sign", host+"/app:image", "--key", s.uri("object=image"), "--insecure-plain-http", host)
}

func TestKeyInAToken(t *testing.T) {
	s := newStage(t)
	s.run("openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", s.path("partner.key"))
	s.run("openssl", "pkey", "-in", s.path("partner.key"), "-pubout", "-out", s.path("partner.pub"))
	if err := os.Chmod(s.path("partner.key"), 0o600); err != nil {
		t.Fatal(err)
	}

	// Encrypted for the token's key, whose public half the token tells or a file.
	for name, recipient := range map[string]string{"uri": s.uri("object=image"), "file": "pkcs11:image.pub", "jwe": "jwe:image.pub"} {
		to := "oci:" + name + ":1"
		s.run("kbsctl", "image", "encrypt", "oci:app:1", "--to", to, "--recipient", recipient)
		s.run("kbsctl", "image", "rekey", to, "--recipient", "jwe:partner.pub", "--with-key", s.uri("object=image"))
		if out := s.run("kbsctl", "image", "inspect", to); !strings.Contains(out, "jwe") {
			t.Errorf("%s: %s", name, out)
		}
		s.run("kbsctl", "image", "rekey", to, "--recipient", "jwe:image.pub", "--replace", "--with-key", "partner.key") // the partner really can
	}

	// By its id, with the PIN as a password file.
	s.run("kbsctl", "image", "encrypt", "oci:app:1", "--to", "oci:id:1", "--recipient", s.uri("id=%A1%FF"))
	bare := "pkcs11:token=owner;id=%a1%ff?module-path=" + module
	s.run("kbsctl", "image", "rekey", "oci:id:1", "--recipient", "jwe:partner.pub", "--with-key", bare, "--password-file", s.pin)

	s.fails("no private key opens the PKCS#11 packet", "image", "rekey", "oci:id:1", "--recipient", "jwe:partner.pub", "--replace", "--with-key", s.uri("object=other"))
	s.fails("no such key", "image", "rekey", "oci:id:1", "--recipient", "jwe:partner.pub", "--with-key", s.uri("object=none"))
	s.fails("locks itself", "image", "rekey", "oci:id:1", "--recipient", "jwe:partner.pub", "--with-key", bare, "--password-file", s.pin, "--password-file", s.pin)
	wrong := s.write("wrong", "0000\n")
	s.fails("PIN was refused", "image", "rekey", "oci:id:1", "--recipient", "jwe:partner.pub", "--with-key", bare, "--password-file", wrong)
	s.fails("others see", "image", "rekey", "oci:id:1", "--recipient", "jwe:partner.pub", "--with-key", bare+"&pin-value=1")
}
