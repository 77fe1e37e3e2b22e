package trust

import (
	"context"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/vouchsafe-cc/vouchsafe/image/internal/sigstore"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
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
		t.accept(who, sig, c)
		return
	}
}

func (t *tally) accept(who signer, sig Signature, c Claim) {
	if t.has(who.name) {
		return
	}
	a := Accepted{
		Requirement: t.index, Signer: who.name, Form: sig.Form, Origin: sig.Origin, Digest: c.Digest.String(),
		Identity: c.Reference, Rule: t.rule.identity.kind, Annotations: t.rule.annotations,
		Issuer: who.issuer, Subject: who.subject, unlogged: who.unlogged,
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
	return ""
}

// stranger describes a signature that none of the keys made.
func stranger(sig Signature) string {
	claims, err := sig.claims()
	if err != nil {
		return "a signature by another key, with an unreadable payload"
	}
	by := "an unnamed key"
	if chain := sig.material.Chain; len(chain) > 0 {
		by = "a certificate without an identity"
		if id, err := sigstore.IdentityOf(chain[0]); err == nil {
			by = fmt.Sprintf("a certificate that names %.200q", nameOf(id))
		}
	} else if sig.KeyHint != "" {
		by = fmt.Sprintf("a key that calls itself %.80q", sig.KeyHint)
	}
	return fmt.Sprintf("a signature for %s as %.200q by %s", claims[0].Digest, claims[0].Reference, by)
}

// shelves are the places beside an image where signatures may lie. Each is
// looked at once, and only if those before it did not suffice.
type shelves struct {
	opened int
	sigs   []Signature
	broken []string
}

// next returns the signatures from index at on. If there are none yet it opens
// the next shelf; more is false once all have been read.
func (s *shelves) next(ctx context.Context, src registry.Source, of Subject, at int) (sigs []Signature, more bool, err error) {
	digests := []digest.Digest{of.Root, of.Manifest}
	digests = slices.Compact(digests)
	for at >= len(s.sigs) && s.opened < 2*len(digests) {
		d := digests[s.opened%len(digests)]
		var found []Signature
		var broken []string
		if s.opened < len(digests) {
			found, err = FetchSignatures(ctx, src, d)
		} else {
			found, broken, err = FetchReferrers(ctx, src, d)
		}
		if err != nil {
			return nil, false, err
		}
		s.opened++
		s.sigs, s.broken = append(s.sigs, found...), append(s.broken, broken...)
	}
	return s.sigs[at:], s.opened < 2*len(digests), nil
}
