package trust

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
)

// A Subject is the image that is judged. The name is the one that the user
// asked for, whatever registry the bytes came from.
type Subject struct {
	Reference registry.Reference
	Root      digest.Digest // what the name pointed to: the index of a multi-platform image, else Manifest
	Manifest  digest.Digest // the platform's manifest
	Layers    []string      // media types of its layers; see [SubjectOf]
}

// digests are what a signature can be about.
func (s Subject) digests() []digest.Digest {
	return slices.Compact([]digest.Digest{s.Root, s.Manifest})
}

// check holds the subject against itself: only what is named by digest can be
// judged, and a digest that the user asked for is the one that must be judged.
func (s Subject) check() error {
	for _, d := range []digest.Digest{s.Root, s.Manifest} {
		if err := registry.CheckDigest(d); err != nil {
			return err
		}
	}
	if d := s.Reference.Digest; d != "" && d != s.Root {
		return fmt.Errorf("%s was asked for and %s resolved", d, s.Root)
	}
	return nil
}

// Evidence is where the evaluation finds signatures and keys.
type Evidence struct {
	Signatures registry.Source // the repository that the image lies in
	// Keys resolves the keyPath of a requirement to PEM bytes.
	Keys func(ctx context.Context, keyPath string) ([]byte, error)
	// Lookaside says where signatures of signedBy lie. It is asked only when a
	// requirement needs it; nil: nowhere.
	Lookaside func(ctx context.Context) (*Lookaside, error)
	Time      func() time.Time // when keys and certificates must hold; nil: now
}

// Evaluate judges an image. A nil policy refuses with image_policy_missing; an
// image that the policy does not accept is refused with
// image_signature_rejected over a [*Rejection]; signatures that cannot be
// fetched refuse with image_unavailable. A fault of Evidence.Keys keeps its own
// code.
func (p *Policy) Evaluate(ctx context.Context, s Subject, ev Evidence) (Verdict, error) {
	if p == nil {
		return Verdict{}, fault.Newf(fault.ImagePolicyMissing, "no image policy is in force for %s", s.Reference)
	}
	scope, reqs := p.choose(s.Reference)
	e := evaluation{subject: s, evidence: ev, scope: scope}
	if err := s.check(); err != nil {
		return Verdict{}, e.reject(err.Error(), err)
	}
	v := Verdict{Reference: s.Reference.String(), Digest: s.Manifest.String(), Scope: scope, Waived: true}
	for i, r := range reqs {
		accepted, err := e.judge(ctx, i, r)
		if err != nil {
			return Verdict{}, err
		}
		v.add(i, r, accepted)
	}
	v.Accepted = len(v.Requirements) > 0
	if !v.Accepted { // ParsePolicy allows no empty list
		return Verdict{}, e.reject("the scope has no requirements", nil)
	}
	return v, nil
}

func (ev Evidence) lookaside(ctx context.Context) (*Lookaside, error) {
	if ev.Lookaside == nil {
		return nil, nil
	}
	return ev.Lookaside(ctx)
}

func (ev Evidence) now() time.Time {
	if ev.Time == nil {
		return time.Now()
	}
	return ev.Time()
}

type evaluation struct {
	subject  Subject
	evidence Evidence
	scope    string
	shelf    shelves
}

func (e *evaluation) rejection(reason string, cause error) *Rejection {
	return &Rejection{Reference: e.subject.Reference.String(), Digest: e.subject.Manifest.String(), Scope: e.scope, Reason: reason, cause: cause}
}

func (e *evaluation) reject(reason string, cause error) error {
	return fault.New(fault.ImageUnsigned, e.rejection(reason, cause))
}

// judge returns the signatures that satisfied the requirement with the given
// index; none if it asks for none.
func (e *evaluation) judge(ctx context.Context, i int, r requirement) ([]Accepted, error) {
	switch r.kind {
	case typeAccept:
		return nil, nil
	case typeEncrypted:
		return nil, e.encrypted()
	case typeSigstore:
		return e.sigstore(ctx, i, r)
	case typeNotation:
		return e.notation(ctx, i, r)
	case typeAttested:
		return e.attestation(ctx, i, r)
	case typeSignedBy:
		return e.signedBy(ctx, i, r)
	case typeReject:
		return nil, e.reject("the policy rejects this scope", nil)
	}
	return nil, e.reject(fmt.Sprintf("requirement type %q is not built", r.kind), nil)
}

// sigstore looks through the signatures, near ones first, until enough keys
// have signed.
func (e *evaluation) sigstore(ctx context.Context, i int, r requirement) ([]Accepted, error) {
	v, err := e.voucher(ctx, r)
	if err != nil {
		return nil, err
	}
	t := tally{index: i, rule: r, subject: e.subject, wanted: v.wanted()}
	for at := 0; ; {
		sigs, more, err := e.shelf.next(ctx, e.evidence.Signatures, e.subject, at)
		if err != nil {
			return nil, fetchFault(err)
		}
		for _, sig := range sigs {
			if sig.notation() {
				continue
			}
			who, reason := v.judge(ctx, sig)
			t.count(who, reason, sig)
		}
		if at += len(sigs); t.enough() || !more {
			break
		}
	}
	t.seen = append(t.seen, e.shelf.broken...)
	return e.conclude(&t)
}

// conclude turns a tally into the signatures that satisfied it, or a refusal.
func (e *evaluation) conclude(t *tally) ([]Accepted, error) {
	if t.enough() {
		return t.accepted, nil
	}
	rej := e.rejection(cmp.Or(t.missing, "no signature satisfies it"), nil)
	if len(t.accepted) > 0 {
		rej.Reason = fmt.Sprintf("%d of the %d keys that it needs have signed", len(t.accepted), t.rule.threshold)
		for _, a := range t.accepted {
			rej.Signed = append(rej.Signed, a.Signer)
		}
	}
	rej.Wanted, rej.Seen = t.wanted, "no signature"
	if len(t.seen) > 0 {
		rej.Seen = strings.Join(t.seen, "; ")
	}
	return nil, fault.New(fault.ImageUnsigned, rej)
}

// keys resolves the keys of r, all of them: a key that is away may be the one
// that was meant.
func (e *evaluation) keys(ctx context.Context, r requirement) ([]publicKey, error) {
	var keys []publicKey
	for _, src := range r.keys {
		raw, err := e.key(ctx, src)
		if err != nil {
			return nil, err
		}
		k, err := parseKey(raw)
		if err != nil {
			return nil, e.reject("the key "+src.path+" cannot be read", err)
		}
		if slices.ContainsFunc(keys, func(other publicKey) bool { return other.fingerprint == k.fingerprint }) {
			return nil, e.reject("the key "+k.fingerprint+" is named twice", nil)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

func (e *evaluation) key(ctx context.Context, src keySource) ([]byte, error) {
	if src.path == "" {
		return src.data, nil
	}
	if e.evidence.Keys == nil {
		return nil, e.reject("nothing can resolve the key "+src.path, nil)
	}
	raw, err := e.evidence.Keys(ctx, src.path)
	if err != nil {
		return nil, e.reject("the key "+src.path+" cannot be had", err)
	}
	return raw, nil
}

func fetchFault(err error) error {
	if errors.Is(err, registry.ErrMalformed) {
		return fault.New(fault.ImageMalformed, err)
	}
	if _, ok := errors.AsType[*registry.DigestError](err); ok {
		return fault.New(fault.ImageMalformed, err)
	}
	return fault.New(fault.ImageUnavailable, err)
}
