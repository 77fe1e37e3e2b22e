package image

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/image/crypt"
	"github.com/vouchsafe-cc/vouchsafe/image/pull"
	"github.com/vouchsafe-cc/vouchsafe/image/ship"
	"github.com/vouchsafe-cc/vouchsafe/image/store"
	"github.com/vouchsafe-cc/vouchsafe/image/trust"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

const kid = "kbs:///prod/image/app"

// An owner has key pairs and a certificate in files.
type owner struct{ *tool }

func newOwner(t testing.TB, p *tool) owner {
	t.Helper()
	o := owner{p}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	text := func(name, kind string, der []byte, err error) {
		must(t, err)
		o.write(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	der, err := x509.MarshalPKCS8PrivateKey(rsaKey)
	text("rsa.key", "PRIVATE KEY", der, err)
	der, err = x509.MarshalPKIXPublicKey(rsaKey.Public())
	text("rsa.pub", "PUBLIC KEY", der, err)
	der, err = x509.MarshalPKCS8PrivateKey(ecKey)
	text("ec.key", "PRIVATE KEY", der, err)
	der, err = x509.MarshalPKIXPublicKey(ecKey.Public())
	text("ec.pub", "PUBLIC KEY", der, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "owner"}, NotAfter: time.Unix(1<<32, 0)}
	der, err = x509.CreateCertificate(rand.Reader, template, template, rsaKey.Public(), rsaKey)
	text("rsa.crt", "CERTIFICATE", der, err)
	return o
}

func (o owner) recipient(scheme crypt.Scheme, file string) crypt.Recipient {
	o.t.Helper()
	r, err := crypt.NewRecipient(scheme, o.read(file))
	must(o.t, err)
	return r
}

func (o owner) ring() *crypt.Keyring {
	o.t.Helper()
	ring := new(crypt.Keyring)
	for _, f := range []string{"rsa.key", "ec.key"} {
		must(o.t, ring.Add(secret.New(o.read(f))))
	}
	return ring
}

// shelve writes the image into an OCI layout, under the tag 1.
func (w *world) shelve(dir string) {
	w.Helper()
	path, err := layout.Write(dir, empty.Index)
	must(w, err)
	must(w, path.AppendImage(w.image, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "1"}),
		layout.WithPlatform(v1.Platform{OS: "linux", Architecture: runtime.GOARCH})))
}

// shelved reads an image out of a layout by its tag.
func shelved(t testing.TB, dir, tag string) v1.Image {
	t.Helper()
	index, err := layout.ImageIndexFromPath(dir)
	must(t, err)
	list, err := index.IndexManifest()
	must(t, err)
	for _, m := range list.Manifests {
		if m.Annotations["org.opencontainers.image.ref.name"] == tag {
			img, err := index.Image(m.Digest)
			must(t, err)
			return img
		}
	}
	t.Fatalf("no image is called %s", tag)
	return nil
}

// same compares the layers, byte by byte, by their digests.
func same(t testing.TB, got, want v1.Image) {
	t.Helper()
	have, err := got.Manifest()
	must(t, err)
	wanted, err := want.Manifest()
	must(t, err)
	if len(have.Layers) != len(wanted.Layers) || len(have.Layers) == 0 {
		t.Fatalf("%d layers, want %d", len(have.Layers), len(wanted.Layers))
	}
	for i, l := range have.Layers {
		if l.Digest != wanted.Layers[i].Digest || l.MediaType != wanted.Layers[i].MediaType {
			t.Errorf("layer %d became %s, %s", i, l.Digest, l.MediaType)
		}
	}
}

// What we encrypt containerd's library decrypts.
func TestImgcryptDecrypts(t *testing.T) {
	o := newOwner(t, newTool(t, "imgcrypt"))
	w := newWorld(t, true)
	for name, tt := range map[string]struct {
		to  crypt.Recipient
		key string
	}{
		"JWE, RSA":   {o.recipient(crypt.SchemeJWE, "rsa.pub"), "rsa.key"},
		"JWE, ECDSA": {o.recipient(crypt.SchemeJWE, "ec.pub"), "ec.key"},
		"PKCS#7":     {o.recipient(crypt.SchemePKCS7, "rsa.crt"), "rsa.key"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "layout")
			_, err := ship.Encrypt(t.Context(), w.host+"/app:v1", "oci:"+dir+":1", ship.EncryptOptions{
				KID: kid, KEK: secret.Random(32), Recipients: []crypt.Recipient{tt.to}, Registry: w.config(), Check: true,
			})
			must(t, err)
			o.t = t
			keys := []string{o.file(tt.key)}
			if name == "PKCS#7" {
				keys = append(keys, o.file("rsa.crt"))
			}
			o.run(append([]string{"decrypt", dir, "1", "plain"}, keys...)...)
			same(t, shelved(t, dir, "plain"), w.image)
		})
	}
}

// What containerd's library encrypts we pull.
func TestImgcryptEncrypts(t *testing.T) {
	o := newOwner(t, newTool(t, "imgcrypt"))
	w := newWorld(t, true)
	for name, to := range map[string]string{"JWE, RSA": "jwe:" + o.file("rsa.pub"), "JWE, ECDSA": "jwe:" + o.file("ec.pub"), "PKCS#7": "pkcs7:" + o.file("rsa.crt")} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "layout")
			w.shelve(dir)
			o.t = t
			o.run("encrypt", dir, "1", "encrypted", to)
			w.push(w.host+"/theirs:1", shelved(t, dir, "encrypted"))
			w.pull(t, w.host+"/theirs:1", o.ring())
		})
	}
}

// pull verifies, decrypts and unpacks: diffIDs hold, or it fails.
func (w *world) pull(t *testing.T, ref string, u crypt.KeyUnwrapper) {
	t.Helper()
	s, err := store.Open(t.TempDir())
	must(t, err)
	defer func() { must(t, s.Close()) }()
	p, err := pull.New(pull.Config{
		Store: s, Registry: w.config(), Unwrapper: u,
		Policy: func(context.Context) (*trust.Policy, error) {
			return trust.ParsePolicy([]byte(`{"default":[{"type":"insecureAcceptAnything"}],"transports":{}}`))
		},
	})
	must(t, err)
	img, err := p.Pull(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	must(t, img.Release())
}

// containerd's library asks our key provider, run for each layer and over gRPC,
// and what it wraps so is a packet that guests open.
func TestImgcryptAsksTheKeyProvider(t *testing.T) {
	kbsctl, err := filepath.Abs("../../../bin/kbsctl")
	must(t, err)
	if _, err := os.Stat(kbsctl); err != nil {
		t.Skip("kbsctl is not built: make build")
	}
	kek := secret.Random(32)
	for name, serve := range map[string]func(o *tool) map[string]any{
		"as a program": func(o *tool) map[string]any {
			return map[string]any{"cmd": map[string]any{"path": kbsctl, "args": []string{"image", "keyprovider", "--with-kek", kid + "=" + o.file("kek")}}}
		},
		"over gRPC": func(o *tool) map[string]any {
			socket := o.file("socket")
			cmd := exec.CommandContext(o.t.Context(), kbsctl, "image", "keyprovider", "--with-kek", kid+"="+o.file("kek"), "--listen", "unix://"+socket)
			cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
			must(o.t, cmd.Start())
			o.t.Cleanup(func() { _ = cmd.Wait() })
			for {
				if _, err := os.Stat(socket); err == nil {
					return map[string]any{"grpc": "unix://" + socket}
				}
				select {
				case <-time.After(20 * time.Millisecond):
				case <-o.t.Context().Done():
					o.t.Fatal("the key provider does not come up")
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := newTool(t, "imgcrypt")
			o.write("kek", kek.Reveal())
			config, err := json.Marshal(map[string]any{"key-providers": map[string]any{"vouchsafe": serve(o)}})
			must(t, err)
			o.env = append(o.env, "OCICRYPT_KEYPROVIDER_CONFIG="+o.write("providers.json", config))
			w := newWorld(t, true)
			dir := filepath.Join(t.TempDir(), "layout")
			w.shelve(dir)
			o.run("encrypt", dir, "1", "encrypted", "provider:vouchsafe:keyid="+kid+"::keypath="+o.file("kek"))
			w.push(w.host+"/theirs:1", shelved(t, dir, "encrypted"))
			w.pull(t, w.host+"/theirs:1", crypt.KEKs(func(context.Context, string) (secret.Bytes, error) { return kek, nil }))
			o.run("decrypt", dir, "encrypted", "plain", "provider:vouchsafe")
			same(t, shelved(t, dir, "plain"), w.image)
		})
	}
}
