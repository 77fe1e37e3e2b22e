package trust

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
)

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// signStatement is what cosign 3 signs: the digest, and no name.
func signStatement(d digest.Digest, extra string) []byte {
	return fmt.Appendf(nil, `{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":%q}%s}],"predicateType":%q,"predicate":{}}`,
		d.Encoded(), extra, PredicateSign)
}

func dsse(t testing.TB, key crypto.Signer, payload []byte) []byte {
	t.Helper()
	sig := sign(t, key, PreAuthentication(PayloadTypeInToto, payload))
	return fmt.Appendf(nil, `{"mediaType":%q,"verificationMaterial":{"publicKey":{"hint":"h"},"tlogEntries":[{"logIndex":"1"}]},`+
		`"dsseEnvelope":{"payload":%q,"payloadType":%q,"signatures":[{"sig":%q,"keyid":""}]}}`, MediaTypeBundle, b64(payload), PayloadTypeInToto, b64(sig))
}

func messageBundle(t testing.TB, key crypto.Signer, manifest []byte) []byte {
	t.Helper()
	return fmt.Appendf(nil, `{"mediaType":%q,"verificationMaterial":{"publicKey":{"hint":""}},"messageSignature":{"messageDigest":`+
		`{"algorithm":"SHA2_256","digest":%q},"signature":%q}}`, mediaTypeBundleOld, b64(sum256(manifest)), b64(sign(t, key, manifest)))
}

// refer puts an artifact with one layer beside the manifest d: under the
// fallback tag of a registry that has no referrers API.
func (s *shelf) refer(t testing.TB, d digest.Digest, mediaType, artifact string, body []byte, a map[string]string) {
	t.Helper()
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, ArtifactType: artifact, Config: ocispec.DescriptorEmptyJSON,
		Subject: &ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: d},
		Layers:  []ocispec.Descriptor{{MediaType: mediaType, Digest: digest.FromBytes(body), Size: int64(len(body)), Annotations: a}},
	}
	s.blobs[digest.FromBytes(body)] = body
	raw, err := json.Marshal(m)
	must(t, err)
	s.manifests[digest.FromBytes(raw).String()] = raw
	tag := "sha256-" + d.Encoded()
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	if old, ok := s.manifests[tag]; ok {
		must(t, json.Unmarshal(old, &index))
	}
	index.Manifests = append(index.Manifests, ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageManifest, ArtifactType: artifact, Digest: digest.FromBytes(raw), Size: int64(len(raw)),
	})
	s.manifests[tag], err = json.Marshal(index)
	must(t, err)
}

func (s *shelf) bundle(t testing.TB, d digest.Digest, body []byte) {
	t.Helper()
	s.refer(t, d, MediaTypeBundle, MediaTypeBundle, body, nil)
}

// world is a shelf with an image on it.
func world(t testing.TB) (*shelf, Subject) {
	t.Helper()
	s, sh := subject(t), newShelf()
	root, m := []byte(`{"schemaVersion":2,"manifests":[]}`), []byte(`{"schemaVersion":2}`)
	s.Root, s.Manifest = digest.FromBytes(root), digest.FromBytes(m)
	sh.manifests[s.Root.String()], sh.manifests[s.Manifest.String()] = root, m
	return sh, s
}

// keyPolicy asks for a signature by the key called k.
func keyPolicy(t testing.TB, more string) *Policy {
	t.Helper()
	p, err := ParsePolicy([]byte(withDefault(`{"type":"sigstoreSigned","keyPath":"k"` + more + `}`)))
	must(t, err)
	return p
}

const ignoring = `,"signedIdentity":{"type":"insecureIgnoreIdentity"}`

func evidence(t testing.TB, sh registry.Source, keys map[string]crypto.Signer) Evidence {
	return Evidence{Signatures: sh, Keys: func(_ context.Context, path string) ([]byte, error) {
		return publicPEM(t, keys[path].Public()), nil
	}}
}

func TestEvaluateBundles(t *testing.T) {
	good, other := newKey(t), newKey(t)
	name := `,"name":"ghcr.io/a/app"`
	swap := func(b []byte, from, to string) []byte {
		if !bytes.Contains(b, []byte(from)) {
			t.Fatalf("no %q in %s", from, b)
		}
		return bytes.Replace(b, []byte(from), []byte(to), 1)
	}
	tests := []struct {
		name, policy string
		fill         func(*shelf, Subject)
		reason       string // empty: accepted
	}{
		{"a digest without a name, waived", ignoring, func(sh *shelf, s Subject) { sh.bundle(t, s.Root, dsse(t, good, signStatement(s.Root, ""))) }, ""},
		{"a digest without a name", "", func(sh *shelf, s Subject) { sh.bundle(t, s.Root, dsse(t, good, signStatement(s.Root, ""))) }, "without a name"},
		{"with a name", "", func(sh *shelf, s Subject) { sh.bundle(t, s.Root, dsse(t, good, signStatement(s.Root, name))) }, ""},
		{"with another name", "", func(sh *shelf, s Subject) {
			sh.bundle(t, s.Root, dsse(t, good, signStatement(s.Root, `,"name":"ghcr.io/b/app"`)))
		}, "the name"},
		{"beside the manifest", "", func(sh *shelf, s Subject) { sh.bundle(t, s.Manifest, dsse(t, good, signStatement(s.Manifest, name))) }, ""},
		{"annotations", ignoring + `,"annotations":{"env":"prod"}`, func(sh *shelf, s Subject) {
			sh.bundle(t, s.Root, dsse(t, good, signStatement(s.Root, `,"annotations":{"env":"prod","n":1}`)))
		}, ""},
		{"other annotations", ignoring + `,"annotations":{"env":"prod"}`, func(sh *shelf, s Subject) {
			sh.bundle(t, s.Root, dsse(t, good, signStatement(s.Root, `,"annotations":{"env":"test"}`)))
		}, "annotations"},
		{"another image", ignoring, func(sh *shelf, s Subject) {
			sh.bundle(t, s.Root, dsse(t, good, signStatement(digest.FromString("x"), "")))
		}, "another image"},
		{"another key", ignoring, func(sh *shelf, s Subject) { sh.bundle(t, s.Root, dsse(t, other, signStatement(s.Root, ""))) }, "by a key that calls itself"},
		{"an attestation", ignoring, func(sh *shelf, s Subject) {
			sh.bundle(t, s.Root, dsse(t, good, swap(signStatement(s.Root, ""), PredicateSign, "https://spdx.dev/Document")))
		}, "signs nothing"},
		{"another payload type", ignoring, func(sh *shelf, s Subject) {
			sh.bundle(t, s.Root, swap(dsse(t, good, signStatement(s.Root, "")), PayloadTypeInToto, "application/json"))
		}, "payload type"},
		{"a payload signed without its type", ignoring, func(sh *shelf, s Subject) {
			p := signStatement(s.Root, "")
			good := b64(sign(t, good, p))
			sh.bundle(t, s.Root, fmt.Appendf(nil, `{"mediaType":%q,"verificationMaterial":{"publicKey":{}},"dsseEnvelope":{"payload":%q,"payloadType":%q,"signatures":[{"sig":%q}]}}`,
				MediaTypeBundle, b64(p), PayloadTypeInToto, good))
		}, "by an unnamed key"},
		{"with a certificate", ignoring, func(sh *shelf, s Subject) {
			sh.bundle(t, s.Root, swap(dsse(t, good, signStatement(s.Root, "")), `"publicKey":{"hint":"h"}`, `"certificate":{"rawBytes":"AA=="}`))
		}, "certificate"},
		{"of an older version", ignoring, func(sh *shelf, s Subject) {
			sh.bundle(t, s.Root, swap(dsse(t, good, signStatement(s.Root, "")), "v0.3", "v0.1"))
		}, "version 0.3"},
		{"two signatures", ignoring, func(sh *shelf, s Subject) {
			sh.bundle(t, s.Root, swap(dsse(t, good, signStatement(s.Root, "")), `"signatures":[`, `"signatures":[{"sig":"AA=="},`))
		}, "exactly one"},
		{"the manifest itself", ignoring, func(sh *shelf, s Subject) {
			sh.bundle(t, s.Manifest, messageBundle(t, good, sh.manifests[s.Manifest.String()]))
		}, ""},
		{"the manifest itself has no name", "", func(sh *shelf, s Subject) {
			sh.bundle(t, s.Manifest, messageBundle(t, good, sh.manifests[s.Manifest.String()]))
		}, "without a name"},
		{"another manifest", ignoring, func(sh *shelf, s Subject) { sh.bundle(t, s.Root, messageBundle(t, good, []byte("{}"))) }, "something else"},
		{"another manifest with this one's digest", ignoring, func(sh *shelf, s Subject) {
			b := messageBundle(t, good, []byte("{}"))
			sh.bundle(t, s.Root, swap(b, b64(sum256([]byte("{}"))), b64(sum256(sh.manifests[s.Root.String()]))))
		}, "by an unnamed key"},
		{"simple signing by reference", "", func(sh *shelf, s Subject) {
			p := payloadFor(s.Root, "ghcr.io/a/app")
			sh.refer(t, s.Root, MediaTypeSimpleSigning, artifactCosign, p, map[string]string{AnnotationSignature: b64(sign(t, good, p))})
		}, ""},
		{"listed under the type of its empty config", ignoring, func(sh *shelf, s Subject) {
			sh.refer(t, s.Root, MediaTypeBundle, ocispec.MediaTypeEmptyJSON, dsse(t, good, signStatement(s.Root, "")), nil)
		}, ""},
		{"no signature at all", ignoring, func(sh *shelf, s Subject) {
			sh.refer(t, s.Root, "text/spdx", "text/spdx", []byte("x"), nil)
		}, "no signature"},
		{"a broken one beside a good one", ignoring, func(sh *shelf, s Subject) {
			sh.bundle(t, s.Root, []byte("{"))
			sh.bundle(t, s.Root, dsse(t, good, signStatement(s.Root, "")))
		}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			sh, s := world(t)
			tt.fill(sh, s)
			v, err := keyPolicy(t, tt.policy).Evaluate(t.Context(), s, evidence(t, sh, map[string]crypto.Signer{"k": good}))
			if tt.reason == "" {
				if err != nil || !v.Accepted || v.Waived || len(v.Signatures) != 1 || v.Signatures[0].Origin != OriginReferrers {
					t.Fatalf("got %+v, %v, %v", v, err, errors.Unwrap(err))
				}
				if waived := len(v.Waivers) == 1 && v.Waivers[0].What == WaivedIdentity; waived != (strings.HasPrefix(tt.policy, ignoring)) {
					t.Fatalf("waivers %+v", v.Waivers)
				}
				return
			}
			rej, ok := errors.AsType[*Rejection](err)
			if v.Accepted || fault.CodeOf(err) != fault.ImageUnsigned || !ok || !strings.Contains(rej.Error(), tt.reason) {
				t.Fatalf("got %+v, %v, want %q", v, errors.Unwrap(err), tt.reason)
			}
		})
	}
}

func TestBundlesByEveryKind(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	for _, key := range []crypto.Signer{newKey(t), rsaKey, edKey} {
		for form, write := range map[Form]func(*shelf, Subject) []byte{
			FormDSSE:    func(_ *shelf, s Subject) []byte { return dsse(t, key, signStatement(s.Manifest, "")) },
			FormMessage: func(sh *shelf, s Subject) []byte { return messageBundle(t, key, sh.manifests[s.Manifest.String()]) },
		} {
			sh, s := world(t)
			sh.bundle(t, s.Manifest, write(sh, s))
			v, err := keyPolicy(t, ignoring).Evaluate(t.Context(), s, evidence(t, sh, map[string]crypto.Signer{"k": key}))
			if err != nil || v.Signatures[0].Form != form {
				t.Errorf("%T, %s: %+v, %v", key, form, v, errors.Unwrap(err))
			}
		}
	}
}

// No changed byte of a bundle makes another statement out of it.
func TestMutatedBundles(t *testing.T) {
	key := newKey(t)
	sh, s := world(t)
	raw := dsse(t, key, signStatement(s.Root, ""))
	for i := range raw {
		changed := bytes.Clone(raw)
		changed[i] ^= 1
		sig, err := ParseBundle(changed, s.Root, sh.manifests[s.Root.String()])
		if err != nil {
			continue
		}
		k, err := parseKey(publicPEM(t, key.Public()))
		must(t, err)
		if k.verify(sig.message(), sig.Sig) && !bytes.Equal(sig.Payload, signStatement(s.Root, "")) {
			t.Fatalf("byte %d: %s", i, sig.Payload)
		}
	}
}

func TestThresholds(t *testing.T) {
	keys := map[string]crypto.Signer{"a": newKey(t), "b": newKey(t), "c": newKey(t)}
	p, err := ParsePolicy([]byte(withDefault(`{"type":"sigstoreSigned","keyPaths":["a","b","c"],"threshold":2,"annotations":{"env":"prod"}}`)))
	must(t, err)
	sh, s := world(t)
	refused := func(why, reason string) {
		t.Helper()
		v, err := p.Evaluate(t.Context(), s, evidence(t, sh, keys))
		if rej, ok := errors.AsType[*Rejection](err); v.Accepted || !ok || !strings.Contains(rej.Error(), reason) {
			t.Errorf("%s: %+v, %v", why, v, errors.Unwrap(err))
		}
	}
	put := func(key, creator string) {
		payload := bytes.Replace(payloadFor(s.Root, "ghcr.io/a/app"), []byte(`"creator":"t"`), []byte(creator), 1)
		sh.put(t, s.Root, payload, sign(t, keys[key], payload))
	}
	put("a", `"env":"prod"`)
	refused("one", "1 of the 2 keys")
	put("a", `"env":"prod","again":"yes"`)
	refused("the same twice", "1 of the 2 keys")
	put("b", `"env":"test"`)
	refused("the second for tests", "annotations")
	put("b", `"env":["prod"]`)
	refused("the second with a list", "annotations")
	put("c", `"env":"prod"`)
	v, err := p.Evaluate(t.Context(), s, evidence(t, sh, keys))
	if err != nil || len(v.Signers) != 2 || v.Signers[0] == v.Signers[1] || v.Signatures[1].Annotations["env"] != "prod" ||
		v.Signatures[0].Identity != "ghcr.io/a/app" || v.Signatures[0].Rule != matchRepository {
		t.Fatalf("two of three: %+v, %v", v, errors.Unwrap(err))
	}
	keys["b"] = keys["a"]
	refused("two paths, one key", "twice")
}

// A bundle of two megabytes can list half a million log entries that say nothing.
func TestBundleOfManyEntries(t *testing.T) {
	entries := strings.TrimSuffix(strings.Repeat("{},", maxBundle/3-100), ",")
	raw := []byte(`{"mediaType":"` + MediaTypeBundle + `","verificationMaterial":{"publicKey":{},"tlogEntries":[` + entries + `]}}`)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := ParseBundle(raw, digest.FromString("x"), nil)
	runtime.ReadMemStats(&after)
	if err == nil || !strings.Contains(err.Error(), "log entries: ") {
		t.Errorf("%.200v", err)
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > 10*maxBundle {
		t.Errorf("%d bytes of memory for a text of %d", took, len(raw))
	}
}

func TestReferrerLimits(t *testing.T) {
	sh, s := world(t)
	for i := range maxSignatures + 1 {
		sh.bundle(t, s.Root, fmt.Appendf(nil, "%d", i))
	}
	if _, err := fetchReferrers(t.Context(), sh, s.Root); err == nil {
		t.Error("any number of referrers is read")
	}
	sh, s = world(t)
	sh.bundle(t, s.Root, bytes.Repeat([]byte(" "), maxBundle+1))
	sh.bundle(t, s.Root, dsse(t, newKey(t), signStatement(s.Root, "")))
	sh.bundle(t, s.Root, bytes.Repeat([]byte(" "), maxBulk+1))
	if r, err := fetchReferrers(t.Context(), sh, s.Root); err != nil || len(r.sigs) != 1 || len(r.bulk) != 1 || len(r.broken) != 1 || r.huge != maxBulk+1 {
		t.Errorf("huge bundles beside a good one: %+v, %v", r, err)
	}
	sh, s = world(t)
	for i := range maxBundles/maxBundle + 1 {
		sh.bundle(t, s.Root, append(bytes.Repeat([]byte(" "), maxBundle-1), byte('0'+i)))
	}
	if r, err := fetchReferrers(t.Context(), sh, s.Root); err != nil || len(r.broken) != 4 || len(r.bulk) != 1 {
		t.Errorf("many large bundles: %v, %d, %v", r.broken, len(r.bulk), err)
	}
	// What refers to another image is not this one's, whatever the list says.
	sh, s = world(t)
	sh.bundle(t, digest.FromString("x"), dsse(t, newKey(t), signStatement(s.Root, "")))
	sh.manifests["sha256-"+s.Root.Encoded()] = sh.manifests["sha256-"+digest.FromString("x").Encoded()]
	if r, err := fetchReferrers(t.Context(), sh, s.Root); err != nil || len(r.sigs)+len(r.broken) != 0 {
		t.Errorf("another image's: %+v %v", r, err)
	}
}

func FuzzParseBundle(f *testing.F) {
	d := digest.FromString("m")
	key := newKey(f)
	f.Add(dsse(f, key, signStatement(d, `,"name":"a","annotations":{"a":"b"}`)))
	f.Add(messageBundle(f, key, []byte("m")))
	k, err := parseKey(publicPEM(f, key.Public()))
	must(f, err)
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := ParseBundle(raw, d, []byte("m"))
		if err != nil {
			return
		}
		_ = k.verify(s.message(), s.Sig)
		if claims, err := s.claims(); err == nil {
			for _, c := range claims {
				if registry.CheckDigest(c.Digest) != nil {
					t.Fatalf("accepted the digest %q", c.Digest)
				}
			}
		}
	})
}

func FuzzParseStatement(f *testing.F) {
	f.Add(signStatement(digest.FromString("m"), `,"name":"a","annotations":{"a":"b"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if st, err := parseStatement(raw); err == nil && len(st.claims) == 0 {
			t.Fatal("a statement without claims")
		}
	})
}
