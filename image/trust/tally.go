package trust

import (
	"fmt"
	"slices"

	"github.com/vouchsafe-cc/vouchsafe/image/internal/sigstore"
)

// A tally counts the keys whose signatures satisfy one requirement. A key
// counts once, however often it signed.
type tally struct {
	index    int
	rule     requirement
	subject  Subject
	wanted   []string // fingerprints
	accepted []Accepted
	seen     []string // why other signatures did not count
	missing  string   // the reason where none counted; empty: there is no better one
}

func (t *tally) enough() bool { return len(t.accepted) >= t.rule.threshold }

func (t *tally) has(signer string) bool {
	return slices.ContainsFunc(t.accepted, func(a Accepted) bool { return a.Signer == signer })
}

// count judges what a signature says, unless a reason stands against its
// signer. It counts only if the same payload verifies, names this image and
// bears the right identity; other signatures beside it do no harm.
func (t *tally) count(who signer, reason string, sig Signature) {
	if reason != "" {
		t.seen = append(t.seen, reason)
		return
	}
	claims, err := sig.claims()
	if err != nil {
		t.seen = append(t.seen, fmt.Sprintf("a signature by the wanted key with a bad payload (%v)", err))
		return
	}
	for _, c := range claims {
		if reason := t.unfit(c); reason != "" {
			t.seen = append(t.seen, reason)
			continue
		}
		t.accept(who, sig, c, c.versions(t.rule.atLeast))
		return
	}
}

// accept counts a signature; seen is what stood where the requirement has
// conditions.
func (t *tally) accept(who signer, sig Signature, c Claim, seen map[string]string) {
	if t.has(who.name) {
		return
	}
	a := Accepted{
		Requirement: t.index, Signer: who.name, Form: sig.Form, Origin: sig.Origin, Digest: c.Digest.String(),
		Identity: c.Reference, Rule: t.rule.identity.kind, Annotations: t.rule.annotations,
		Issuer: who.issuer, Subject: who.subject, Seen: seen, unlogged: who.unlogged,
	}
	if t.rule.attested != nil {
		a.Predicate = t.rule.attested.predicateType
	}
	if !who.at.IsZero() {
		at := who.at.UTC()
		a.SignedBy = &at
	}
	if who.log != nil {
		a.Log = fmt.Sprintf("%x/%d", who.log, who.index)
	}
	t.accepted = append(t.accepted, a)
}

// unfit says why a claim is not what the requirement asks; empty if it is.
func (t *tally) unfit(c Claim) string {
	rule := t.rule.identity
	switch {
	case c.Digest != t.subject.Root && c.Digest != t.subject.Manifest:
		return fmt.Sprintf("a signature by the wanted key for another image, %s", c.Digest)
	case c.Reference == "" && !rule.matches(t.subject.Reference, ""):
		return fmt.Sprintf("a signature by the wanted key without a name, where %s asks for one", rule.kind)
	case !rule.matches(t.subject.Reference, c.Reference):
		return fmt.Sprintf("a signature by the wanted key for the name %.200q, which is not what %s asks", c.Reference, rule.kind)
	case !c.carries(t.rule.annotations):
		return "a signature by the wanted key without the annotations that are asked for"
	}
	for name, floor := range t.rule.atLeast {
		if !floor.reachedBy(c.Annotations[name]) {
			return fmt.Sprintf("a signature by the wanted key with %.80q as %.80q, which is below what is asked for", c.Annotations[name], name)
		}
	}
	return ""
}

// stranger describes a signature that none of the keys made.
func stranger(sig Signature) string {
	by := "an unnamed key"
	if chain := sig.material.Chain; len(chain) > 0 {
		by = "a certificate without an identity"
		if id, err := sigstore.IdentityOf(chain[0]); err == nil {
			by = fmt.Sprintf("a certificate that names %.200q", nameOf(id))
		}
	} else if sig.KeyHint != "" {
		by = fmt.Sprintf("a key that calls itself %.80q", sig.KeyHint)
	}
	if sig.Form == FormDSSE {
		if st, err := sig.statement(); err == nil && st.predicateType != PredicateSign {
			return fmt.Sprintf("an attestation %.120q of %s by %s", st.predicateType, st.claims[0].Digest, by)
		}
	}
	claims, err := sig.claims()
	if err != nil {
		return "a signature by another key, with an unreadable payload"
	}
	return fmt.Sprintf("a signature for %s as %.200q by %s", claims[0].Digest, claims[0].Reference, by)
}
