package trust

import (
	"context"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/image/internal/sigstore"
)

// A Found is a signature that lies beside an image, as it describes itself.
// Nothing of it has been verified: it is for people who look, never for a
// decision.
type Found struct {
	Form    Form
	Origin  Origin
	Claims  []Claim
	KeyHint string
	// Predicate is the type of what it attests; empty for a signature.
	Predicate string
	Problem   string // why it cannot be read; the rest may be empty
}

// Survey lists the signatures and attestations beside an image, in every place that the
// evaluation of a policy looks at. One that cannot be read is listed with its
// problem; a registry that cannot be asked is an error.
func Survey(ctx context.Context, s Subject, ev Evidence) ([]Found, error) {
	var all []Found
	var shelf shelves
	for at, more := 0, true; more; {
		var sigs []Signature
		var err error
		if sigs, more, err = shelf.next(ctx, ev.Signatures, s, at); err != nil {
			return nil, err
		}
		for _, sig := range sigs {
			all = append(all, sig.found())
		}
		at += len(sigs)
	}
	for _, d := range s.digests() {
		tagged, err := fetchAttestations(ctx, ev.Signatures, d)
		if err != nil {
			return nil, err
		}
		for _, sig := range tagged.sigs {
			all = append(all, sig.found())
		}
		for _, b := range tagged.bulk {
			shelf.broken = append(shelf.broken, b.size()+", which was not read")
		}
		shelf.broken = append(shelf.broken, tagged.broken...)
	}
	for _, why := range shelf.broken {
		all = append(all, Found{Origin: OriginReferrers, Problem: why})
	}
	aside, err := ev.lookaside(ctx)
	if err != nil {
		return nil, fmt.Errorf("where signatures lie: %w", err)
	}
	for _, d := range s.digests() {
		files, err := aside.fetch(ctx, s.Reference, d)
		if err != nil {
			return nil, err
		}
		for _, raw := range files {
			all = append(all, messageFound(raw))
		}
	}
	return all, nil
}

func (s Signature) found() Found {
	f := Found{Form: s.Form, Origin: s.Origin, KeyHint: s.KeyHint}
	if len(s.material.Chain) > 0 {
		if id, err := sigstore.IdentityOf(s.material.Chain[0]); err == nil {
			f.KeyHint = nameOf(id)
		}
	}
	if s.Form == FormDSSE {
		if st, err := s.statement(); err == nil && st.predicateType != PredicateSign {
			f.Claims, f.Predicate = st.claims, st.predicateType
			return f
		}
	}
	var err error
	if s.notation() {
		f.Claims, f.KeyHint, err = s.notationClaims()
	} else {
		f.Claims, err = s.claims()
	}
	if err != nil {
		f.Problem, f.Claims = err.Error(), nil
	}
	return f
}

func messageFound(raw []byte) Found {
	payload, sig, err := splitMessage(raw)
	if err != nil {
		return Found{Form: FormOpenPGP, Origin: OriginLookaside, Problem: err.Error()}
	}
	f := Signature{Form: FormOpenPGP, Origin: OriginLookaside, Payload: payload}.found()
	if sig.IssuerKeyId != nil {
		f.KeyHint = fmt.Sprintf("openpgp:%016X", *sig.IssuerKeyId)
	}
	return f
}
