package trust

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/image/internal/sigstoretest"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
)

const spdx = "https://spdx.dev/Document"

// packages is a bill of materials of about the given size; the last package is
// named so.
func packages(size int, last string) string {
	var b strings.Builder
	b.WriteString(`{"spdxVersion":"SPDX-2.3","packages":[`)
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, `{"name":"package-%d","versionInfo":"1.%d","comment":%q},`, i, i, strings.Repeat("lorem ipsum ", 40))
	}
	fmt.Fprintf(&b, `{"name":%q,"versionInfo":"2"}]}`, last)
	return b.String()
}

const large = 3 << 20

func TestBulk(t *testing.T) {
	good, other := newKey(t), newKey(t)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	keys := map[string]crypto.Signer{"k": good, "ed": ed}
	of := func(s Subject) []byte { return attest(s.Root, spdx, packages(large, "zlib")) }
	tagged := func(sh *shelf, s Subject, key crypto.Signer, statement []byte) {
		sh.putTagged(t, AttestationTag(s.Root), envelope(t, key, statement), nil, MediaTypeEnvelope)
	}
	none := `,"where":[{"at":"/packages","none":[{"at":"/name","is":"log4j-core"}]},{"at":"/packages","any":[{"at":"/name","is":"zlib"},{"at":"/versionInfo","atLeast":"1.9"}]}]`
	for _, tt := range []struct {
		name, policy string
		fill         func(*shelf, Subject)
		reason       string // empty: accepted
	}{
		{"a bundle", none, func(sh *shelf, s Subject) { sh.bundle(t, s.Root, dsse(t, good, of(s))) }, ""},
		{"under cosign's tag", none, func(sh *shelf, s Subject) { tagged(sh, s, good, of(s)) }, ""},
		{"among the referrers", none, func(sh *shelf, s Subject) {
			sh.refer(t, s.Manifest, MediaTypeEnvelope, MediaTypeEnvelope, envelope(t, good, attest(s.Manifest, spdx, packages(large, "zlib"))), nil)
		}, ""},
		{"without conditions", "", func(sh *shelf, s Subject) { tagged(sh, s, good, of(s)) }, ""},
		{"after others", none, func(sh *shelf, s Subject) {
			tagged(sh, s, other, of(s))
			tagged(sh, s, good, attest(s.Root, provenance, packages(large, "zlib")))
			tagged(sh, s, good, of(s))
		}, ""},

		{"another key", none, func(sh *shelf, s Subject) { tagged(sh, s, other, of(s)) }, "by an unnamed key"},
		{"another predicate", none, func(sh *shelf, s Subject) { tagged(sh, s, good, attest(s.Root, provenance, packages(large, "zlib"))) }, "no signature"},
		{"another image", none, func(sh *shelf, s Subject) {
			tagged(sh, s, good, attest(digest.FromString("x"), spdx, packages(large, "zlib")))
		}, "of another image"},
		{"what may not be in it", none, func(sh *shelf, s Subject) { tagged(sh, s, good, attest(s.Root, spdx, packages(large, "log4j-core"))) }, "1 of "},
		{"changed after it was signed", none, func(sh *shelf, s Subject) {
			statement := of(s)
			raw := envelope(t, good, statement)
			at := bytes.Index(raw, []byte(b64(statement[:3000])))
			raw[at+2000]++
			sh.putTagged(t, AttestationTag(s.Root), raw, nil, MediaTypeEnvelope)
		}, ""},
		{"two predicates", none, func(sh *shelf, s Subject) {
			tagged(sh, s, good, bytes.Replace(of(s), []byte(`"predicate":`), []byte(`"predicate":{},"predicate":`), 1))
		}, "duplicate member"},
		{"no JSON", none, func(sh *shelf, s Subject) {
			sh.putTagged(t, AttestationTag(s.Root), bytes.Repeat([]byte("x"), large), nil, MediaTypeEnvelope)
		}, "malformed JSON"},
		{"much beside the payload", none, func(sh *shelf, s Subject) {
			sh.putTagged(t, AttestationTag(s.Root), []byte(`{"x":"`+strings.Repeat("y", large)+`"}`), nil, MediaTypeEnvelope)
		}, "too much beside"},
		{"too large", none, func(sh *shelf, s Subject) {
			sh.putTagged(t, AttestationTag(s.Root), bytes.Repeat([]byte(" "), maxBulk+1), nil, MediaTypeEnvelope)
		}, "is too large to be read"},
		{"a key that signs no digests", none, func(sh *shelf, s Subject) { tagged(sh, s, ed, of(s)) }, "too large to be verified with an Ed25519 key"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sh, s := world(t)
			tt.fill(sh, s)
			p, err := ParsePolicy([]byte(withDefault(`{"type":"attested","predicateType":"` + spdx + `","keyPaths":["k","ed"]` + tt.policy + `}`)))
			must(t, err)
			v, err := p.Evaluate(t.Context(), s, evidence(t, sh, keys))
			if strings.HasPrefix(tt.name, "changed") { // what the byte meant decides which reason there is
				refused(t, v, err, "")
				return
			}
			if tt.reason != "" {
				refused(t, v, err, tt.reason)
				return
			}
			if err != nil || len(v.Signatures) != 1 || v.Signatures[0].Predicate != spdx || tt.policy != "" && v.Signatures[0].Seen["/packages"] == "" {
				t.Fatalf("got %+v, %v", v, errors.Unwrap(err))
			}
		})
	}
}

// What is not there was not judged.
func TestBulkWithoutParts(t *testing.T) {
	key := newKey(t)
	where, err := conditions([]byte(`[{"at":"/a","exists":false}]`))
	must(t, err)
	bare := fmt.Appendf(nil, `{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":%q}}],"predicateType":"p"}`, digest.FromString("m").Encoded())
	b := &bulk{src: one{blob: envelope(t, key, bare)}, path: []string{"payload"}, parse: ParseEnvelope}
	must(t, b.open(t.Context()))
	for reason, a := range map[string]attestation{"an attestation without a predicate": {where: where}, "": {}} {
		sig, err := b.weigh(t.Context(), a)
		must(t, err)
		if sig.stream.reason != reason {
			t.Errorf("got %q, want %q", sig.stream.reason, reason)
		}
	}
	for text, reason := range map[string]string{`{}`: "no payload", `{"payload":7}`: "malformed JSON", `{"payload":"****"}`: "illegal base64", `{"payload":""}`: "ends too early"} {
		b := &bulk{src: one{blob: []byte(text)}, path: []string{"payload"}, parse: ParseEnvelope}
		if err := b.open(t.Context()); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: %v, want %q", text, err, reason)
		}
	}
}

// One that was signed without a key, and that a log recorded.
func TestBulkKeyless(t *testing.T) {
	sh, s := world(t)
	w := sigstoretest.New(t)
	policy, err := ParsePolicy([]byte(withDefault(`{"type":"attested","predicateType":"` + spdx + `","trustedRootPath":"root","identities":[{"issuer":"` + issuer +
		`","subject":"` + subject1 + `"}],"where":[{"at":"/spdxVersion","is":"SPDX-2.3"}]}`)))
	must(t, err)
	ev := files(sh, map[string][]byte{"root": w.Root(nil)})
	made := newSigning(t, w, attest(s.Root, spdx, packages(large, "zlib")), wish(subject1))
	forged := *made
	forged.payload = attest(s.Root, spdx, packages(large, "another"))
	sh.bundle(t, s.Root, forged.bundle(t))
	v, err := policy.Evaluate(t.Context(), s, ev)
	refused(t, v, err, "did not make")
	sh.bundle(t, s.Root, made.bundle(t))
	v, err = policy.Evaluate(t.Context(), s, ev)
	if err != nil || v.Signatures[0].Subject != subject1 || v.Signatures[0].Log == "" || v.Signatures[0].Seen["/spdxVersion"] != "SPDX-2.3" {
		t.Fatalf("%+v, %v", v, errors.Unwrap(err))
	}
}

// A signature is looked for beside a large attestation, which is none.
func TestBulkIsNoSignature(t *testing.T) {
	key := newKey(t)
	sh, s := world(t)
	sh.bundle(t, s.Root, dsse(t, key, attest(s.Root, spdx, packages(large, "zlib"))))
	ev := evidence(t, sh, map[string]crypto.Signer{"k": key})
	v, err := keyPolicy(t, ignoring).Evaluate(t.Context(), s, ev)
	refused(t, v, err, "which was not read")
	sh.bundle(t, s.Root, dsse(t, key, signStatement(s.Root, "")))
	if v, err = keyPolicy(t, ignoring).Evaluate(t.Context(), s, ev); err != nil || len(v.Signatures) != 1 {
		t.Fatalf("%+v, %v", v, err)
	}
}

// lossy breaks off, or sends something else than was announced.
type lossy struct {
	*shelf
	fail error
	at   int64
}

func (l *lossy) Blob(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	rc, err := l.shelf.Blob(ctx, d)
	if err != nil || d.Size < large {
		return rc, err
	}
	return io.NopCloser(io.MultiReader(io.LimitReader(rc, l.at), failing{l.fail})), nil
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// What does not arrive is no reason to refuse the image for good.
func TestBulkThatDoesNotArrive(t *testing.T) {
	key := newKey(t)
	sh, s := world(t)
	sh.putTagged(t, AttestationTag(s.Root), envelope(t, key, attest(s.Root, spdx, packages(large, "zlib"))), nil, MediaTypeEnvelope)
	p, err := ParsePolicy([]byte(withDefault(`{"type":"attested","predicateType":"` + spdx + `","keyPath":"k"}`)))
	must(t, err)
	for name, tt := range map[string]struct {
		fail error
		at   int64
		code fault.Code
	}{
		"breaks off":    {errors.New("reset"), large / 2, fault.ImageUnavailable},
		"wrong at last": {&registry.DigestError{}, 1 << 40, fault.ImageMalformed},
		"wrong bytes":   {&registry.DigestError{}, 5, fault.ImageMalformed},
	} {
		if _, err := p.Evaluate(t.Context(), s, evidence(t, &lossy{sh, tt.fail, tt.at}, map[string]crypto.Signer{"k": key})); fault.CodeOf(err) != tt.code {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// gauge measures the live heap while a blob is read.
type gauge struct {
	*shelf
	most uint64
}

func (g *gauge) Blob(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	rc, err := g.shelf.Blob(ctx, d)
	return &gauged{ReadCloser: rc, g: g}, err
}

type gauged struct {
	io.ReadCloser
	g    *gauge
	read int
}

func (b *gauged) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.read += n; b.read >= 4<<20 {
		b.read = 0
		b.g.most = max(b.g.most, live())
	}
	return n, err
}

func live() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// However large an attestation is, little of it is in memory.
func TestBulkPassesBy(t *testing.T) {
	key := newKey(t)
	sh, s := world(t)
	sh.bundle(t, s.Root, dsse(t, key, attest(s.Root, spdx, packages(20<<20, "zlib"))))
	p, err := ParsePolicy([]byte(withDefault(`{"type":"attested","predicateType":"` + spdx + `","keyPath":"k","where":[{"at":"/packages","any":[{"at":"/name","is":"zlib"}]},{"at":"/packages","none":[{"at":"/name","is":"xz"}]}]}`)))
	must(t, err)
	g := &gauge{shelf: sh}
	before := live()
	v, err := p.Evaluate(t.Context(), s, evidence(t, g, map[string]crypto.Signer{"k": key}))
	if err != nil || len(v.Signatures) != 1 {
		t.Fatalf("%+v, %v", v, errors.Unwrap(err))
	}
	if g.most == 0 || g.most > before+4<<20 {
		t.Errorf("%d bytes are alive in the middle of it, %d before", g.most, before)
	}
}

// one is a source of one blob.
type one struct {
	registry.Source
	blob []byte
}

func (o one) Blob(context.Context, ocispec.Descriptor) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(o.blob)), nil
}

// An envelope that is read as a stream says what it says when it is held.
func FuzzBulk(f *testing.F) {
	key := newKey(f)
	d := digest.FromString("m")
	f.Add(envelope(f, key, attest(d, provenance, built)))
	f.Add(envelope(f, key, attest(d, spdx, bom)))
	f.Add(envelope(f, key, attest(d, spdx, packages(1000, "zlib"))))
	f.Add(bytes.ReplaceAll(envelope(f, key, attest(d, spdx, "null")), []byte("="), []byte(`\u003d`)))
	f.Add([]byte(`{"payload":"","payloadType":"` + strings.Repeat("x", 255) + `","signatures":[]}`))
	where, err := conditions([]byte(`[{"at":"/runDetails/builder/id","matches":"https://.*"},{"at":"/packages","none":[{"at":"/name","is":"x"}]}]`))
	must(f, err)
	a := attestation{where: where}
	f.Fuzz(func(t *testing.T, raw []byte) {
		b := &bulk{src: one{blob: raw}, path: []string{"payload"}, parse: ParseEnvelope}
		var sig Signature
		err := b.open(t.Context())
		if err == nil {
			sig, err = b.weigh(t.Context(), a)
		}
		held, herr := ParseEnvelope(raw)
		if herr != nil {
			return // the stream does not see every repeated name
		}
		st, herr := held.statement()
		if herr != nil {
			return
		}
		if err != nil {
			t.Fatalf("%q: %v", raw, err)
		}
		if got := sig.stream.statement; got.predicateType != st.predicateType || len(got.claims) != len(st.claims) || got.claims[0].Digest != st.claims[0].Digest {
			t.Fatalf("%q: %+v", raw, got)
		}
		seen, reason := held.weighed(a, st)
		if reason != sig.stream.reason || !maps.Equal(seen, sig.stream.seen) {
			t.Fatalf("%q: %q, %v", raw, sig.stream.reason, sig.stream.seen)
		}
		for _, h := range []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512} {
			if !bytes.Equal(sig.message().Sum(h), held.message().Sum(h)) {
				t.Fatalf("%q: another message", raw)
			}
		}
		if !bytes.Equal(sig.envelope().Sum(crypto.SHA256), held.envelope().Sum(crypto.SHA256)) || !bytes.Equal(sig.Sig, held.Sig) {
			t.Fatalf("%q: another payload or signature", raw)
		}
	})
}
