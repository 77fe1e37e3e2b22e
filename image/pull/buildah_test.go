package pull_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/vouchsafe-cc/vouchsafe/image/crypt"
	"github.com/vouchsafe-cc/vouchsafe/image/internal/imagetest"
	"github.com/vouchsafe-cc/vouchsafe/image/pull"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/image/ship"
	"github.com/vouchsafe-cc/vouchsafe/image/trust"
)

// newBuildah returns Debian's buildah, which has ocicrypt in it, over a storage
// of its own.
func newBuildah(t *testing.T) func(args ...string) {
	t.Helper()
	if _, err := exec.LookPath("buildah"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("buildah is not installed: apt-get install buildah")
		}
		t.Skip("buildah is not installed: apt-get install buildah")
	}
	if os.Geteuid() != 0 {
		t.Skip("buildah's storage needs root, or user namespaces")
	}
	dir := t.TempDir()
	policy := filepath.Join(dir, "policy.json")
	imagetest.Must(t, os.WriteFile(policy, []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`), 0o600))
	return func(args ...string) {
		t.Helper()
		all := append([]string{"--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"), "--storage-driver", "vfs"}, args[0],
			"--signature-policy", policy, "--tls-verify=false", "--quiet")
		if out, err := exec.CommandContext(t.Context(), "buildah", append(all, args[1:]...)...).CombinedOutput(); err != nil {
			t.Fatalf("buildah %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// What buildah encrypts we pull.
func TestBuildahEncrypts(t *testing.T) {
	buildah := newBuildah(t)
	w, o := newWorld(t), newOwner(t)
	plain := w.Host + "/plain/app:v1"
	imagetest.Push(t, w.Server, plain, nil, threeLayers(t)...)
	buildah("pull", "docker://"+plain)
	config := w.config()
	config.Unwrapper = o.keys
	config.Policy = func(context.Context) (*trust.Policy, error) {
		return trust.ParsePolicy([]byte(`{"default":[{"type":"insecureAcceptAnything"}],"transports":{}}`))
	}
	p, err := pull.New(config)
	imagetest.Must(t, err)
	for _, key := range []string{"jwe:" + o.file("rsa.pub"), "jwe:" + o.file("ec.pub"), "pkcs7:" + o.file("rsa.crt")} {
		ref := w.Host + "/buildah/app:v1"
		buildah("push", "--encryption-key", key, plain, "docker://"+ref)
		img, err := p.Pull(t.Context(), ref)
		if err != nil {
			t.Fatalf("%s: %v: %v", key, err, cause(err))
		}
		root := filepath.Join(t.TempDir(), "root")
		imagetest.Must(t, img.Mount(t.Context(), root))
		for file, want := range map[string]string{"gzip": "one", "plain": "two", "zstd": "three"} {
			if b, err := os.ReadFile(filepath.Join(root, file)); err != nil || string(b) != want {
				t.Errorf("%s: %s: %q, %v", key, file, b, err)
			}
		}
		imagetest.Must(t, img.Release())
	}
}

// What we encrypt buildah pulls. It compares the diffIDs by itself; what it has
// then is written out and has the same.
func TestBuildahDecrypts(t *testing.T) {
	buildah := newBuildah(t)
	w, o := newWorld(t), newOwner(t)
	layers := threeLayers(t)
	imagetest.Push(t, w.Server, w.Host+"/plain/app:v1", nil, layers...)
	for name, key := range map[string]string{"jwe-rsa": "rsa", "jwe-ec": "ec"} {
		pub, err := os.ReadFile(o.file(key + ".pub"))
		imagetest.Must(t, err)
		to, err := crypt.NewRecipient(crypt.SchemeJWE, pub)
		imagetest.Must(t, err)
		ref := w.Host + "/ours/" + name + ":v1"
		_, err = ship.Encrypt(t.Context(), w.Host+"/plain/app:v1", ref, ship.EncryptOptions{Recipients: []crypt.Recipient{to}, Registry: w.Config()})
		imagetest.Must(t, err)
		buildah("pull", "--decryption-key", o.file(key+".key"), "docker://"+ref)
		dir := filepath.Join(t.TempDir(), "layout")
		buildah("push", ref, "oci:"+dir+":v1")
		l, err := registry.OpenLayout(dir)
		imagetest.Must(t, err)
		res, err := registry.Resolve(t.Context(), l, "v1", registry.Native())
		imagetest.Must(t, err)
		raw, err := registry.ReadBlob(t.Context(), l, res.Image.Config, registry.MaxManifest)
		imagetest.Must(t, err)
		var config ocispec.Image
		imagetest.Must(t, json.NewDecoder(bytes.NewReader(raw)).Decode(&config))
		for i, id := range config.RootFS.DiffIDs {
			if id != layers[i].DiffID {
				t.Errorf("%s: layer %d became %s", name, i, id)
			}
		}
	}
}
