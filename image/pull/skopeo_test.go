package pull_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/vouchsafe-cc/vouchsafe/image/crypt"
	"github.com/vouchsafe-cc/vouchsafe/image/internal/imagetest"
	"github.com/vouchsafe-cc/vouchsafe/image/pull"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/image/ship"
	"github.com/vouchsafe-cc/vouchsafe/image/trust"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

func needSkopeo(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("skopeo"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("skopeo is not installed: apt-get install skopeo")
		}
		t.Skip("skopeo is not installed: apt-get install skopeo")
	}
}

// skopeo runs Debian's skopeo, which has ocicrypt in it.
func skopeo(t *testing.T, args ...string) {
	t.Helper()
	args = append([]string{"--insecure-policy", "--tmpdir", t.TempDir()}, args...)
	if out, err := exec.CommandContext(t.Context(), "skopeo", args...).CombinedOutput(); err != nil {
		t.Fatalf("skopeo %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// owner has key pairs: as files for skopeo, and parsed for us.
type owner struct {
	dir  string
	keys *crypt.Keyring
}

func (o owner) file(name string) string { return filepath.Join(o.dir, name) }

func newOwner(t *testing.T) owner {
	t.Helper()
	o := owner{dir: t.TempDir(), keys: new(crypt.Keyring)}
	write := func(name, kind string, der []byte, err error) {
		imagetest.Must(t, err)
		imagetest.Must(t, os.WriteFile(o.file(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	imagetest.Must(t, err)
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	imagetest.Must(t, err)
	for name, key := range map[string]crypto.Signer{"rsa": rsaKey, "ec": ecKey} {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		write(name+".key", "PRIVATE KEY", der, err)
		imagetest.Must(t, o.keys.Add(secret.Copy(der)))
		der, err = x509.MarshalPKIXPublicKey(key.Public())
		write(name+".pub", "PUBLIC KEY", der, err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "owner"}, NotAfter: time.Unix(1<<32, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, rsaKey.Public(), rsaKey)
	write("rsa.crt", "CERTIFICATE", der, err)
	return o
}

// threeLayers are one of each compression.
func threeLayers(t *testing.T) []imagetest.Layer {
	t.Helper()
	gz := imagetest.GzipLayer(t, imagetest.File("gzip", "one"))
	archive := imagetest.Tar(t, imagetest.File("plain", "two"))
	plain := imagetest.Layer{MediaType: ocispec.MediaTypeImageLayer, Blob: archive, DiffID: digest.FromBytes(archive)}
	archive = imagetest.Tar(t, imagetest.File("zstd", "three"))
	zst := imagetest.Layer{MediaType: ocispec.MediaTypeImageLayerZstd, Blob: imagetest.Zstd(t, archive), DiffID: digest.FromBytes(archive)}
	return []imagetest.Layer{gz, plain, zst}
}

// What skopeo encrypts we pull.
func TestSkopeoEncrypts(t *testing.T) {
	needSkopeo(t)
	w, o := newWorld(t), newOwner(t)
	imagetest.Push(t, w.Server, w.Host+"/plain/app:v1", nil, threeLayers(t)...)
	config := w.config()
	config.Unwrapper = crypt.Chain{w, o.keys}
	config.Policy = func(context.Context) (*trust.Policy, error) {
		return trust.ParsePolicy([]byte(`{"default":[{"type":"insecureAcceptAnything"}],"transports":{}}`))
	}
	p, err := pull.New(config)
	imagetest.Must(t, err)
	for name, recipients := range map[string][]string{
		"jwe-rsa": {"jwe:" + o.file("rsa.pub")}, "jwe-ec": {"jwe:" + o.file("ec.pub")}, "pkcs7": {"pkcs7:" + o.file("rsa.crt")},
		"several": {"jwe:" + newOwner(t).file("rsa.pub"), "pkcs7:" + newOwner(t).file("rsa.crt"), "jwe:" + o.file("ec.pub")},
	} {
		t.Run(name, func(t *testing.T) {
			ref := w.Host + "/skopeo/" + name + ":v1"
			args := []string{"copy", "--src-tls-verify=false", "--dest-tls-verify=false"}
			for _, r := range recipients {
				args = append(args, "--encryption-key", r)
			}
			skopeo(t, append(args, "docker://"+w.Host+"/plain/app:v1", "docker://"+ref)...)
			img, err := p.Pull(t.Context(), ref)
			if err != nil {
				t.Fatalf("%v: %v", err, cause(err))
			}
			defer func() { imagetest.Must(t, img.Release()) }()
			root := filepath.Join(t.TempDir(), "root")
			imagetest.Must(t, os.Mkdir(root, 0o755))
			imagetest.Must(t, img.Mount(t.Context(), root))
			for file, want := range map[string]string{"gzip": "one", "plain": "two", "zstd": "three"} {
				if b, err := os.ReadFile(filepath.Join(root, file)); err != nil || string(b) != want {
					t.Errorf("%s: %q, %v", file, b, err)
				}
			}
		})
	}
}

// What we encrypt skopeo decrypts to the layers that there were, also when the
// keys were wrapped for it later.
func TestSkopeoDecrypts(t *testing.T) {
	needSkopeo(t)
	w, o := newWorld(t), newOwner(t)
	layers := threeLayers(t)
	imagetest.Push(t, w.Server, w.Host+"/plain/app:v1", nil, layers...)
	recipient := func(kind crypt.Scheme, file string) crypt.Recipient {
		doc, err := os.ReadFile(o.file(file))
		imagetest.Must(t, err)
		r, err := crypt.NewRecipient(kind, doc)
		imagetest.Must(t, err)
		return r
	}
	for name, c := range map[string]struct {
		to   []crypt.Recipient
		keys []string
	}{
		"jwe-rsa": {[]crypt.Recipient{recipient(crypt.SchemeJWE, "rsa.pub")}, []string{"rsa.key"}},
		"jwe-ec":  {[]crypt.Recipient{recipient(crypt.SchemeJWE, "ec.pub")}, []string{"ec.key"}},
		"pkcs7":   {[]crypt.Recipient{recipient(crypt.SchemePKCS7, "rsa.crt")}, []string{"rsa.key", "rsa.crt"}},
		"several": {[]crypt.Recipient{recipient(crypt.SchemeJWE, "rsa.pub"), recipient(crypt.SchemeJWE, "ec.pub")}, []string{"ec.key"}},
	} {
		for _, when := range []string{"encrypted", "rekeyed"} {
			t.Run(name+", "+when, func(t *testing.T) {
				ref := fmt.Sprintf("%s/ours/%s-%s:v1", w.Host, name, when)
				opt := ship.EncryptOptions{KID: kid, KEK: w.kek, Registry: w.Config()}
				if when == "encrypted" {
					opt.Recipients = c.to
				}
				_, err := ship.Encrypt(t.Context(), w.Host+"/plain/app:v1", ref, opt)
				imagetest.Must(t, err)
				if when == "rekeyed" {
					w.rekey(ref, ship.RekeyOptions{Recipients: c.to, Unwrapper: w})
				}
				args := []string{"copy", "--src-tls-verify=false"}
				for _, k := range c.keys {
					args = append(args, "--decryption-key", o.file(k))
				}
				dir := filepath.Join(t.TempDir(), "layout")
				skopeo(t, append(args, "docker://"+ref, "oci:"+dir+":v1")...)
				l, err := registry.OpenLayout(dir)
				imagetest.Must(t, err)
				res, err := registry.Resolve(t.Context(), l, "v1", registry.Native())
				imagetest.Must(t, err)
				for i, desc := range res.Image.Layers {
					if desc.Digest != digest.FromBytes(layers[i].Blob) || desc.MediaType != layers[i].MediaType {
						t.Errorf("layer %d became %s, %s", i, desc.Digest, desc.MediaType)
					}
				}
			})
		}
	}
}
