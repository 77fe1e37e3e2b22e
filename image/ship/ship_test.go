package ship_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/image/crypt"
	"github.com/vouchsafe-cc/vouchsafe/image/internal/imagetest"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/image/ship"
	"github.com/vouchsafe-cc/vouchsafe/image/trust"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

const kid = "kbs:///default/image-kek/1"

func must(t testing.TB, err error) {
	t.Helper()
	imagetest.Must(t, err)
}

// decrypted reads every layer of an encrypted image back.
func decrypted(t testing.TB, src registry.Source, version string, kek secret.Bytes) (*ocispec.Manifest, [][]byte, []string) {
	t.Helper()
	res, err := registry.Resolve(t.Context(), src, version, registry.Native())
	must(t, err)
	var plain [][]byte
	var ids []string
	for _, l := range res.Image.Layers {
		pub, packets, err := crypt.ParseAnnotations(l.Annotations)
		must(t, err)
		p, err := crypt.ParsePacket(packets[0].Packet)
		must(t, err)
		if p.KID != kid {
			t.Errorf("key ID %s", p.KID)
		}
		doc, err := p.Open(kek)
		must(t, err)
		priv, err := crypt.ParsePrivate(doc)
		must(t, err)
		rc, err := src.Blob(t.Context(), l)
		must(t, err)
		d, err := crypt.NewDecrypter(rc, pub, priv)
		must(t, err)
		b, err := io.ReadAll(d)
		must(t, err)
		if priv.Digest != digest.FromBytes(b) {
			t.Error("the private options name another blob")
		}
		plain, ids = append(plain, b), append(ids, priv.ID())
	}
	return res.Image, plain, ids
}

func TestEncrypt(t *testing.T) {
	s := imagetest.Serve(t)
	a, b := imagetest.GzipLayer(t, imagetest.File("a", "a")), imagetest.GzipLayer(t, imagetest.File("b", "b"))
	docker := b
	docker.MediaType = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	src := imagetest.Push(t, s, s.Host+"/plain:v1", nil, a, docker, a)
	plainDoc, err := src.Image()
	must(t, err)
	kek := secret.Random(32)
	layout := "oci:" + filepath.Join(t.TempDir(), "out") + ":v1"
	again := s.Host + "/enc:v2"
	o := ship.EncryptOptions{KID: kid, KEK: kek, Registry: s.Config()}
	var told events
	o.Progress, o.Check = told.add, true

	res, err := ship.Encrypt(t.Context(), s.Host+"/plain:v1", s.Host+"/enc:v1", o)
	must(t, err)
	if res.Layers != 2 || res.Reference != s.Host+"/enc@"+res.Digest || !res.Checked || told.count(ship.PhaseEncrypted) != 2 || told.count(ship.PhaseChecked) != 2 {
		t.Errorf("%+v, told %+v", res, told.all)
	}
	repo, _ := imagetest.Repository(t, s.Config(), s.Host+"/enc")
	m, plain, ids := decrypted(t, repo, "v1", kek)
	if !bytes.Equal(plain[0], a.Blob) || !bytes.Equal(plain[1], b.Blob) || !bytes.Equal(plain[2], a.Blob) {
		t.Error("the layers came back as others")
	}
	if ids[0] == ids[1] || m.Layers[0].Digest != m.Layers[2].Digest {
		t.Error("two layers share a key, or one layer was encrypted twice")
	}
	if m.MediaType != ocispec.MediaTypeImageManifest || m.Config.Digest != plainDoc.Config.Digest {
		t.Errorf("manifest %s, config %s", m.MediaType, m.Config.Digest)
	}
	for _, l := range m.Layers {
		if l.MediaType != "application/vnd.oci.image.layer.v1.tar+gzip+encrypted" {
			t.Errorf("media type %s", l.MediaType)
		}
	}

	// From a registry to a layout and back.
	if res, err = ship.Encrypt(t.Context(), s.Host+"/plain:v1", layout, o); err != nil || res.Reference != layout {
		t.Fatalf("%+v, %v", res, err)
	}
	l, err := registry.OpenLayout(strings.TrimSuffix(strings.TrimPrefix(layout, "oci:"), ":v1"))
	must(t, err)
	if _, plain, _ = decrypted(t, l, "v1", kek); !bytes.Equal(plain[0], a.Blob) {
		t.Error("the layout holds something else")
	}
	if _, err := ship.Encrypt(t.Context(), layout, again, o); err == nil || !strings.Contains(err.Error(), "encrypted already") {
		t.Errorf("encrypted twice: %v", err)
	}
	if _, err := repo.Manifest(t.Context(), "v2"); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("a refused image was pushed: %v", err)
	}
}

func TestEncryptRefuses(t *testing.T) {
	s := imagetest.Serve(t)
	layer := imagetest.GzipLayer(t, imagetest.File("a", "a"))
	m := imagetest.Push(t, s, s.Host+"/plain:v1", nil, layer)
	foreign := layer
	foreign.MediaType = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
	imagetest.Push(t, s, s.Host+"/foreign:v1", nil, foreign)
	good := ship.EncryptOptions{KID: kid, KEK: secret.Random(32), Registry: s.Config()}
	shortKey, badKID := good, good
	shortKey.KEK, badKID.KID = secret.Random(16), "file:///a/b/c"
	doc, err := m.Image()
	must(t, err)
	tests := []struct {
		name, src, dst string
		o              ship.EncryptOptions
		before         func()
	}{
		{"short key", s.Host + "/plain:v1", s.Host + "/out:v1", shortKey, nil},
		{"bad key ID", s.Host + "/plain:v1", s.Host + "/out:v1", badKID, nil},
		{"no source", s.Host + "/absent:v1", s.Host + "/out:v1", good, nil},
		{"destination by digest", s.Host + "/plain:v1", s.Host + "/out@" + m.Digest.String(), good, nil},
		{"foreign layer", s.Host + "/foreign:v1", s.Host + "/out:v1", good, nil},
		{"source layer tampered with", s.Host + "/plain:v1", s.Host + "/out:v1", good, func() {
			bad := bytes.Clone(layer.Blob)
			bad[len(bad)-1] ^= 1
			s.Replace("/v2/plain/blobs/"+doc.Layers[0].Digest.String(), imagetest.Body(bad))
		}},
	}
	repo, _ := imagetest.Repository(t, s.Config(), s.Host+"/out")
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.before != nil {
				tt.before()
			}
			if res, err := ship.Encrypt(t.Context(), tt.src, tt.dst, tt.o); err == nil {
				t.Fatalf("wrote %+v", res)
			}
			if _, err := repo.Manifest(t.Context(), "v1"); !errors.Is(err, registry.ErrNotFound) {
				t.Errorf("a manifest was pushed: %v", err)
			}
		})
	}
}

func TestEncryptChoosesThePlatform(t *testing.T) {
	s := imagetest.Serve(t)
	repo, _ := imagetest.Repository(t, s.Config(), s.Host+"/multi")
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	blobs := map[string][]byte{}
	for _, arch := range []string{"s390x", registry.Native().Architecture, "riscv64"} {
		l := imagetest.GzipLayer(t, imagetest.File(arch, arch))
		blobs[arch] = l.Blob
		d := imagetest.Push(t, s, s.Host+"/multi:"+arch, nil, l).Descriptor()
		d.Platform = &ocispec.Platform{OS: "linux", Architecture: arch}
		index.Manifests = append(index.Manifests, d)
	}
	_, err := repo.PushManifest(t.Context(), "v1", index.MediaType, imagetest.JSON(t, index))
	must(t, err)
	kek := secret.Random(32)
	for arch, p := range map[string]registry.Platform{registry.Native().Architecture: registry.Native(), "riscv64": {OS: "linux", Architecture: "riscv64"}} {
		_, err := ship.Encrypt(t.Context(), s.Host+"/multi:v1", s.Host+"/multi:enc", ship.EncryptOptions{KID: kid, KEK: kek, Registry: s.Config(), Platform: p})
		must(t, err)
		if _, plain, _ := decrypted(t, repo, "enc", kek); !bytes.Equal(plain[0], blobs[arch]) {
			t.Errorf("%s: another platform's layer", arch)
		}
	}
}

func pkcs8(t testing.TB, key any) secret.Bytes {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	return secret.New(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func spki(t testing.TB, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	must(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// judge evaluates a policy that wants all of the keys.
func judge(t testing.TB, s *imagetest.Server, ref string, keys ...[]byte) (trust.Verdict, error) {
	t.Helper()
	var reqs []string
	for i := range keys {
		reqs = append(reqs, fmt.Sprintf(`{"type":"sigstoreSigned","keyPath":"%d"}`, i))
	}
	p, err := trust.ParsePolicy([]byte(`{"default":[` + strings.Join(reqs, ",") + `],"transports":{}}`))
	must(t, err)
	repo, r := imagetest.Repository(t, s.Config(), ref)
	res, err := registry.Resolve(t.Context(), repo, r.Version(), registry.Native())
	must(t, err)
	return p.Evaluate(t.Context(), trust.Subject{Reference: r, Root: res.Root.Digest, Manifest: res.Manifest.Digest},
		trust.Evidence{Signatures: repo, Keys: func(_ context.Context, path string) ([]byte, error) { return keys[path[0]-'0'], nil }})
}

// signers are a key of every kind, private and public.
func signers(t testing.TB) (all [][2][]byte) {
	t.Helper()
	own, ownPub, err := ship.GenerateKey()
	must(t, err)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	must(t, err)
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	must(t, err)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	all = append(all, [2][]byte{own.Reveal(), ownPub})
	for _, k := range []crypto.Signer{p384, p521, rsaKey, edKey} {
		all = append(all, [2][]byte{pkcs8(t, k).Reveal(), spki(t, k.Public())})
	}
	return all
}

func TestSignWithEveryKind(t *testing.T) {
	for name, tt := range map[string]struct {
		forms  []ship.SignForm
		places []string // of what is written for each key, by a part of its name
		found  int      // signatures of five keys
	}{
		"by default": {nil, []string{"/app@sha256:", ".sig"}, 10},
		"tag":        {[]ship.SignForm{ship.SignTag}, []string{".sig"}, 5},
		"bundle":     {[]ship.SignForm{ship.SignBundle}, []string{"/app@sha256:"}, 5},
	} {
		t.Run(name, func(t *testing.T) {
			s := imagetest.Serve(t)
			ref := s.Host + "/app:v1"
			m := imagetest.Push(t, s, ref, nil, imagetest.GzipLayer(t, imagetest.File("a", "a")))
			var pubs [][]byte
			for _, k := range signers(t) {
				if _, err := judge(t, s, ref, k[1]); fault.CodeOf(err) != fault.ImageUnsigned {
					t.Fatalf("accepted before it was signed: %v", err)
				}
				for range 2 { // to sign again changes nothing
					res, err := ship.Sign(t.Context(), ref, secret.Copy(k[0]), ship.SignOptions{Forms: tt.forms, Registry: s.Config()})
					must(t, err)
					if res.Digest != m.Digest.String() || len(res.Signatures) != len(tt.places) {
						t.Fatalf("%+v", res)
					}
					for i, part := range tt.places {
						if !strings.Contains(res.Signatures[i].Reference, part) {
							t.Errorf("%+v", res)
						}
					}
				}
				// The earlier signatures are still there.
				pubs = append(pubs, k[1])
				v, err := judge(t, s, ref, pubs...)
				if err != nil || len(v.Signers) != len(pubs) {
					t.Fatalf("%+v, %v", v, err)
				}
			}
			in, err := ship.Inspect(t.Context(), ref, ship.InspectOptions{Registry: s.Config()})
			must(t, err)
			if len(in.Signatures) != tt.found || in.Signatures[0].Digest != m.Digest.String() || in.Signatures[0].Name != s.Host+"/app" || in.Signatures[0].KeyHint == "" {
				t.Errorf("%+v", in.Signatures)
			}
			_, otherPub, err := ship.GenerateKey()
			must(t, err)
			_, err = judge(t, s, ref, otherPub)
			rej, ok := errors.AsType[*trust.Rejection](err)
			if !ok || !strings.Contains(rej.Seen, in.Signatures[0].KeyHint) {
				t.Errorf("the rejection does not say whose signature is there: %v", rej)
			}
		})
	}
}

// A policy's floor for a signed annotation keeps out what the same key signed
// earlier.
func TestSignedVersion(t *testing.T) {
	s := imagetest.Serve(t)
	key, public, err := ship.GenerateKey()
	must(t, err)
	p, err := trust.ParsePolicy([]byte(`{"default":[{"type":"sigstoreSigned","keyPath":"k","atLeast":{"version":"1.4"}}],"transports":{}}`))
	must(t, err)
	for version, ok := range map[string]bool{"1.3.9": false, "1.4.0": true, "1.10": true} {
		ref := s.Host + "/app:v" + version
		imagetest.Push(t, s, ref, nil, imagetest.GzipLayer(t, imagetest.File("a", version)))
		_, err := ship.Sign(t.Context(), ref, key, ship.SignOptions{Annotations: map[string]string{"version": version}, Registry: s.Config()})
		must(t, err)
		repo, r := imagetest.Repository(t, s.Config(), ref)
		res, err := registry.Resolve(t.Context(), repo, r.Version(), registry.Native())
		must(t, err)
		v, err := p.Evaluate(t.Context(), trust.Subject{Reference: r, Root: res.Root.Digest, Manifest: res.Manifest.Digest},
			trust.Evidence{Signatures: repo, Keys: func(context.Context, string) ([]byte, error) { return public, nil }})
		if v.Accepted != ok || !ok && fault.CodeOf(err) != fault.ImageUnsigned {
			t.Errorf("%s: %+v, %v", version, v, err)
		}
	}
}

func TestSignedIndex(t *testing.T) {
	s := imagetest.Serve(t)
	repo, _ := imagetest.Repository(t, s.Config(), s.Host+"/app")
	d := imagetest.Push(t, s, s.Host+"/app:one", nil, imagetest.GzipLayer(t, imagetest.File("a", "a"))).Descriptor()
	d.Platform = &ocispec.Platform{OS: "linux", Architecture: registry.Native().Architecture}
	index, err := repo.PushManifest(t.Context(), "v1", ocispec.MediaTypeImageIndex,
		imagetest.JSON(t, ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{d}}))
	must(t, err)
	key, pub, err := ship.GenerateKey()
	must(t, err)
	res, err := ship.Sign(t.Context(), s.Host+"/app:v1", key, ship.SignOptions{Registry: s.Config()})
	if err != nil || res.Digest != index.Digest.String() {
		t.Fatalf("%+v, %v", res, err)
	}
	if v, err := judge(t, s, s.Host+"/app:v1", pub); err != nil || v.Digest != d.Digest.String() {
		t.Errorf("through the index: %+v, %v", v, err)
	}
	if _, err := judge(t, s, s.Host+"/app:one", pub); fault.CodeOf(err) != fault.ImageUnsigned {
		t.Errorf("the manifest alone was not signed: %v", err)
	}
}

func TestSignRefuses(t *testing.T) {
	s := imagetest.Serve(t)
	ref := s.Host + "/app:v1"
	imagetest.Push(t, s, ref, nil, imagetest.GzipLayer(t, imagetest.File("a", "a")))
	key, pub, err := ship.GenerateKey()
	must(t, err)
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	must(t, err)
	tests := []struct {
		name, ref string
		key       secret.Bytes
		want      string
	}{
		{"no key", ref, secret.Bytes{}, "not PEM"},
		{"public key", ref, secret.Copy(pub), "PUBLIC KEY"},
		{"cosign's encrypted key", ref, secret.Copy([]byte("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n")), "unencrypted"},
		{"P-224", ref, pkcs8(t, p224), "must be"},
		{"layout", "oci:dir", key, "layout"},
		{"absent image", s.Host + "/app:v2", key, "not found"},
	}
	for _, tt := range tests {
		if _, err := ship.Sign(t.Context(), tt.ref, tt.key, ship.SignOptions{Registry: s.Config()}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestInspect(t *testing.T) {
	s := imagetest.Serve(t)
	layer := imagetest.GzipLayer(t, imagetest.File("a", "a"))
	imagetest.Push(t, s, s.Host+"/plain:v1", nil, layer)
	layout := "oci:" + filepath.Join(t.TempDir(), "out")
	_, err := ship.Encrypt(t.Context(), s.Host+"/plain:v1", layout, ship.EncryptOptions{KID: kid, KEK: secret.Random(32), Registry: s.Config()})
	must(t, err)
	in, err := ship.Inspect(t.Context(), layout, ship.InspectOptions{Registry: registry.Config{}})
	must(t, err)
	if l := in.Layers[0]; !l.Encrypted || l.Problem != "" || len(l.Keys) != 1 || l.Keys[0] != kid || l.DiffID != layer.DiffID.String() || l.Size != int64(len(layer.Blob)) {
		t.Errorf("%+v", l)
	}
	if in.Platform != "linux/"+registry.Native().Architecture || in.Config.Cmd[0] != "/bin/true" || in.Signatures == nil || len(in.Signatures) != 0 {
		t.Errorf("%+v", in)
	}
	in, err = ship.Inspect(t.Context(), s.Host+"/plain:v1", ship.InspectOptions{Registry: s.Config()})
	must(t, err)
	if in.Layers[0].Encrypted || in.Layers[0].Keys != nil {
		t.Errorf("%+v", in.Layers[0])
	}
}
