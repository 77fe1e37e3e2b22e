package trust

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
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

const (
	issuer   = "https://ci.example/oidc"
	subject1 = "https://git.example/shop/app/.github/workflows/release.yml@refs/tags/v1"
	mail     = "release@example.com"
)

var signedAt = sigstoretest.Start.Add(24 * time.Hour)

// A signing is one keyless signature before it becomes a bundle: whatever a
// test changes in it was signed by nobody.
type signing struct {
	w       *sigstoretest.World
	cert    *x509.Certificate
	key     *ecdsa.PrivateKey
	payload []byte
	sig     []byte
	entries []sigstoretest.Entry
	stamps  [][]byte
}

func newSigning(t testing.TB, w *sigstoretest.World, payload []byte, wish sigstoretest.Wish) *signing {
	t.Helper()
	s := &signing{w: w, payload: payload}
	s.cert, s.key = w.Certificate(wish)
	s.sig = sigstoretest.Sign(t, s.key, PreAuthentication(PayloadTypeInToto, payload))
	s.record(t, signedAt.Add(time.Minute))
	return s
}

func (s *signing) record(t testing.TB, at time.Time) {
	t.Helper()
	s.entries = []sigstoretest.Entry{s.w.Record(s.w.Enveloped(s.payload, s.sig, sigstoretest.PEM(t, s.cert)), at)}
}

func (s *signing) bundle(t testing.TB) []byte {
	t.Helper()
	raw, err := json.Marshal(map[string]any{
		"mediaType": MediaTypeBundle, "verificationMaterial": sigstoretest.Material(s.cert, s.entries, s.stamps...),
		"dsseEnvelope": map[string]any{"payload": s.payload, "payloadType": PayloadTypeInToto, "signatures": []any{map[string]any{"sig": s.sig}}},
	})
	must(t, err)
	return raw
}

func wish(subject string) sigstoretest.Wish {
	return sigstoretest.Wish{Issuer: issuer, Subject: subject, At: signedAt}
}

// rootPolicy asks for identities under the trusted root at "root".
func rootPolicy(t testing.TB, identities string) *Policy {
	t.Helper()
	p, err := ParsePolicy([]byte(withDefault(`{"type":"sigstoreSigned","trustedRootPath":"root","identities":[` + identities + `]` + ignoring + `}`)))
	must(t, err)
	return p
}

func files(sh *shelf, named map[string][]byte) Evidence {
	return Evidence{Signatures: sh, Keys: func(_ context.Context, path string) ([]byte, error) {
		if b, ok := named[path]; ok {
			return b, nil
		}
		return nil, fault.Newf(fault.NotFound, "no %s", path)
	}}
}

func refused(t testing.TB, v Verdict, err error, reason string) {
	t.Helper()
	rej, ok := errors.AsType[*Rejection](err)
	if v.Accepted || !ok || fault.CodeOf(err) != fault.ImageUnsigned {
		t.Fatalf("got %+v, %v, want a refusal", v, err)
	}
	if text := fmt.Sprint(rej, rej.Unwrap()); !strings.Contains(text, reason) {
		t.Fatalf("got %s, want %q", text, reason)
	}
}

func TestKeyless(t *testing.T) {
	exact := fmt.Sprintf(`{"issuer":%q,"subject":%q}`, issuer, subject1)
	other := sigstoretest.NewKey(t)
	at := signedAt.Add
	tests := []struct {
		name       string
		identities string // empty: exactly the signer's
		wish       func(*sigstoretest.Wish)
		change     func(*testing.T, *signing)
		root       func(map[string]any)
		reason     string // empty: accepted
	}{
		{name: "a good one"},
		{name: "patterns", identities: `{"issuerRegExp":"https://ci\\.example/.*","subjectRegExp":"https://git\\.example/shop/.*@refs/tags/v[0-9]+"}`},
		{name: "one of several identities", identities: `{"issuer":"x","subject":"y"},` + exact},
		{name: "only a promise", change: func(_ *testing.T, s *signing) { s.entries[0].Proof = nil }},
		{name: "a timestamp in the place of the log's time", change: func(t *testing.T, s *signing) {
			s.entries = []sigstoretest.Entry{s.w.Record(s.w.Enveloped2(s.payload, s.sig, s.cert), time.Unix(0, 0))}
			s.entries[0].SET, s.stamps = nil, [][]byte{s.w.Timestamp(s.sig, at(time.Minute))}
		}},
		{name: "a hash of the envelope in the log's second version", change: func(t *testing.T, s *signing) {
			s.entries = []sigstoretest.Entry{s.w.Record(s.w.Hashed2(PreAuthentication(PayloadTypeInToto, s.payload), s.sig, s.cert), time.Unix(0, 0))}
			s.entries[0].SET, s.stamps = nil, [][]byte{s.w.Timestamp(s.sig, at(time.Minute))}
		}},
		{name: "a hash of something else in the log's second version", change: func(t *testing.T, s *signing) {
			s.entries = []sigstoretest.Entry{s.w.Record(s.w.Hashed2(s.payload, s.sig, s.cert), time.Unix(0, 0))}
			s.entries[0].SET, s.stamps = nil, [][]byte{s.w.Timestamp(s.sig, at(time.Minute))}
		}, reason: "another signature"},
		{name: "the log's time and a timestamp", change: func(_ *testing.T, s *signing) {
			s.stamps = [][]byte{s.w.Timestamp(s.sig, at(2*time.Minute))}
		}},
		{name: "an entry of a strange log beside a good one", change: func(_ *testing.T, s *signing) {
			e := s.entries[0]
			e.LogID = make([]byte, 32)
			s.entries = append(s.entries, e)
		}},
		{name: "a witness has signed the checkpoint too", change: func(_ *testing.T, s *signing) {
			s.entries[0].Proof.Checkpoint = strings.Replace(s.entries[0].Proof.Checkpoint, "\n\n", "\n\n\u2014 witness.example AAAAAAAA\n", 1)
		}},
		{name: "only a witness has signed the checkpoint", change: func(_ *testing.T, s *signing) {
			text, _, _ := strings.Cut(s.entries[0].Proof.Checkpoint, "\n\n")
			s.entries[0].Proof.Checkpoint = text + "\n\n\u2014 witness.example AAAAAAAA\n"
		}, reason: "did not sign it"},
		{name: "no log of certificates in the root", wish: func(w *sigstoretest.Wish) { w.WithoutSCT = true }, root: func(d map[string]any) { delete(d, "ctlogs") }},

		{name: "another subject", identities: fmt.Sprintf(`{"issuer":%q,"subject":"https://git.example/evil"}`, issuer), reason: "whom nobody asked for"},
		{name: "another issuer", identities: fmt.Sprintf(`{"issuer":"https://accounts.example","subject":%q}`, subject1), reason: "whom nobody asked for"},
		{name: "a pattern of a part", identities: `{"issuerRegExp":"ci.example","subjectRegExp":".*"}`, reason: "whom nobody asked for"},
		{name: "a pattern of the beginning", identities: `{"issuerRegExp":".*","subjectRegExp":"https://git.example/shop|x"}`, reason: "whom nobody asked for"},
		{name: "another authority", change: func(t *testing.T, s *signing) {
			s.cert, s.key = sigstoretest.New(t).Certificate(wish(subject1))
			s.sig = sigstoretest.Sign(t, s.key, PreAuthentication(PayloadTypeInToto, s.payload))
			s.record(t, at(time.Minute))
		}, reason: "signed by unknown authority"},
		{name: "signed after the certificate expired", change: func(t *testing.T, s *signing) { s.record(t, at(11*time.Minute)) }, reason: "expired"},
		{name: "signed before the certificate began", change: func(t *testing.T, s *signing) { s.record(t, at(-time.Minute)) }, reason: "not yet valid"},
		{name: "a timestamp after the certificate expired", change: func(_ *testing.T, s *signing) {
			s.stamps = [][]byte{s.w.Timestamp(s.sig, at(11*time.Minute))}
		}, reason: "expired"},
		{name: "an authority that no longer counts", root: func(d map[string]any) {
			d["certificateAuthorities"].([]any)[0].(map[string]any)["validFor"].(map[string]any)["end"] = at(-time.Hour)
		}, reason: "unknown authority"},
		{name: "a log that no longer counts", root: func(d map[string]any) {
			d["tlogs"].([]any)[0].(map[string]any)["publicKey"].(map[string]any)["validFor"].(map[string]any)["end"] = at(-time.Hour)
		}, reason: "did not count"},
		{name: "a log that no longer counts, by a proof and a timestamp", change: func(_ *testing.T, s *signing) {
			s.entries[0].SET, s.stamps = nil, [][]byte{s.w.Timestamp(s.sig, at(time.Minute))}
		}, root: func(d map[string]any) {
			d["tlogs"].([]any)[0].(map[string]any)["publicKey"].(map[string]any)["validFor"].(map[string]any)["end"] = at(-time.Hour)
		}, reason: "did not count"},
		{name: "a certificate for servers", wish: func(w *sigstoretest.Wish) {
			w.Change = func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }
		}, reason: "incompatible key usage"},
		{name: "an authority's certificate", wish: func(w *sigstoretest.Wish) {
			w.Change = func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }
		}, reason: "an authority's"},
		{name: "two issuers", wish: func(w *sigstoretest.Wish) {
			w.Change = func(c *x509.Certificate) { c.ExtraExtensions[0].Value = []byte("https://other.example") }
		}, reason: "two issuers"},
		{name: "no issuer", wish: func(w *sigstoretest.Wish) { w.Change = func(c *x509.Certificate) { c.ExtraExtensions = nil } }, reason: "no issuer"},
		{name: "two subjects", wish: func(w *sigstoretest.Wish) {
			w.Change = func(c *x509.Certificate) { c.EmailAddresses = []string{mail} }
		}, reason: "exactly one is needed"},
		{name: "no SCT", wish: func(w *sigstoretest.Wish) { w.WithoutSCT = true }, reason: "SCT"},
		{name: "an SCT for another certificate", wish: func(w *sigstoretest.Wish) {
			w.WithoutSCT = true
			donor, _ := sigstoretest.New(t).Certificate(wish(subject1))
			w.Change = func(c *x509.Certificate) {
				c.ExtraExtensions = append(c.ExtraExtensions, donor.Extensions[len(donor.Extensions)-1])
			}
		}, reason: "no trusted log has promised"},
		{name: "a log of certificates that does not count yet", root: func(d map[string]any) {
			d["ctlogs"].([]any)[0].(map[string]any)["publicKey"].(map[string]any)["validFor"].(map[string]any)["start"] = at(time.Hour)
		}, reason: "no trusted log has promised"},
		{name: "no log entry", change: func(_ *testing.T, s *signing) { s.entries = nil }, reason: "no trusted log recorded it"},
		{name: "only a strange log's entry", change: func(_ *testing.T, s *signing) { s.entries[0].LogID = make([]byte, 32) }, reason: "no trusted log recorded it"},
		{name: "another log's key", change: func(t *testing.T, s *signing) {
			s.w.Promise(&s.entries[0], other)
			s.entries[0].Proof = nil
		}, reason: "SET"},
		{name: "an altered time", change: func(_ *testing.T, s *signing) { s.entries[0].Integrated++ }, reason: "SET"},
		{name: "an altered index", change: func(_ *testing.T, s *signing) { s.entries[0].Index++ }, reason: "SET"},
		{name: "an altered promise", change: func(_ *testing.T, s *signing) { s.entries[0].SET[9] ^= 1 }, reason: "SET"},
		{name: "neither promise nor proof", change: func(_ *testing.T, s *signing) { s.entries[0].SET, s.entries[0].Proof = nil, nil }, reason: "neither"},
		{name: "no time", change: func(_ *testing.T, s *signing) { s.entries[0].SET = nil }, reason: "nothing says when"},
		{name: "the proof of another leaf", change: func(t *testing.T, s *signing) {
			s.entries[0].Proof = s.w.Record([]byte("another"), signedAt).Proof
		}, reason: "does not lead to"},
		{name: "a neighbour's index", change: func(_ *testing.T, s *signing) { s.entries[0].Proof.Index-- }, reason: "inclusion proof"},
		{name: "an index outside of the tree", change: func(_ *testing.T, s *signing) { s.entries[0].Proof.Index = s.entries[0].Proof.Size }, reason: "of a tree of"},
		{name: "a shorter path", change: func(_ *testing.T, s *signing) { s.entries[0].Proof.Path = s.entries[0].Proof.Path[1:] }, reason: "hashes"},
		{name: "a short hash", change: func(_ *testing.T, s *signing) { s.entries[0].Proof.Path[0] = []byte("x") }, reason: "another size"},
		{name: "no checkpoint", change: func(_ *testing.T, s *signing) { s.entries[0].Proof.Checkpoint = "" }, reason: "checkpoint"},
		{name: "another log's checkpoint", change: func(_ *testing.T, s *signing) { s.w.Checkpoint(s.entries[0].Proof, other) }, reason: "did not sign it"},
		{name: "a checkpoint of another tree", change: func(t *testing.T, s *signing) {
			s.entries[0].Proof.Checkpoint = s.w.Record([]byte("another"), signedAt).Proof.Checkpoint
		}, reason: "another tree"},
		{name: "the entry of another signature", change: func(t *testing.T, s *signing) {
			s.sig = sigstoretest.Sign(t, s.key, PreAuthentication(PayloadTypeInToto, s.payload)) // ECDSA: other bytes, as good
		}, reason: "another signature"},
		{name: "the entry of another payload", change: func(t *testing.T, s *signing) {
			s.entries = []sigstoretest.Entry{s.w.Record(s.w.Enveloped([]byte("x"), s.sig, sigstoretest.PEM(t, s.cert)), at(time.Minute))}
		}, reason: "another signature"},
		{name: "the entry of another certificate", change: func(t *testing.T, s *signing) {
			cert, _ := s.w.Certificate(wish(mail))
			s.entries = []sigstoretest.Entry{s.w.Record(s.w.Enveloped(s.payload, s.sig, sigstoretest.PEM(t, cert)), at(time.Minute))}
		}, reason: "another signature"},
		{name: "the entry of a bare key", change: func(t *testing.T, s *signing) {
			s.entries = []sigstoretest.Entry{s.w.Record(s.w.Enveloped(s.payload, s.sig, sigstoretest.PEM(t, s.key.Public())), at(time.Minute))}
		}, reason: "another signature"},
		{name: "an entry of another kind", change: func(_ *testing.T, s *signing) {
			s.entries = []sigstoretest.Entry{s.w.Record([]byte(`{"kind":"rpm","apiVersion":"0.0.1","spec":{}}`), at(time.Minute))}
		}, reason: "not supported"},
		{name: "a timestamp over something else", change: func(_ *testing.T, s *signing) {
			s.stamps = [][]byte{s.w.Timestamp([]byte("x"), at(time.Minute))}
		}, reason: "timestamp"},
		{name: "another authority's timestamp", change: func(t *testing.T, s *signing) {
			s.stamps = [][]byte{sigstoretest.New(t).Timestamp(s.sig, at(time.Minute))}
		}, reason: "timestamp"},
		{name: "signed by another key than the certificate's", change: func(t *testing.T, s *signing) {
			s.sig = sigstoretest.Sign(t, other, PreAuthentication(PayloadTypeInToto, s.payload))
			s.record(t, at(time.Minute))
		}, reason: "did not make"},
		{name: "a root without authorities", root: func(d map[string]any) { delete(d, "certificateAuthorities") }, reason: "no authority"},
		{name: "a root without logs", root: func(d map[string]any) { delete(d, "tlogs") }, reason: "no transparency log"},
		{name: "a root whose log has no beginning", root: func(d map[string]any) {
			delete(d["tlogs"].([]any)[0].(map[string]any)["publicKey"].(map[string]any), "validFor")
		}, reason: "from which it counts"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			sh, s := world(t)
			w, wanted := sigstoretest.New(t), wish(subject1)
			if tt.wish != nil {
				tt.wish(&wanted)
			}
			made := newSigning(t, w, signStatement(s.Root, ""), wanted)
			if tt.change != nil {
				tt.change(t, made)
			}
			sh.bundle(t, s.Root, made.bundle(t))
			if tt.identities == "" {
				tt.identities = exact
			}
			v, err := rootPolicy(t, tt.identities).Evaluate(t.Context(), s, files(sh, map[string][]byte{"root": w.Root(tt.root)}))
			if tt.reason != "" {
				refused(t, v, err, tt.reason)
				return
			}
			if err != nil || !v.Accepted || v.Waived || len(v.Signatures) != 1 {
				t.Fatalf("got %+v, %v", v, errors.Unwrap(err))
			}
			a := v.Signatures[0]
			if a.Issuer != issuer || a.Subject != subject1 || a.SignedBy == nil || !a.SignedBy.Equal(at(time.Minute)) || a.Log == "" {
				t.Errorf("got %+v", a)
			}
			if waived := len(v.Waivers) == 2 && v.Waivers[0].What == WaivedCertLog; waived != wanted.WithoutSCT {
				t.Errorf("waivers %+v", v.Waivers)
			}
		})
	}
}

// A bundle is about one digest: moved beside another image it is refused.
func TestKeylessBundleOfAnotherImage(t *testing.T) {
	sh, s := world(t)
	w := sigstoretest.New(t)
	sh.bundle(t, s.Root, newSigning(t, w, signStatement(digest.FromString("x"), ""), wish(subject1)).bundle(t))
	v, err := rootPolicy(t, fmt.Sprintf(`{"issuer":%q,"subject":%q}`, issuer, subject1)).
		Evaluate(t.Context(), s, files(sh, map[string][]byte{"root": w.Root(nil)}))
	refused(t, v, err, "another image")
}

// Cosign's first form: the certificate, its chain and the log entry stand in
// annotations, and the policy is that of containers-policy.json(5).
func TestKeylessAnnotations(t *testing.T) {
	w := sigstoretest.New(t)
	other := sigstoretest.New(t)
	fulcio := func(ca []byte, mail, more string) string {
		return fmt.Sprintf(`{"type":"sigstoreSigned","fulcio":{"caData":%q,"oidcIssuer":%q,"subjectEmail":%q},"rekorPublicKeyData":%q%s}`,
			b64(ca), issuer, mail, b64(w.LogKey()), more)
	}
	tests := []struct {
		name, policy string
		change       func(map[string]string)
		reason       string
	}{
		{"a good one", fulcio(w.CA(), mail, ""), nil, ""},
		{"another mail", fulcio(w.CA(), "other@example.com", ""), nil, "whom nobody asked for"},
		{"another authority", fulcio(other.CA(), mail, ""), nil, "unknown authority"},
		{"without its chain", fulcio(w.CA(), mail, ""), func(a map[string]string) { delete(a, "dev.sigstore.cosign/chain") }, "unknown authority"},
		{"without the log's entry", fulcio(w.CA(), mail, ""), func(a map[string]string) { delete(a, "dev.sigstore.cosign/bundle") }, "no trusted log"},
		{"another log's entry", strings.Replace(fulcio(w.CA(), mail, ""), b64(w.LogKey()), b64(other.LogKey()), 1), nil, "no trusted log"},
		{"without a certificate", fulcio(w.CA(), mail, ""), func(a map[string]string) { delete(a, "dev.sigstore.cosign/certificate") }, "a chain without a certificate"},
		{"with an unreadable entry", fulcio(w.CA(), mail, ""), func(a map[string]string) { a["dev.sigstore.cosign/bundle"] = "{" }, "unreadable"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			sh, s := world(t)
			payload := payloadFor(s.Root, "ghcr.io/a/app")
			cert, key := w.Certificate(wish(mail))
			sig := sigstoretest.Sign(t, key, payload)
			e := w.Record(w.Hashed(payload, sig, sigstoretest.PEM(t, cert)), signedAt.Add(time.Minute))
			annotations := map[string]string{
				AnnotationSignature: b64(sig), "dev.sigstore.cosign/certificate": string(sigstoretest.PEM(t, cert)),
				"dev.sigstore.cosign/chain": string(w.Intermediate()) + string(w.CA()), "dev.sigstore.cosign/bundle": e.Annotation(),
			}
			if tt.change != nil {
				tt.change(annotations)
			}
			sh.putLayer(t, s.Root, payload, annotations, MediaTypeSimpleSigning)
			p, err := ParsePolicy([]byte(withDefault(tt.policy)))
			must(t, err)
			v, err := p.Evaluate(t.Context(), s, files(sh, nil))
			if tt.reason != "" {
				refused(t, v, err, tt.reason)
			} else if err != nil || v.Signatures[0].Subject != mail {
				t.Fatalf("got %+v, %v", v, errors.Unwrap(err))
			}
		})
	}
}

// A key whose signatures must be in a log as well.
func TestKeyAndLog(t *testing.T) {
	w, key := sigstoretest.New(t), sigstoretest.NewKey(t)
	policy, err := ParsePolicy([]byte(withDefault(`{"type":"sigstoreSigned","keyPath":"key","rekorPublicKeyPaths":["log"]}`)))
	must(t, err)
	keys := map[string][]byte{"key": sigstoretest.PEM(t, key.Public()), "log": w.LogKey()}
	try := func(entry func(payload, sig []byte) string) (Verdict, error) {
		sh, s := world(t)
		payload := payloadFor(s.Root, "ghcr.io/a/app")
		sig := sigstoretest.Sign(t, key, payload)
		sh.putLayer(t, s.Root, payload, map[string]string{AnnotationSignature: b64(sig), "dev.sigstore.cosign/bundle": entry(payload, sig)}, MediaTypeSimpleSigning)
		return policy.Evaluate(t.Context(), s, files(sh, keys))
	}
	v, err := try(func(payload, sig []byte) string {
		return w.Record(w.Hashed(payload, sig, keys["key"]), signedAt).Annotation()
	})
	if err != nil || v.Signatures[0].Log == "" || v.Signatures[0].Issuer != "" {
		t.Fatalf("%+v, %v", v, errors.Unwrap(err))
	}
	v, err = try(func([]byte, []byte) string { return "" })
	refused(t, v, err, "no trusted log recorded it")
	v, err = try(func(payload, sig []byte) string {
		return w.Record(w.Hashed(payload, sig, w.LogKey()), signedAt).Annotation()
	})
	refused(t, v, err, "another signature")
}

// An inclusion proof says no time: the log's key must count for good then.
func TestKeyAndLogWithoutATime(t *testing.T) {
	w, key := sigstoretest.New(t), sigstoretest.NewKey(t)
	policy, err := ParsePolicy([]byte(withDefault(`{"type":"sigstoreSigned","keyPath":"key","trustedRootPath":"root"` + ignoring + `}`)))
	must(t, err)
	for _, ended := range []bool{false, true} {
		sh, s := world(t)
		payload := signStatement(s.Root, "")
		sig := sigstoretest.Sign(t, key, PreAuthentication(PayloadTypeInToto, payload))
		e := w.Record(w.Enveloped(payload, sig, sigstoretest.PEM(t, key.Public())), signedAt)
		e.SET = nil
		raw, err := json.Marshal(map[string]any{
			"mediaType": MediaTypeBundle, "verificationMaterial": sigstoretest.Material(nil, []sigstoretest.Entry{e}),
			"dsseEnvelope": map[string]any{"payload": payload, "payloadType": PayloadTypeInToto, "signatures": []any{map[string]any{"sig": sig}}},
		})
		must(t, err)
		sh.bundle(t, s.Root, raw)
		root := w.Root(func(d map[string]any) {
			if ended {
				d["tlogs"].([]any)[0].(map[string]any)["publicKey"].(map[string]any)["validFor"].(map[string]any)["end"] = signedAt.Add(time.Hour)
			}
		})
		v, err := policy.Evaluate(t.Context(), s, files(sh, map[string][]byte{"key": sigstoretest.PEM(t, key.Public()), "root": root}))
		if ended {
			refused(t, v, err, "did not count")
		} else if err != nil || v.Signatures[0].SignedBy != nil {
			t.Errorf("%+v, %v", v, errors.Unwrap(err))
		}
	}
}

func TestParseKeylessPolicy(t *testing.T) {
	id := `"identities":[{"issuer":"i","subject":"s"}]`
	tests := map[string]string{
		`"trustedRootPath":"r",` + id:                    "",
		`"trustedRootPath":"r","keyPath":"k"`:            "",
		`"trustedRootPath":"r",` + id + `,"threshold":2`: "",
		id:                      "need a trusted root",
		`"trustedRootPath":"r"`: "exactly one of keyPath",
		`"trustedRootPath":"r",` + id + `,"keyPath":"k"`:                                             "unknown member",
		`"trustedRootPath":"r","trustedRootData":"eA==",` + id:                                       "exactly one of trustedRootPath",
		`"trustedRootPath":"r","identities":[]`:                                                      "0 identities",
		`"trustedRootPath":"r","rekorPublicKeyPath":"l",` + id:                                       "neither fulcio nor rekor",
		`"trustedRootPath":"r","identities":[{"issuer":"i"}]`:                                        "exactly one of subject",
		`"trustedRootPath":"r","identities":[{"issuer":"","subject":"s"}]`:                           "exactly one of issuer",
		`"trustedRootPath":"r","identities":[{"issuer":"i","subjectRegExp":"("}]`:                    "subjectRegExp",
		`"trustedRootPath":"r","identities":[{"issuer":"i","subjectRegExp":"a)|(b"}]`:                "subjectRegExp",
		`"trustedRootPath":"r","identities":[{"issuer":"i","subject":"s","subjectRegExp":"s"}]`:      "exactly one of subject",
		`"fulcio":{"caPath":"c","oidcIssuer":"i","subjectEmail":"s"}`:                                "rekorPublicKey",
		`"fulcio":{"oidcIssuer":"i","subjectEmail":"s"},"rekorPublicKeyPath":"l"`:                    "caPath",
		`"fulcio":{"caPath":"c","subjectEmail":"s"},"rekorPublicKeyPath":"l"`:                        "oidcIssuer",
		`"fulcio":{"caPath":"c","oidcIssuer":"i"},"rekorPublicKeyPath":"l"`:                          "subjectEmail",
		`"fulcio":{"caPath":"c","oidcIssuer":"i","subjectEmail":"s","x":1},"rekorPublicKeyPath":"l"`: "unknown member",
		`"rekorPublicKeyPath":"l"`:                                                                   "exactly one of keyPath",
		`"keyPath":"k","rekorPublicKeyPath":"l","rekorPublicKeyPaths":["m"]`:                         "exactly one of rekorPublicKeyPath",
	}
	for members, reason := range tests {
		_, err := ParsePolicy([]byte(withDefault(`{"type":"sigstoreSigned",` + members + `}`)))
		if reason == "" && err != nil || reason != "" && (err == nil || !strings.Contains(err.Error(), reason)) {
			t.Errorf("%s: got %v, want %q", members, err, reason)
		}
	}
}
