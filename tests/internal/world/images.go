package world

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/vouchsafe-cc/vouchsafe/tests/internal/debimage"
)

// Resources that the stage's pods use.
const (
	KeyResource    = "default/image-kek/nginx"
	PolicyResource = "default/security-policy/demo"
	SignerResource = "default/cosign-public-key/demo"
	SecretResource = debimage.SecretPath
	SealerResource = "default/signing/owner" // of the key that signs sealed secrets
)

// Image assembles the demo's image, or takes the one in the cache, and returns
// a source for Encrypt.
func (w *World) Image(ctx context.Context, cache string) (string, error) {
	dir, err := debimage.Build(ctx, filepath.Join(cache, "image"))
	return "oci:" + dir, err
}

// Keygen makes a signing key pair and returns the path prefix of its files.
func (w *World) Keygen(ctx context.Context, label string) (string, error) {
	dir, err := os.MkdirTemp(w.Dir, "key-")
	if err != nil {
		return "", err
	}
	prefix := filepath.Join(dir, label)
	_, err = w.Run(ctx, "kbsctl", "image", "keygen", "--out", prefix)
	return prefix, err
}

// Encrypt makes a key, registers it at the broker, encrypts an image with it
// into the registry under the given repository and tag, and returns its
// reference.
func (w *World) Encrypt(ctx context.Context, src, repository string) (string, error) {
	w.Key = make([]byte, 32)
	rand.Read(w.Key) // crypto/rand.Read never fails
	if err := os.WriteFile(w.Path("kek"), w.Key, 0o600); err != nil {
		return "", err
	}
	ref := w.Registry.Addr + "/" + repository
	_, err := w.Broker.Ctl(ctx, "image", "encrypt", src, ref, "--key", "kbs:///"+KeyResource,
		"--kek-file", w.Path("kek"), "--register", "--registry-ca", w.Path("registry-ca.pem"))
	return ref, err
}

// Copy puts an image as it is into another repository, without its signature.
func (w *World) Copy(ctx context.Context, from, repository string) (string, error) {
	img, err := w.remoteImage(ctx, from)
	if err != nil {
		return "", err
	}
	ref, err := name.ParseReference(w.Registry.Addr + "/" + repository)
	if err != nil {
		return "", err
	}
	transport := w.transport()
	defer transport.CloseIdleConnections()
	return ref.String(), remote.Write(ref, img, remote.WithContext(ctx), remote.WithTransport(transport))
}

// Sign signs an image in the registry.
func (w *World) Sign(ctx context.Context, ref, keyPrefix string) error {
	_, err := w.Run(ctx, "kbsctl", "image", "sign", ref, "--key", keyPrefix+".key", "--registry-ca", w.Path("registry-ca.pem"))
	return err
}

// ImageConfig reads an image's configuration from the registry, as the host's
// container runtime does.
func (w *World) ImageConfig(ctx context.Context, ref string) (v1.Config, error) {
	img, err := w.remoteImage(ctx, ref)
	if err != nil {
		return v1.Config{}, err
	}
	file, err := img.ConfigFile()
	if err != nil {
		return v1.Config{}, err
	}
	return file.Config, nil
}

// LayerDigests lists the digests of an image's layers, lowest first.
func (w *World) LayerDigests(ctx context.Context, ref string) ([]string, error) {
	img, err := w.remoteImage(ctx, ref)
	if err != nil {
		return nil, err
	}
	m, err := img.Manifest()
	if err != nil {
		return nil, err
	}
	var list []string
	for _, l := range m.Layers {
		list = append(list, l.Digest.String())
	}
	return list, nil
}

func (w *World) remoteImage(ctx context.Context, ref string) (v1.Image, error) {
	parsed, err := name.ParseReference(ref)
	if err != nil {
		return nil, err
	}
	return remote.Image(parsed, remote.WithContext(ctx), remote.WithTransport(w.transport()))
}

func (w *World) transport() *http.Transport {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(w.Registry.CA)
	return &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, DisableKeepAlives: true}
}

// Policies registers everything that decides about a release: both policies,
// the image policy that demands signer's key, the signer's public key, and the
// secret for the page.
func (w *World) Policies(ctx context.Context, signer, greeting string) error {
	image := map[string]any{
		"default": []any{map[string]any{"type": "reject"}},
		"transports": map[string]any{"docker": map[string]any{
			w.Registry.Addr + "/demo": []any{map[string]any{"type": "sigstoreSigned", "keyPath": "kbs:///" + SignerResource}},
		}},
	}
	policy, err := json.MarshalIndent(image, "", "  ")
	if err != nil {
		return err
	}
	files := map[string][]byte{"policy.json": policy, "greeting": []byte(greeting)}
	judge := w.AttestationPolicy
	if judge == "" {
		judge = "attestation.rego"
	}
	for _, f := range []string{judge, "resource.rego"} {
		if files[f], err = policies.ReadFile("policies/" + f); err != nil {
			return err
		}
	}
	for name, content := range files {
		if err := os.WriteFile(w.Path(name), content, 0o600); err != nil {
			return err
		}
	}
	documents := fmt.Sprintf(`
kind: Policy
metadata: {name: attestation/default_cpu}
spec: {regoFile: %s}
---
kind: Policy
metadata: {name: resource/resource-policy}
spec: {regoFile: resource.rego}
---
kind: Resource
metadata: {name: %s}
spec: {valueFile: policy.json}
---
kind: Resource
metadata: {name: %s}
spec: {valueFile: %q}
---
kind: Resource
metadata: {name: %s}
spec: {valueFile: greeting}
`, judge, PolicyResource, SignerResource, signer+".pub", SecretResource)
	if err := os.WriteFile(w.Path("policies.yaml"), []byte(documents), 0o600); err != nil {
		return err
	}
	_, err = w.Broker.Ctl(ctx, "apply", "-f", w.Path("policies.yaml"))
	return err
}
