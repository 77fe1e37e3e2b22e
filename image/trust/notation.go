package trust

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/notaryproject/notation-core-go/signature"
	"github.com/notaryproject/notation-core-go/signature/cose"
	"github.com/notaryproject/notation-core-go/signature/jws"
	"github.com/notaryproject/tspclient-go"

	"github.com/vouchsafe-cc/vouchsafe/image/internal/sigstore"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/image/trust/outline"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

const (
	// typeNotation is ours: a signature of the Notary Project, with a trust store
	// and trusted identities (specification "trust store and trust policy").
	typeNotation = outline.NotationSigned

	// ArtifactNotation is the type of a manifest with such a signature.
	ArtifactNotation = "application/vnd.cncf.notary.signature"
	// PayloadNotation is the type of what is signed.
	PayloadNotation = "application/vnd.cncf.notary.payload.v1+json"

	maxNotation = 256 << 10 // bytes of one envelope

	ignoreRevocation  = "insecureIgnoreRevocation"
	anyIdentity       = "insecureAnyIdentity"
	anyIdentityWaived = "any identity"
)

// The forms of Notation's signatures, and where they are found by media type.
const (
	FormJWS  Form = "notation-jws"
	FormCOSE Form = "notation-cose"
)

var notationForms = map[string]Form{jws.MediaTypeEnvelope: FormJWS, cose.MediaTypeEnvelope: FormCOSE}

// A notation is what a requirement says of Notation's signatures.
type notation struct {
	stores     []keySource // CA certificates
	stampers   *keySource  // CA certificates of authorities for timestamps; nil: no timestamp counts
	identities []distinguishedName
	anyone     bool // insecureAnyIdentity
}

func (r *requirement) parseNotation(doc *strictjson.Object) error {
	n := &notation{}
	var certs requirement
	if err := certs.parseKeys(doc, keyDataPEM, "caPath", "caPaths", "caData", "caDatas"); err != nil {
		return err
	}
	n.stores = certs.keys
	var err error
	if n.stampers, err = takeSource(doc, "tsaPath", "tsaData"); err != nil {
		return err
	}
	var names []string
	var unrevoked bool
	for _, m := range []struct {
		name string
		v    any
	}{{"trustedIdentities", &names}, {anyIdentity, &n.anyone}, {ignoreRevocation, &unrevoked}} {
		if _, err := doc.Take(m.name, m.v); err != nil {
			return err
		}
	}
	if !unrevoked {
		return fmt.Errorf("a guest asks nobody whether a certificate was revoked, so that %s is needed", ignoreRevocation)
	}
	if n.anyone == (len(names) > 0) || len(names) > maxIdentities {
		return fmt.Errorf("1 to %d trustedIdentities are needed, or %s", maxIdentities, anyIdentity)
	}
	for _, name := range names {
		id, err := parseIdentityName(name)
		if err != nil {
			return err
		}
		n.identities = append(n.identities, id)
	}
	r.notation = n
	r.threshold = 1
	if _, err := doc.Take("threshold", &r.threshold); err != nil {
		return err
	}
	if r.threshold < 1 || r.threshold > maxKeys {
		return fmt.Errorf("threshold %d", r.threshold)
	}
	// Notation signs a descriptor, which has no name.
	r.identity = identityRule{kind: ignoreIdentity}
	return r.parseAnnotations(doc)
}

// notation judges the signatures of the Notary Project beside the image.
func (e *evaluation) notation(ctx context.Context, i int, r requirement) ([]Accepted, error) {
	t := tally{index: i, rule: r, subject: e.subject}
	v := notary{rule: r.notation, now: e.evidence.now()}
	for _, id := range r.notation.identities {
		t.wanted = append(t.wanted, id.text)
	}
	if r.notation.anyone {
		t.wanted = []string{anyIdentityWaived}
	}
	for _, src := range r.notation.stores {
		certs, err := e.certificates(ctx, &src)
		if err != nil {
			return nil, err
		}
		v.store = append(v.store, certs...)
	}
	var err error
	if v.stampers, err = e.certificates(ctx, r.notation.stampers); err != nil {
		return nil, err
	}
	for _, d := range e.subject.digests() {
		found, err := e.shelf.referrers(ctx, e.evidence.Signatures, d)
		if err != nil {
			return nil, fetchFault(err)
		}
		for _, sig := range found.sigs {
			if sig.notation() {
				t.notation(ctx, v, sig)
			}
		}
		t.seen = append(t.seen, found.broken...)
	}
	return e.conclude(&t)
}

// certificates reads PEM certificates; a nil source has none, any other has
// some.
func (e *evaluation) certificates(ctx context.Context, src *keySource) ([]*x509.Certificate, error) {
	if src == nil {
		return nil, nil
	}
	raw, err := e.key(ctx, *src)
	if err != nil {
		return nil, err
	}
	certs, err := sigstore.ParseCertificates(raw)
	if err == nil && len(certs) == 0 {
		err = errors.New("no certificate")
	}
	if err != nil {
		return nil, e.reject("the certificates "+src.path+" cannot be read", err)
	}
	return certs, nil
}

func (t *tally) notation(ctx context.Context, v notary, sig Signature) {
	content, at, err := v.verify(ctx, sig)
	if err != nil {
		t.seen = append(t.seen, fmt.Sprintf("a Notation signature that does not hold (%v)", err))
		return
	}
	claim, err := notationClaim(content.Payload)
	if err != nil {
		t.seen = append(t.seen, fmt.Sprintf("a Notation signature with a bad payload (%v)", err))
		return
	}
	if reason := t.unfit(claim); reason != "" {
		t.seen = append(t.seen, reason)
		return
	}
	leaf := content.SignerInfo.CertificateChain[0]
	t.accept(signer{name: "x509.subject: " + leaf.Subject.String(), at: at}, sig, claim, claim.versions(t.rule.atLeast))
}

// A notary verifies Notation's signatures for one requirement.
type notary struct {
	rule     *notation
	store    []*x509.Certificate
	stampers []*x509.Certificate
	now      time.Time
}

// verify follows the specification's steps: integrity, authenticity, trusted
// identity, expiry, and certificates that hold at the moment of a timestamp or,
// without one, now. Revocation is waived by name. The time is zero unless a
// timestamp proves it.
func (n notary) verify(ctx context.Context, sig Signature) (*signature.EnvelopeContent, time.Time, error) {
	var none time.Time
	envelope, err := signature.ParseEnvelope(sig.mediaType, sig.Payload)
	if err != nil {
		return nil, none, err
	}
	content, err := envelope.Verify()
	if err != nil {
		return nil, none, err
	}
	info := &content.SignerInfo
	if scheme := info.SignedAttributes.SigningScheme; scheme != signature.SigningSchemeX509 {
		return nil, none, fmt.Errorf("signing scheme %.60q is not supported", scheme)
	}
	for _, a := range info.SignedAttributes.ExtendedAttributes {
		if a.Critical {
			return nil, none, fmt.Errorf("the critical attribute %.80q is not understood", fmt.Sprint(a.Key))
		}
	}
	if _, err := signature.VerifyAuthenticity(info, n.store); err != nil {
		return nil, none, errors.New("its certificates are not of the trust store")
	}
	leaf := info.CertificateChain[0]
	if !n.rule.anyone && !slices.ContainsFunc(n.rule.identities, func(id distinguishedName) bool { return id.matches(leaf) }) {
		return nil, none, fmt.Errorf("it is by %.200q, whom nobody asked for", leaf.Subject.String())
	}
	if expiry := info.SignedAttributes.Expiry; !expiry.IsZero() && !n.now.Before(expiry) {
		return nil, none, fmt.Errorf("it expired at %s", expiry.UTC().Format(time.RFC3339))
	}
	stamped, err := n.stamped(ctx, info)
	if err != nil {
		return nil, none, fmt.Errorf("timestamp: %w", err)
	}
	at := stamped
	if at.IsZero() {
		at = n.now
	}
	for _, c := range info.CertificateChain {
		if at.Before(c.NotBefore) || at.After(c.NotAfter) {
			return nil, none, fmt.Errorf("the certificate of %.200q did not hold at %s", c.Subject.String(), at.UTC().Format(time.RFC3339))
		}
	}
	return content, stamped, nil
}

// stamped verifies the timestamp over a signature. One of an authority that the
// policy does not name is worth as much as none.
func (n notary) stamped(ctx context.Context, info *signature.SignerInfo) (time.Time, error) {
	raw := info.UnsignedAttributes.TimestampSignature
	if len(raw) == 0 || len(n.stampers) == 0 {
		return time.Time{}, nil
	}
	token, err := tspclient.ParseSignedToken(raw)
	if err != nil {
		return time.Time{}, err
	}
	said, err := token.Info()
	if err != nil {
		return time.Time{}, err
	}
	options := x509.VerifyOptions{Roots: x509.NewCertPool(), CurrentTime: said.GenTime}
	for _, c := range n.stampers {
		options.Roots.AddCert(c)
	}
	token.Certificates = append(token.Certificates, n.stampers...) // authorities may leave them out
	if _, err := token.Verify(ctx, options); err != nil {
		return time.Time{}, err
	}
	stamp, err := said.Validate(info.Signature)
	if err != nil {
		return time.Time{}, err
	}
	return stamp.Value, nil
}

// notationClaim reads what was signed: the descriptor of a manifest.
func notationClaim(p signature.Payload) (Claim, error) {
	var c Claim
	if p.ContentType != PayloadNotation {
		return c, fmt.Errorf("type %.80q is not supported", p.ContentType)
	}
	doc, err := strictjson.Parse(p.Content)
	if err != nil {
		return c, err
	}
	target, err := child(doc, "targetArtifact")
	if err != nil {
		return c, err
	}
	var mediaType string
	var size int64
	var annotations map[string]any
	for _, m := range []struct {
		name string
		v    any
	}{{"digest", &c.Digest}, {"mediaType", &mediaType}, {"size", &size}, {"annotations", &annotations}} {
		if _, err := target.Take(m.name, m.v); err != nil {
			return c, err
		}
	}
	c.Annotations = texts(annotations)
	return c, errors.Join(registry.CheckDigest(c.Digest), target.Done(), doc.Done())
}

// notationClaims describes a signature without verifying it.
func (s Signature) notationClaims() ([]Claim, string, error) {
	envelope, err := signature.ParseEnvelope(s.mediaType, s.Payload)
	if err != nil {
		return nil, "", err
	}
	content, err := envelope.Content()
	if err != nil {
		return nil, "", err
	}
	hint := ""
	if chain := content.SignerInfo.CertificateChain; len(chain) > 0 {
		hint = "x509.subject: " + chain[0].Subject.String()
	}
	claim, err := notationClaim(content.Payload)
	return []Claim{claim}, hint, err
}

// notation says whether the signature is one of the Notary Project's.
func (s Signature) notation() bool { return s.Form == FormJWS || s.Form == FormCOSE }
