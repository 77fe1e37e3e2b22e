package trust

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/image/internal/jsonstream"
	"github.com/vouchsafe-cc/vouchsafe/image/trust/outline"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// typeAttested is ours: somebody must have attested something of the image,
// for example how it was built or what it consists of.
const typeAttested = outline.Attested

// An attestation is what a requirement asks for.
type attestation struct {
	predicateType string
	where         []condition
}

// parseAttested takes the members of the requirement. A subject's name is not
// judged, so that there is no signedIdentity: an attestation is about a digest.
func (r *requirement) parseAttested(doc *strictjson.Object) error {
	r.attested = new(attestation)
	if _, err := doc.Take("predicateType", &r.attested.predicateType); err != nil {
		return err
	}
	switch r.attested.predicateType {
	case "":
		return errors.New("predicateType is missing")
	case PredicateSign:
		return fmt.Errorf("a signature is no attestation: %s asks for it", typeSigstore)
	}
	var err error
	if r.attested.where, err = parseWhere(doc); err != nil {
		return err
	}
	return r.parseSigners(doc)
}

// attestation judges the attestations beside the image.
func (e *evaluation) attestation(ctx context.Context, i int, r requirement) ([]Accepted, error) {
	v, err := e.voucher(ctx, r)
	if err != nil {
		return nil, err
	}
	t := tally{index: i, rule: r, subject: e.subject, wanted: v.wanted()}
	found, err := e.shelf.attestations(ctx, e.evidence.Signatures, e.subject)
	if err != nil {
		return nil, fetchFault(err)
	}
	for _, sig := range found.sigs {
		if sig.Form != FormDSSE {
			continue
		}
		who, reason := v.judge(ctx, sig)
		t.attest(who, reason, sig)
	}
	t.seen = append(t.seen, found.broken...)
	for _, b := range found.bulk {
		if t.enough() {
			break
		}
		if err := e.bulk(ctx, &t, v, b); err != nil {
			return nil, fetchFault(err)
		}
	}
	if found.huge > 0 {
		t.missing = fmt.Sprintf("an attestation of %d bytes is too large to be read, at most %d are, and no other satisfies it", found.huge, maxBulk)
	}
	return e.conclude(&t)
}

// attest judges what an attestation says, unless a reason stands against its
// signer.
func (t *tally) attest(who signer, reason string, sig Signature) {
	st, err := sig.statement()
	switch {
	case err != nil:
		t.seen = append(t.seen, err.Error())
		return
	case st.predicateType != t.rule.attested.predicateType:
		return // other attestations are not worth a word
	case reason != "":
		t.seen = append(t.seen, reason)
		return
	}
	claim := t.about(st)
	if claim == nil {
		t.seen = append(t.seen, "an attestation of another image, "+st.claims[0].Digest.String())
		return
	}
	seen, reason := sig.weighed(*t.rule.attested, st)
	if reason != "" {
		t.seen = append(t.seen, reason)
		return
	}
	t.accept(who, sig, *claim, seen)
}

// about returns the claim of a statement that is about this image; nil if there is
// none.
func (t *tally) about(st statement) *Claim {
	for _, c := range st.claims {
		if c.Digest == t.subject.Root || c.Digest == t.subject.Manifest {
			c.Reference, c.Annotations = "", nil // were not judged
			return &c
		}
	}
	return nil
}

// weighed says what stood where there are conditions, or which one does not hold.
func (s Signature) weighed(a attestation, st statement) (seen map[string]string, reason string) {
	if s.stream != nil {
		return s.stream.seen, s.stream.reason
	}
	if len(st.predicate) == 0 {
		return nil, a.unmet()
	}
	seen, reason, err := a.look(jsonstream.New(bytes.NewReader(st.predicate)))
	if err != nil {
		return nil, fmt.Sprintf("an attestation with a predicate that cannot be read (%v)", err)
	}
	return seen, reason
}

// unmet is the reason against a statement without a predicate, if there is one.
func (a attestation) unmet() string {
	if len(a.where) == 0 {
		return ""
	}
	return "an attestation without a predicate"
}

// look reads a predicate, and says what stood where there are conditions, or which
// one does not hold.
func (a attestation) look(predicate *jsonstream.Scanner) (seen map[string]string, reason string, err error) {
	if len(a.where) == 0 {
		return nil, "", predicate.Skip()
	}
	all, err := look(predicate, a.where)
	if err != nil {
		return nil, "", err
	}
	seen = map[string]string{}
	for _, f := range all {
		if f.outcome != held {
			return nil, fmt.Sprintf("an attestation by the wanted signer with %.200q at %s", f.seen, f.c.at), nil
		}
		seen[f.c.at] = f.seen
	}
	return seen, "", nil
}
