package trust

import (
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/image/internal/sigstoretest"
)

const provenance = "https://slsa.dev/provenance/v1"

// attest is a statement about an image as builders make them.
func attest(d digest.Digest, kind, predicate string) []byte {
	return fmt.Appendf(nil, `{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"whatever","digest":{"sha256":%q}}],"predicateType":%q,"predicate":%s}`,
		d.Encoded(), kind, predicate)
}

const built = `{"buildDefinition":{"externalParameters":{"source":"https://git.example/shop/app","version":"1.10.2","n":3,"hermetic":true},` +
	`"resolvedDependencies":[{"uri":"git+https://git.example/shop/app@refs/tags/v1"}]},"runDetails":{"builder":{"id":"https://ci.example/builder"},"a/b":{"~":"x"}}}`

func envelope(t testing.TB, key crypto.Signer, payload []byte) []byte {
	t.Helper()
	return fmt.Appendf(nil, `{"payload":%q,"payloadType":%q,"signatures":[{"keyid":"","sig":%q}]}`,
		b64(payload), PayloadTypeInToto, b64(sign(t, key, PreAuthentication(PayloadTypeInToto, payload))))
}

func TestAttested(t *testing.T) {
	good, other := newKey(t), newKey(t)
	where := func(conditions string) string { return `,"where":[` + conditions + `]` }
	slsa := func(sh *shelf, s Subject) { sh.bundle(t, s.Root, dsse(t, good, attest(s.Root, provenance, built))) }
	tests := []struct {
		name, policy string
		fill         func(*shelf, Subject)
		reason       string // empty: accepted
	}{
		{"a bundle", "", slsa, ""},
		{"beside the manifest", "", func(sh *shelf, s Subject) {
			sh.bundle(t, s.Manifest, dsse(t, good, attest(s.Manifest, provenance, built)))
		}, ""},
		{"under cosign's tag", "", func(sh *shelf, s Subject) {
			sh.putTagged(t, AttestationTag(s.Root), envelope(t, good, attest(s.Root, provenance, built)), nil, MediaTypeEnvelope)
		}, ""},
		{"an envelope among the referrers", "", func(sh *shelf, s Subject) {
			sh.refer(t, s.Root, MediaTypeEnvelope, MediaTypeEnvelope, envelope(t, good, attest(s.Root, provenance, built)), nil)
		}, ""},
		{"among others", "", func(sh *shelf, s Subject) {
			sh.bundle(t, s.Root, []byte("{"))
			sh.bundle(t, s.Root, dsse(t, good, attest(s.Root, "https://spdx.dev/Document", "{}")))
			slsa(sh, s)
		}, ""},
		{"every condition", where(`{"at":"/runDetails/builder/id","is":"https://ci.example/builder"},` +
			`{"at":"/buildDefinition/externalParameters/source","matches":"https://git\\.example/shop/.*"},{"at":"/runDetails/a~1b/~0","is":"x"},` +
			`{"at":"/buildDefinition/externalParameters/n","is":3},{"at":"/buildDefinition/externalParameters/hermetic","is":true},` +
			`{"at":"/buildDefinition/externalParameters/version","atLeast":"1.9"},` +
			`{"at":"/buildDefinition/resolvedDependencies/0/uri","matches":"git\\+https://git\\.example/shop/app@.*"}`), slsa, ""},

		{"none", "", func(*shelf, Subject) {}, "no signature"},
		{"another predicate", "", func(sh *shelf, s Subject) {
			sh.bundle(t, s.Root, dsse(t, good, attest(s.Root, "https://spdx.dev/Document", built)))
		}, "no signature"},
		{"a signature", "", func(sh *shelf, s Subject) { sh.bundle(t, s.Root, dsse(t, good, signStatement(s.Root, ""))) }, "no signature"},
		{"another key", "", func(sh *shelf, s Subject) { sh.bundle(t, s.Root, dsse(t, other, attest(s.Root, provenance, built))) }, "an attestation"},
		{"another image", "", func(sh *shelf, s Subject) {
			sh.bundle(t, s.Root, dsse(t, good, attest(digest.FromString("x"), provenance, built)))
		}, "of another image"},
		{"without a predicate", where(`{"at":"/a","is":1}`), func(sh *shelf, s Subject) {
			sh.bundle(t, s.Root, dsse(t, good, attest(s.Root, provenance, "null")))
		}, "at /a"},
		{"another builder", where(`{"at":"/runDetails/builder/id","is":"https://evil.example"}`), slsa, "https://ci.example/builder"},
		{"a pattern of a part", where(`{"at":"/runDetails/builder/id","matches":"ci.example"}`), slsa, "at /runDetails/builder/id"},
		{"a pattern of a number", where(`{"at":"/buildDefinition/externalParameters/n","matches":".*"}`), slsa, "externalParameters/n"},
		{"a text for a number", where(`{"at":"/buildDefinition/externalParameters/n","is":"3"}`), slsa, "externalParameters/n"},
		{"a lower version", where(`{"at":"/buildDefinition/externalParameters/version","atLeast":"1.10.3"}`), slsa, "1.10.2"},
		{"nothing there", where(`{"at":"/runDetails/builder/name","matches":".*"}`), slsa, "nothing"},
		{"an object there", where(`{"at":"/runDetails/builder","matches":".*"}`), slsa, "no text"},
		{"beyond a list", where(`{"at":"/buildDefinition/resolvedDependencies/1/uri","matches":".*"}`), slsa, "nothing"},
		{"an index that is none", where(`{"at":"/buildDefinition/resolvedDependencies/00/uri","matches":".*"}`), slsa, "nothing"},
		{"one of two conditions", where(`{"at":"/runDetails/builder/id","matches":".*"},{"at":"/x","is":1}`), slsa, "at /x"},
		{"too few of the keys", `,"threshold":2`, slsa, "1 of the 2"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			sh, s := world(t)
			tt.fill(sh, s)
			keys := `"keyPath":"k"`
			if strings.Contains(tt.policy, "threshold") {
				keys = `"keyPaths":["k","o"]`
			}
			p, err := ParsePolicy([]byte(withDefault(`{"type":"attested","predicateType":"` + provenance + `",` + keys + tt.policy + `}`)))
			must(t, err)
			v, err := p.Evaluate(t.Context(), s, evidence(t, sh, map[string]crypto.Signer{"k": good, "o": other}))
			if tt.reason != "" {
				refused(t, v, err, tt.reason)
				return
			}
			if err != nil || !v.Accepted || v.Waived || len(v.Signatures) != 1 || v.Signatures[0].Predicate != provenance {
				t.Fatalf("got %+v, %v", v, errors.Unwrap(err))
			}
			if wanted := strings.Count(tt.policy, `"at":`); len(v.Signatures[0].Seen) != wanted {
				t.Errorf("saw %v", v.Signatures[0].Seen)
			}
		})
	}
}

// A signature and an attestation, by a key and by an identity.
func TestSignedAndAttested(t *testing.T) {
	sh, s := world(t)
	w, key := sigstoretest.New(t), newKey(t)
	sh.bundle(t, s.Root, dsse(t, key, signStatement(s.Root, "")))
	policy, err := ParsePolicy([]byte(withDefault(`{"type":"sigstoreSigned","keyPath":"key"` + ignoring + `},{"type":"attested","predicateType":"` + provenance +
		`","trustedRootPath":"root","identities":[{"issuer":"` + issuer + `","subject":"` + subject1 + `"}]}`)))
	must(t, err)
	ev := files(sh, map[string][]byte{"key": publicPEM(t, key.Public()), "root": w.Root(nil)})
	v, err := policy.Evaluate(t.Context(), s, ev)
	refused(t, v, err, "signature")

	made := newSigning(t, w, attest(s.Root, provenance, built), wish(subject1))
	sh.bundle(t, s.Root, made.bundle(t))
	v, err = policy.Evaluate(t.Context(), s, ev)
	if err != nil || len(v.Signatures) != 2 || v.Signatures[1].Subject != subject1 || !v.Signatures[1].SignedBy.Equal(signedAt.Add(time.Minute)) {
		t.Fatalf("%+v, %v", v, errors.Unwrap(err))
	}
	found, err := Survey(t.Context(), s, ev)
	must(t, err)
	if len(found) != 2 || found[0].Predicate != "" || found[1].Predicate != provenance || found[1].Claims[0].Digest != s.Root {
		t.Errorf("found %+v", found)
	}
}

func TestParseAttestedPolicy(t *testing.T) {
	tests := map[string]string{
		`"keyPath":"k"`: "predicateType is missing",
		`"keyPath":"k","predicateType":"` + PredicateSign + `"`: "is no attestation",
		`"predicateType":"p"`: "exactly one of keyPath",
		`"keyPath":"k","predicateType":"p","signedIdentity":{"type":"matchExact"}`:       "unknown member",
		`"keyPath":"k","predicateType":"p","where":[{"at":"/a"}]`:                        "exactly one of is",
		`"keyPath":"k","predicateType":"p","where":[{"at":"/a","is":"1","matches":"1"}]`: "exactly one of is",
		`"keyPath":"k","predicateType":"p","where":[{"at":"a","is":"1"}]`:                "JSON pointer",
		`"keyPath":"k","predicateType":"p","where":[{"at":"/a","is":{}}]`:                "a text, a number",
		`"keyPath":"k","predicateType":"p","where":[{"at":"/a","is":null}]`:              "a text, a number",
		`"keyPath":"k","predicateType":"p","where":[{"at":"/a","matches":"("}]`:          "missing closing",
		`"keyPath":"k","predicateType":"p","where":[{"at":"/a","matches":""}]`:           "pattern",
		`"keyPath":"k","predicateType":"p","where":[{"at":"/a","atLeast":"1.x"}]`:        "numbers with dots",
		`"keyPath":"k","predicateType":"p","where":[{"at":"/a","is":"1","then":"1"}]`:    "unknown member",
	}
	for members, reason := range tests {
		_, err := ParsePolicy([]byte(withDefault(`{"type":"attested",` + members + `}`)))
		if err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: got %v, want %q", members, err, reason)
		}
	}
}

// An older image that the same key signed once is kept out by a floor for a
// signed annotation.
func TestAtLeast(t *testing.T) {
	key := newKey(t)
	for _, tt := range []struct {
		floor, signed string
		ok            bool
	}{
		{"1.4", `,"annotations":{"version":"1.4.0"}`, true},
		{"1.4", `,"annotations":{"version":"v1.10"}`, true},
		{"1.4.0", `,"annotations":{"version":"2"}`, true},
		{"1.4", `,"annotations":{"version":"1.3.9"}`, false},
		{"1.4.1", `,"annotations":{"version":"1.4"}`, false},
		{"1.4", `,"annotations":{"version":"1.5-rc1"}`, false},
		{"1.4", `,"annotations":{"version":"01.5"}`, false},
		{"1.4", `,"annotations":{"version":2}`, false},
		{"1.4", ``, false},
	} {
		sh, s := world(t)
		sh.bundle(t, s.Root, dsse(t, key, signStatement(s.Root, tt.signed)))
		v, err := keyPolicy(t, ignoring+`,"atLeast":{"version":"`+tt.floor+`"}`).Evaluate(t.Context(), s, evidence(t, sh, map[string]crypto.Signer{"k": key}))
		if tt.ok && (err != nil || v.Signatures[0].Seen["version"] == "") || !tt.ok && fault.CodeOf(err) != fault.ImageUnsigned {
			t.Errorf("%s and %s: %+v, %v", tt.floor, tt.signed, v, err)
		}
	}
	for _, bad := range []string{`{}`, `{"version":""}`, `{"version":"one"}`, `{"version":"1.2.3.4.5.6.7"}`} {
		if _, err := ParsePolicy([]byte(withDefault(`{"type":"sigstoreSigned","keyPath":"k","atLeast":` + bad + `}`))); err == nil {
			t.Errorf("accepted the floor %s", bad)
		}
	}
}

func FuzzParseEnvelope(f *testing.F) {
	key := newKey(f)
	f.Add(envelope(f, key, attest(digest.FromString("m"), provenance, built)), "/runDetails/builder/id")
	k, err := parseKey(publicPEM(f, key.Public()))
	must(f, err)
	f.Fuzz(func(t *testing.T, raw []byte, at string) {
		s, err := ParseEnvelope(raw)
		if err != nil {
			return
		}
		st, err := parseStatement(s.Payload)
		if err != nil {
			return
		}
		if len(st.claims) == 0 || st.predicateType == "" {
			t.Fatalf("accepted %s", s.Payload)
		}
		condition, err := json.Marshal([]map[string]any{{"at": at, "is": "x"}})
		must(t, err)
		where, err := conditions(condition)
		if err != nil {
			return
		}
		seen, reason := s.weighed(attestation{where: where}, st)
		if (seen == nil) == (reason == "") {
			t.Fatalf("saw %v, %q", seen, reason)
		}
		_ = k.verify(s.message(), s.Sig)
	})
}
