package trust

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
)

func sign(t testing.TB, key crypto.Signer, payload []byte) []byte {
	t.Helper()
	s256, s384 := sha256.Sum256(payload), sha512.Sum384(payload)
	msg, h := s256[:], crypto.SHA256
	if k, ok := key.(*ecdsa.PrivateKey); ok && k.Curve == elliptic.P384() {
		msg, h = s384[:], crypto.SHA384
	}
	if _, ok := key.(ed25519.PrivateKey); ok {
		msg, h = payload, 0
	}
	sig, err := key.Sign(rand.Reader, msg, h)
	must(t, err)
	return sig
}

// shelf is a registry.Source in memory. An error in fail answers everything.
type shelf struct {
	manifests map[string][]byte
	blobs     map[digest.Digest][]byte
	fail      error
	asked     int
}

func newShelf() *shelf {
	return &shelf{manifests: map[string][]byte{}, blobs: map[digest.Digest][]byte{}}
}

func (s *shelf) Manifest(_ context.Context, version string) (registry.Manifest, error) {
	s.asked++
	if s.fail != nil {
		return registry.Manifest{}, s.fail
	}
	raw, ok := s.manifests[version]
	if !ok {
		return registry.Manifest{}, registry.ErrNotFound
	}
	if bytes.Contains(raw, []byte(`"manifests"`)) {
		return registry.Manifest{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromBytes(raw), Raw: raw}, nil
	}
	return registry.Manifest{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(raw), Raw: raw}, nil
}

func (s *shelf) Blob(_ context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(s.blobs[d.Digest])), nil
}

// put adds a signature beside the manifest d.
func (s *shelf) put(t testing.TB, d digest.Digest, payload, sig []byte) {
	t.Helper()
	s.putLayer(t, d, payload, map[string]string{AnnotationSignature: base64.StdEncoding.EncodeToString(sig) + "\n"}, MediaTypeSimpleSigning)
}

func (s *shelf) putLayer(t testing.TB, d digest.Digest, payload []byte, a map[string]string, mediaType string) {
	t.Helper()
	s.putTagged(t, SignatureTag(d), payload, a, mediaType)
}

func (s *shelf) putTagged(t testing.TB, tag string, payload []byte, a map[string]string, mediaType string) {
	t.Helper()
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, Config: ocispec.Descriptor{Digest: digest.FromString("{}"), Size: 2}}
	if old, ok := s.manifests[tag]; ok {
		must(t, json.Unmarshal(old, &m))
	}
	s.blobs[digest.FromBytes(payload)] = payload
	m.Layers = append(m.Layers, ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(payload), Size: int64(len(payload)), Annotations: a})
	raw, err := json.Marshal(m)
	must(t, err)
	s.manifests[tag] = raw
}

func payloadFor(d digest.Digest, name string) []byte {
	return fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":%q},"image":{"docker-manifest-digest":%q},"type":%q},"optional":{"creator":"t"}}`, name, d, PayloadType)
}

const subjectName = "ghcr.io/a/app:v1"

func subject(t testing.TB) Subject {
	t.Helper()
	ref, err := registry.ParseReference(subjectName)
	must(t, err)
	return Subject{Reference: ref, Root: digest.FromString("index"), Manifest: digest.FromString("manifest")}
}

func signedPolicy(t testing.TB, keys ...string) *Policy {
	t.Helper()
	var reqs []string
	for _, k := range keys {
		reqs = append(reqs, fmt.Sprintf(`{"type":"sigstoreSigned","keyPath":%q}`, k))
	}
	p, err := ParsePolicy([]byte(withDefault(strings.Join(reqs, ","))))
	must(t, err)
	return p
}

func TestEvaluateSignatures(t *testing.T) {
	good, other := newKey(t), newKey(t)
	s := subject(t)
	put := func(sh *shelf, at digest.Digest, key crypto.Signer, payload []byte) {
		sh.put(t, at, payload, sign(t, key, payload))
	}
	tests := []struct {
		name   string
		fill   func(*shelf)
		reason string // empty: accepted
	}{
		{"index signed", func(sh *shelf) { put(sh, s.Root, good, payloadFor(s.Root, "ghcr.io/a/app")) }, ""},
		{"manifest signed, found beside the index", func(sh *shelf) { put(sh, s.Root, good, payloadFor(s.Manifest, "ghcr.io/a/app")) }, ""},
		{"manifest signed, found beside itself", func(sh *shelf) { put(sh, s.Manifest, good, payloadFor(s.Manifest, "ghcr.io/a/app")) }, ""},
		{"a good one among others", func(sh *shelf) {
			put(sh, s.Root, other, payloadFor(s.Root, "ghcr.io/a/app"))
			put(sh, s.Root, good, payloadFor(digest.FromString("old"), "ghcr.io/a/app"))
			put(sh, s.Root, good, []byte("not JSON"))
			put(sh, s.Root, good, payloadFor(s.Root, "ghcr.io/a/app"))
		}, ""},
		{"none", func(*shelf) {}, "no signature"},
		{"another key", func(sh *shelf) { put(sh, s.Root, other, payloadFor(s.Root, "ghcr.io/a/app")) }, "by an unnamed key"},
		{"another image", func(sh *shelf) { put(sh, s.Root, good, payloadFor(digest.FromString("x"), "ghcr.io/a/app")) }, "another image"},
		{"another name", func(sh *shelf) { put(sh, s.Root, good, payloadFor(s.Root, "ghcr.io/b/app")) }, "the name"},
		// One layer verifies, another names the image: neither does both.
		{"halves do not add up", func(sh *shelf) {
			put(sh, s.Root, good, payloadFor(digest.FromString("x"), "ghcr.io/a/app"))
			put(sh, s.Root, other, payloadFor(s.Root, "ghcr.io/a/app"))
		}, "no signature satisfies"},
		{"signature of other bytes", func(sh *shelf) {
			sh.put(t, s.Root, payloadFor(s.Root, "ghcr.io/a/app"), sign(t, good, []byte("x")))
		}, "by an unnamed key"},
		{"other payload type", func(sh *shelf) {
			put(sh, s.Root, good, bytes.Replace(payloadFor(s.Root, "ghcr.io/a/app"), []byte(PayloadType), []byte("atomic container signature"), 1))
		}, "bad payload"},
		{"unknown condition", func(sh *shelf) {
			put(sh, s.Root, good, bytes.Replace(payloadFor(s.Root, "ghcr.io/a/app"), []byte(`"type"`), []byte(`"only-on":"monday","type"`), 1))
		}, "bad payload"},
		{"other media type", func(sh *shelf) {
			p := payloadFor(s.Root, "ghcr.io/a/app")
			sh.putLayer(t, s.Root, p, map[string]string{AnnotationSignature: base64.StdEncoding.EncodeToString(sign(t, good, p))}, "application/json")
		}, "no signature"},
		{"signature not base64", func(sh *shelf) {
			sh.putLayer(t, s.Root, payloadFor(s.Root, "ghcr.io/a/app"), map[string]string{AnnotationSignature: "!"}, MediaTypeSimpleSigning)
		}, "no signature"},
	}
	keys := func(_ context.Context, path string) ([]byte, error) {
		if path != "kbs:///default/k/good" {
			t.Errorf("asked for the key %q", path)
		}
		return publicPEM(t, good.Public()), nil
	}
	policy := signedPolicy(t, "kbs:///default/k/good")
	fingerprint, err := Fingerprint(good.Public())
	must(t, err)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			sh := newShelf()
			tt.fill(sh)
			v, err := policy.Evaluate(t.Context(), s, Evidence{Signatures: sh, Keys: keys})
			if tt.reason == "" {
				if err != nil || !v.Accepted || v.Waived || len(v.Signers) != 1 || v.Signers[0] != fingerprint || v.Scope != "default" ||
					v.Reference != subjectName || v.Digest != s.Manifest.String() {
					t.Fatalf("got %+v, %v", v, errors.Unwrap(err))
				}
				return
			}
			if v.Accepted || fault.CodeOf(err) != fault.ImageUnsigned {
				t.Fatalf("got %+v, %v", v, err)
			}
			rej, ok := errors.AsType[*Rejection](err)
			if !ok || !strings.Contains(rej.Error(), tt.reason) || rej.Wanted[0] != fingerprint || rej.Scope != "default" || rej.Digest != s.Manifest.String() {
				t.Fatalf("cause: %v", rej)
			}
		})
	}
}

func TestEvaluateOtherRequirements(t *testing.T) {
	s := subject(t)
	sh := newShelf()
	p, err := ParsePolicy([]byte(withDefault(`{"type":"insecureAcceptAnything"}`)))
	must(t, err)
	v, err := p.Evaluate(t.Context(), s, Evidence{Signatures: sh})
	if err != nil || !v.Accepted || !v.Waived || sh.asked != 0 {
		t.Errorf("accept anything: %+v, %v, asked %d times", v, err, sh.asked)
	}
	p, err = ParsePolicy([]byte(withDefault(`{"type":"insecureAcceptAnything"},{"type":"reject"}`)))
	must(t, err)
	if v, err = p.Evaluate(t.Context(), s, Evidence{Signatures: sh}); v.Accepted || fault.CodeOf(err) != fault.ImageUnsigned {
		t.Errorf("accept and reject: %+v, %v", v, err)
	}
	if _, err = (*Policy)(nil).Evaluate(t.Context(), s, Evidence{}); fault.CodeOf(err) != fault.ImagePolicyMissing {
		t.Errorf("no policy: %v", err)
	}
	if v, err = (&Policy{}).Evaluate(t.Context(), s, Evidence{}); v.Accepted || err == nil {
		t.Errorf("an empty policy: %+v", v)
	}
}

func TestAllRequirementsMustHold(t *testing.T) {
	s := subject(t)
	a, b := newKey(t), newKey(t)
	keys := func(_ context.Context, path string) ([]byte, error) {
		return publicPEM(t, map[string]*ecdsa.PrivateKey{"a": a, "b": b}[path].Public()), nil
	}
	policy := signedPolicy(t, "a", "b")
	payload := payloadFor(s.Root, "ghcr.io/a/app")
	sh := newShelf()
	sh.put(t, s.Root, payload, sign(t, a, payload))
	if v, err := policy.Evaluate(t.Context(), s, Evidence{Signatures: sh, Keys: keys}); v.Accepted || fault.CodeOf(err) != fault.ImageUnsigned {
		t.Fatalf("one of two signatures was enough: %v", err)
	}
	sh.put(t, s.Root, payload, sign(t, b, payload))
	if v, err := policy.Evaluate(t.Context(), s, Evidence{Signatures: sh, Keys: keys}); err != nil || len(v.Signers) != 2 {
		t.Fatalf("both signatures: %+v, %v", v, err)
	}
}

func TestWhatCannotBeFetched(t *testing.T) {
	s := subject(t)
	good := newKey(t)
	keys := func(context.Context, string) ([]byte, error) { return publicPEM(t, good.Public()), nil }
	policy := signedPolicy(t, "k")
	broken := newShelf()
	broken.fail = errors.New("connection refused")
	if _, err := policy.Evaluate(t.Context(), s, Evidence{Signatures: broken, Keys: keys}); fault.CodeOf(err) != fault.ImageUnavailable {
		t.Errorf("the registry is away: %v", err)
	}
	refusal := fault.New(fault.PolicyDenied, errors.New("x")).With("7QK2-M9TD")
	denied := func(context.Context, string) ([]byte, error) { return nil, fmt.Errorf("get: %w", refusal) }
	_, err := policy.Evaluate(t.Context(), s, Evidence{Signatures: newShelf(), Keys: denied})
	if f, ok := errors.AsType[*fault.Fault](err); !ok || f.Code != fault.PolicyDenied || f.Ticket != "7QK2-M9TD" {
		t.Errorf("the broker's refusal got lost: %v", err)
	}
	for name, k := range map[string]func(context.Context, string) ([]byte, error){
		"nobody":  nil,
		"rubbish": func(context.Context, string) ([]byte, error) { return []byte("x"), nil },
		"nothing": func(context.Context, string) ([]byte, error) { return nil, nil },
		"error":   func(context.Context, string) ([]byte, error) { return nil, errors.New("x") },
	} {
		if v, err := policy.Evaluate(t.Context(), s, Evidence{Signatures: newShelf(), Keys: k}); v.Accepted || fault.CodeOf(err) != fault.ImageUnsigned {
			t.Errorf("%s gives the key: %+v, %v", name, v, err)
		}
	}
}

func TestSignatureLimits(t *testing.T) {
	s := subject(t)
	sh := newShelf()
	for range maxSignatures + 1 {
		sh.put(t, s.Root, payloadFor(s.Root, "ghcr.io/a/app"), []byte("x"))
	}
	if _, err := FetchSignatures(t.Context(), sh, s.Root); err == nil {
		t.Error("any number of signatures is read")
	}
	sh = newShelf()
	sh.put(t, s.Root, bytes.Repeat([]byte("x"), maxPayload+1), []byte("x"))
	if _, err := FetchSignatures(t.Context(), sh, s.Root); !errors.Is(err, registry.ErrMalformed) {
		t.Errorf("a huge payload: %v", err)
	}
}

func FuzzParsePayload(f *testing.F) {
	f.Add(payloadFor(digest.FromString("x"), "ghcr.io/a/app"))
	f.Add([]byte(`{"critical":{"identity":{},"image":{},"type":""},"optional":null}`))
	f.Add([]byte(`{"critical":{"identity":{"docker-reference":"a"},"image":{"docker-manifest-digest":"sha256:0"},"type":"x"},"optional":{"a":1}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := ParsePayload(raw)
		if err == nil && registry.CheckDigest(c.Digest) != nil {
			t.Fatalf("accepted the digest %q", c.Digest)
		}
	})
}

func TestSubjectIsChecked(t *testing.T) {
	p, err := ParsePolicy([]byte(withDefault(`{"type":"insecureAcceptAnything"}`)))
	must(t, err)
	good := subject(t)
	other := good
	other.Reference.Digest = digest.FromString("another")
	for name, s := range map[string]Subject{
		"no digests": {Reference: good.Reference}, "no manifest": {Reference: good.Reference, Root: good.Root},
		"not what was asked for": other,
	} {
		if v, err := p.Evaluate(t.Context(), s, Evidence{}); v.Accepted || fault.CodeOf(err) != fault.ImageUnsigned {
			t.Errorf("%s: %+v, %v", name, v, err)
		}
	}
}
