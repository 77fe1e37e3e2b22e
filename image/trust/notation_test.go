package trust

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/notaryproject/notation-core-go/signature"
	"github.com/notaryproject/notation-core-go/signature/cose"
	"github.com/notaryproject/notation-core-go/signature/jws"
	"github.com/notaryproject/tspclient-go"
	"github.com/opencontainers/go-digest"

	"github.com/vouchsafe-cc/vouchsafe/image/internal/sigstore"
	"github.com/vouchsafe-cc/vouchsafe/image/internal/sigstoretest"
)

const (
	shop       = "x509.subject: C=DE, ST=Berlin, O=Shop"
	notationCA = `{"type":"notationSigned","caPath":"ca","trustedIdentities":[%q],"insecureIgnoreRevocation":true%s}`
)

// A notaryRequest is what a signer of the Notary Project is asked to make.
type notaryRequest struct {
	mediaType string
	target    string // JSON of the descriptor
	subject   pkix.Name
	request   signature.SignRequest
	at        time.Time // when the certificate begins
	stamp     time.Time // zero: no timestamp
	tsa       *sigstoretest.World
}

func newNotary(d digest.Digest) *notaryRequest {
	return &notaryRequest{
		mediaType: jws.MediaTypeEnvelope, at: signedAt,
		target:  fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":%q,"size":2,"annotations":{"version":"1.4"}}`, d),
		subject: pkix.Name{Country: []string{"DE"}, Province: []string{"Berlin"}, Organization: []string{"Shop"}, CommonName: "release"},
		request: signature.SignRequest{SigningTime: signedAt.Add(time.Minute), SigningScheme: signature.SigningSchemeX509},
	}
}

func (n *notaryRequest) sign(t testing.TB, w *sigstoretest.World) []byte {
	t.Helper()
	cert, key := w.Certificate(sigstoretest.Wish{Issuer: "i", Subject: mail, At: n.at, WithoutSCT: true, Change: func(c *x509.Certificate) { c.Subject = n.subject }})
	above, err := sigstore.ParseCertificates(append(w.Intermediate(), w.CA()...))
	must(t, err)
	n.request.Signer, err = signature.NewLocalSigner(append([]*x509.Certificate{cert}, above...), key)
	must(t, err)
	n.request.Payload = signature.Payload{ContentType: PayloadNotation, Content: []byte(`{"targetArtifact":` + n.target + `}`)}
	envelope, err := signature.NewEnvelope(n.mediaType)
	must(t, err)
	raw, err := envelope.Sign(&n.request)
	must(t, err)
	if n.stamp.IsZero() {
		return raw
	}
	content, err := envelope.Content()
	must(t, err)
	var response tspclient.Response
	must(t, response.UnmarshalBinary(n.tsa.Timestamp(content.SignerInfo.Signature, n.stamp)))
	var doc map[string]any
	must(t, json.Unmarshal(raw, &doc)) // JWS: what is not signed stands in its header
	doc["header"].(map[string]any)["io.cncf.notary.timestampSignature"] = response.TimestampToken.FullBytes
	raw, err = json.Marshal(doc)
	must(t, err)
	return raw
}

func (s *shelf) notarise(t testing.TB, d digest.Digest, mediaType string, raw []byte) {
	t.Helper()
	s.refer(t, d, mediaType, ArtifactNotation, raw, nil)
}

func TestNotation(t *testing.T) {
	w, other := sigstoretest.New(t), sigstoretest.New(t)
	during, after := signedAt.Add(2*time.Minute), signedAt.Add(time.Hour)
	certs := func(of *sigstoretest.World) map[string][]byte {
		return map[string][]byte{"ca": of.CA(), "tsa": of.TSA()}
	}
	tests := []struct {
		name, identity, more string
		change               func(*notaryRequest)
		now                  time.Time // zero: while the certificate holds
		files                map[string][]byte
		reason               string // empty: accepted
	}{
		{name: "a good one"},
		{name: "COSE", change: func(n *notaryRequest) { n.mediaType = cose.MediaTypeEnvelope }},
		{name: "more of the subject", identity: shop + `,CN=release`},
		{name: "before it expires", change: func(n *notaryRequest) { n.request.Expiry = after }},
		{name: "stamped while the certificate held", more: `,"tsaPath":"tsa"`, now: after, change: func(n *notaryRequest) { n.stamp = during }},
		{name: "a version that is high enough", more: `,"atLeast":{"version":"1.4"}`},

		{name: "another authority", files: certs(other), reason: "trust store"},
		{name: "another subject", identity: "x509.subject: C=DE, ST=Berlin, O=Other", reason: "whom nobody asked for"},
		{name: "less of a subject", identity: shop + `, OU=ops`, reason: "whom nobody asked for"},
		{name: "a subject with a part twice", change: func(n *notaryRequest) { n.subject.Organization = []string{"Shop", "Evil"} }, reason: "whom nobody asked for"},
		{name: "another image", change: func(n *notaryRequest) {
			n.target = fmt.Sprintf(`{"mediaType":"a","digest":%q,"size":2}`, digest.FromString("x"))
		}, reason: "another image"},
		{name: "no digest", change: func(n *notaryRequest) { n.target = `{"mediaType":"a","size":2}` }, reason: "bad payload"},
		{name: "something unknown in the descriptor", change: func(n *notaryRequest) {
			n.target = strings.Replace(n.target, `"size"`, `"unless":1,"size"`, 1)
		}, reason: "bad payload"},
		{name: "the certificate expired", now: after, reason: "did not hold"},
		{name: "the certificate has not begun", now: signedAt.Add(-time.Hour), reason: "did not hold"},
		{name: "stamped after the certificate expired", more: `,"tsaPath":"tsa"`, now: after, change: func(n *notaryRequest) { n.stamp = after }, reason: "did not hold"},
		{name: "stamped by nobody that the policy names", now: after, change: func(n *notaryRequest) { n.stamp = during }, reason: "did not hold"},
		{name: "stamped by another authority", more: `,"tsaPath":"tsa"`, now: after, change: func(n *notaryRequest) { n.stamp, n.tsa = during, other }, reason: "timestamp"},
		{name: "the signature expired", now: during, change: func(n *notaryRequest) { n.request.Expiry = signedAt.Add(90 * time.Second) }, reason: "it expired"},
		{name: "a signing authority", change: func(n *notaryRequest) { n.request.SigningScheme = signature.SigningSchemeX509SigningAuthority }, reason: "scheme"},
		{name: "a critical attribute", change: func(n *notaryRequest) {
			n.request.ExtendedSignedAttributes = []signature.Attribute{{Key: "io.cncf.notary.verificationPlugin", Critical: true, Value: "p"}}
		}, reason: "not understood"},
		{name: "a version below the floor", more: `,"atLeast":{"version":"1.5"}`, reason: "below"},
		{name: "other annotations", more: `,"annotations":{"version":"1.5"}`, reason: "annotations"},
		{name: "too few signers", more: `,"threshold":2`, reason: "1 of the 2"},
		{name: "a trust store without certificates", files: map[string][]byte{"ca": nil}, reason: "no certificate"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			sh, s := world(t)
			n := newNotary(s.Root)
			n.tsa = w
			if tt.change != nil {
				tt.change(n)
			}
			sh.notarise(t, s.Root, n.mediaType, n.sign(t, w))
			if tt.identity == "" {
				tt.identity = shop
			}
			if tt.files == nil {
				tt.files = certs(w)
			}
			if tt.now.IsZero() {
				tt.now = during
			}
			p, err := ParsePolicy([]byte(withDefault(fmt.Sprintf(notationCA, tt.identity, tt.more))))
			must(t, err)
			ev := files(sh, tt.files)
			ev.Time = func() time.Time { return tt.now }
			v, err := p.Evaluate(t.Context(), s, ev)
			if tt.reason != "" {
				refused(t, v, err, tt.reason)
				return
			}
			if err != nil || len(v.Signatures) != 1 || !strings.Contains(v.Signers[0], "O=Shop") || v.Waived {
				t.Fatalf("got %+v, %v", v, errors.Unwrap(err))
			}
			if len(v.Waivers) != 1 || v.Waivers[0].What != WaivedRevoked {
				t.Errorf("waivers %+v", v.Waivers)
			}
			if stamped := v.Signatures[0].SignedBy != nil; stamped == n.stamp.IsZero() {
				t.Errorf("a time of %v", v.Signatures[0].SignedBy)
			}
		})
	}
}

// What was changed after it was signed does not hold, and what is broken hides
// nothing.
func TestNotationMutated(t *testing.T) {
	w := sigstoretest.New(t)
	p, err := ParsePolicy([]byte(withDefault(`{"type":"notationSigned","caPath":"ca","insecureAnyIdentity":true,"insecureIgnoreRevocation":true}`)))
	must(t, err)
	sh, s := world(t)
	ev := files(sh, map[string][]byte{"ca": w.CA()})
	ev.Time = func() time.Time { return signedAt.Add(time.Minute) }
	raw := newNotary(s.Root).sign(t, w)
	for _, member := range []string{"payload", "protected", "signature"} {
		var doc map[string]any
		must(t, json.Unmarshal(raw, &doc))
		text := []byte(doc[member].(string))
		text[len(text)/2] ^= 1
		doc[member] = string(text)
		bad, err := json.Marshal(doc)
		must(t, err)
		sh.notarise(t, s.Root, jws.MediaTypeEnvelope, bad)
	}
	sh.notarise(t, s.Root, jws.MediaTypeEnvelope, []byte("{"))
	sh.notarise(t, s.Root, "text/plain", raw)
	v, err := p.Evaluate(t.Context(), s, ev)
	refused(t, v, err, "does not hold")

	sh.notarise(t, s.Root, jws.MediaTypeEnvelope, raw)
	v, err = p.Evaluate(t.Context(), s, ev)
	if err != nil || len(v.Waivers) != 2 || v.Waivers[1].By != anyIdentity {
		t.Fatalf("%+v, %v", v, errors.Unwrap(err))
	}
	found, err := Survey(context.Background(), s, ev)
	must(t, err)
	if last := found[4]; last.Form != FormJWS || last.Claims[0].Digest != s.Root || !strings.Contains(last.KeyHint, "O=Shop") {
		t.Errorf("found %+v", found)
	}
}

func TestParseNotationPolicy(t *testing.T) {
	const waived = `"insecureIgnoreRevocation":true`
	tests := map[string]string{
		`"caPath":"c","trustedIdentities":[` + fmt.Sprintf("%q", shop) + `]`: "insecureIgnoreRevocation",
		`"trustedIdentities":[` + fmt.Sprintf("%q", shop) + `],` + waived:    "exactly one of caPath",
		`"caPath":"c",` + waived: "trustedIdentities",
		`"caPath":"c","insecureAnyIdentity":true,"trustedIdentities":[` + fmt.Sprintf("%q", shop) + `],` + waived: "trustedIdentities",
		`"caPath":"c","trustedIdentities":["*"],` + waived:                                                        "want x509.subject",
		`"caPath":"c","trustedIdentities":["x509.subject: O=Shop"],` + waived:                                     "C is missing",
		`"caPath":"c","trustedIdentities":["x509.subject: C=DE,ST=B,O=S,O=T"],` + waived:                          "twice",
		`"caPath":"c","trustedIdentities":["x509.subject: C=DE,ST=B,O=S,X=T"],` + waived:                          "no part of a name",
		`"caPath":"c","insecureAnyIdentity":true,"signedIdentity":{"type":"matchExact"},` + waived:                "unknown member",
		`"caPath":"c","insecureAnyIdentity":true,"threshold":0,` + waived:                                         "threshold",
		`"caPath":"c","insecureAnyIdentity":true,"tsaPath":"",` + waived:                                          "exactly one of tsaPath",
	}
	for members, reason := range tests {
		_, err := ParsePolicy([]byte(withDefault(`{"type":"notationSigned",` + members + `}`)))
		if err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: got %v, want %q", members, err, reason)
		}
	}
	d, err := parseIdentityName(`x509.subject: C=DE, ST=Berlin, O=Shop\, Sons`)
	must(t, err)
	c := &x509.Certificate{Subject: pkix.Name{Names: []pkix.AttributeTypeAndValue{
		{Type: []int{2, 5, 4, 6}, Value: "DE"}, {Type: []int{2, 5, 4, 8}, Value: "Berlin"}, {Type: []int{2, 5, 4, 10}, Value: "Shop, Sons"},
	}}}
	if !d.matches(c) {
		t.Error("an escaped comma is not read")
	}
}

func FuzzNotation(f *testing.F) {
	w := sigstoretest.New(f)
	d := digest.FromString("m")
	ca, err := sigstore.ParseCertificates(w.CA())
	must(f, err)
	for _, mediaType := range []string{jws.MediaTypeEnvelope, cose.MediaTypeEnvelope} {
		n := newNotary(d)
		n.mediaType = mediaType
		f.Add(n.sign(f, w), mediaType == cose.MediaTypeEnvelope)
	}
	v := notary{rule: &notation{anyone: true}, store: ca, now: signedAt.Add(time.Minute)}
	f.Fuzz(func(t *testing.T, raw []byte, binary bool) {
		s := Signature{Form: FormJWS, mediaType: jws.MediaTypeEnvelope, Payload: raw}
		if binary {
			s.mediaType = cose.MediaTypeEnvelope
		}
		_, _ = s.claims()
		content, _, err := v.verify(t.Context(), s)
		if err != nil {
			return
		}
		if c, err := notationClaim(content.Payload); err != nil || c.Digest != d {
			t.Fatalf("nobody signed %s", content.Payload.Content)
		}
	})
}

func FuzzIdentityName(f *testing.F) {
	f.Add(shop)
	f.Add(`x509.subject: C=a\,b, ST=c\\, O=d`)
	f.Fuzz(func(t *testing.T, text string) {
		if d, err := parseIdentityName(text); err == nil && len(d.parts) < 3 {
			t.Fatalf("%q has the parts %v", text, d.parts)
		}
	})
}
