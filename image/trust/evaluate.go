package trust

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

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
}

// A Verdict says why an image may run.
type Verdict struct {
	Reference    string   `json:"reference"`
	Digest       string   `json:"digest"`       // of the platform's manifest
	Scope        string   `json:"scope"`        // the place in the policy that spoke
	Requirements []string `json:"requirements"` // their types; all of them held
	Signers      []string `json:"signers,omitempty"`
	Accepted     bool     `json:"accepted"`
	Waived       bool     `json:"waived"` // accepted without any signature having been required
}

// A Rejection is the private cause of a refusal: what the policy wanted and
// what was there instead.
type Rejection struct {
	Reference string
	Digest    string
	Scope     string
	Reason    string
	Seen      string   // the signatures that are there
	Wanted    []string // fingerprints of the keys of which each must have signed
	cause     error
}

func (r *Rejection) Error() string {
	s := fmt.Sprintf("%s (%s) refused by %s: %s", r.Reference, r.Digest, r.Scope, r.Reason)
	if len(r.Wanted) > 0 {
		s += fmt.Sprintf("; wanted key %s; seen: %s", strings.Join(r.Wanted, ", "), r.Seen)
	}
	return s
}

// Unwrap returns what went wrong beneath, for example a key that could not be
// fetched.
func (r *Rejection) Unwrap() error { return r.cause }

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
	for _, r := range reqs {
		signer, err := e.judge(ctx, r)
		if err != nil {
			return Verdict{}, err
		}
		v.Requirements = append(v.Requirements, r.kind)
		if signer != "" {
			v.Waived = false
			v.Signers = append(v.Signers, signer)
		}
	}
	v.Accepted = len(v.Requirements) > 0
	if !v.Accepted { // ParsePolicy allows no empty list
		return Verdict{}, e.reject("the scope has no requirements", nil)
	}
	return v, nil
}

type evaluation struct {
	subject  Subject
	evidence Evidence
	scope    string
	fetched  bool
	sigs     []Signature
}

func (e *evaluation) rejection(reason string, cause error) *Rejection {
	return &Rejection{Reference: e.subject.Reference.String(), Digest: e.subject.Manifest.String(), Scope: e.scope, Reason: reason, cause: cause}
}

func (e *evaluation) reject(reason string, cause error) error {
	return fault.New(fault.ImageUnsigned, e.rejection(reason, cause))
}

// judge returns the fingerprint of the key whose signature satisfied r; empty
// if r asks for none.
func (e *evaluation) judge(ctx context.Context, r requirement) (signer string, err error) {
	switch r.kind {
	case typeAccept:
		return "", nil
	case typeSigstore:
		return e.sigstore(ctx, r)
	case typeReject:
		return "", e.reject("the policy rejects this scope", nil)
	}
	return "", e.reject(fmt.Sprintf("requirement type %q is not built", r.kind), nil)
}

func (e *evaluation) sigstore(ctx context.Context, r requirement) (string, error) {
	key, err := e.key(ctx, r)
	if err != nil {
		return "", err
	}
	if err := e.fetch(ctx); err != nil {
		return "", err
	}
	var seen []string
	for _, sig := range e.sigs {
		reason := e.check(r, key, sig)
		if reason == "" {
			return key.fingerprint, nil
		}
		seen = append(seen, reason)
	}
	rej := e.rejection("no signature satisfies it", nil)
	rej.Wanted, rej.Seen = []string{key.fingerprint}, "no signature"
	if len(seen) > 0 {
		rej.Seen = strings.Join(seen, "; ")
	}
	return "", fault.New(fault.ImageUnsigned, rej)
}

// check returns why sig does not satisfy r, or "" if it does. A signature
// counts only if the same payload verifies, names this image and bears the
// right identity; other signatures beside it do no harm.
func (e *evaluation) check(r requirement, key publicKey, sig Signature) string {
	if !key.verify(sig.Payload, sig.Sig) {
		claim, err := ParsePayload(sig.Payload)
		if err != nil {
			return "a signature by another key, with an unreadable payload"
		}
		by := "an unnamed key"
		if sig.KeyHint != "" {
			by = fmt.Sprintf("a key that calls itself %.80q", sig.KeyHint)
		}
		return fmt.Sprintf("a signature for %s as %.200q by %s", claim.Digest, claim.Reference, by)
	}
	claim, err := ParsePayload(sig.Payload)
	switch {
	case err != nil:
		return fmt.Sprintf("a signature by the wanted key with a bad payload (%v)", err)
	case claim.Digest != e.subject.Root && claim.Digest != e.subject.Manifest:
		return fmt.Sprintf("a signature by the wanted key for another image, %s", claim.Digest)
	case !r.identity.matches(e.subject.Reference, claim.Reference):
		return fmt.Sprintf("a signature by the wanted key for the name %.200q, which is not what %s asks", claim.Reference, r.identity.kind)
	}
	return ""
}

func (e *evaluation) key(ctx context.Context, r requirement) (publicKey, error) {
	raw := r.keyData
	if r.keyPath != "" {
		if e.evidence.Keys == nil {
			return publicKey{}, e.reject("nothing can resolve the key "+r.keyPath, nil)
		}
		var err error
		if raw, err = e.evidence.Keys(ctx, r.keyPath); err != nil {
			return publicKey{}, e.reject("the key "+r.keyPath+" cannot be had", err)
		}
	}
	key, err := parseKey(raw)
	if err != nil {
		return publicKey{}, e.reject("the key "+r.keyPath+" cannot be read", err)
	}
	return key, nil
}

// fetch reads the signatures of the manifest, and of the index above it, once.
func (e *evaluation) fetch(ctx context.Context) error {
	if e.fetched {
		return nil
	}
	digests := []digest.Digest{e.subject.Root, e.subject.Manifest}
	for _, d := range slices.Compact(digests) {
		sigs, err := FetchSignatures(ctx, e.evidence.Signatures, d)
		if err != nil {
			return fetchFault(err)
		}
		e.sigs = append(e.sigs, sigs...)
	}
	e.fetched = true
	return nil
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
