package policy

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/kbs/policylang"
)

// pins are the images that may be pulled, from the policy's image_digests:
//
//	image_digests := {"registry/app:1": ["sha256:..."]} # for each reference
//	image_digests := ["sha256:..."]                     # whatever the reference
//
// A digest is that of the platform's manifest, or of the index that a reference
// names by digest. Rego decides by what the host says it wants pulled; this
// decides by what was pulled. Without image_digests nothing may be.
type pins map[string][]string

// anyReference is the key of digests that do not depend on the reference.
const anyReference = ""

const pinsRule = "image_digests"

// PinsRule names the digests in full.
const PinsRule = "data." + packageName + "." + pinsRule

var digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$|^sha512:[0-9a-f]{128}$`)

// pinned reads image_digests, which must be a constant.
func (p *program) pinned(ctx context.Context) (pins, error) {
	r, err := p.rule(ctx, pinsRule)
	if err != nil || r == nil {
		return nil, err
	}
	if r.constant == nil {
		return nil, policylang.Refuse("%s must not depend on anything", pinsRule)
	}
	raw, _, err := p.value(ctx, r, nil, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", pinsRule, err)
	}
	byRef, ok := raw.(map[string]any)
	if !ok {
		byRef = map[string]any{anyReference: raw}
	}
	out := pins{}
	for ref, list := range byRef {
		if out[ref], err = digests(list); err != nil {
			return nil, policylang.Refuse("%s: %q: %v", pinsRule, ref, err)
		}
	}
	return out, nil
}

func digests(raw any) ([]string, error) {
	if one, ok := raw.(string); ok {
		raw = []any{one}
	}
	list, ok := raw.([]any)
	if !ok {
		return nil, errors.New("want a list of digests")
	}
	var out []string
	for _, item := range list {
		d, _ := item.(string)
		if !digestForm.MatchString(d) {
			return nil, fmt.Errorf("%q is no digest", d)
		}
		out = append(out, d)
	}
	return out, nil
}

// check compares what was pulled with what may be. A reference with a digest was
// resolved to what has that digest.
func (p pins) check(ref, digest string) error {
	allowed := slices.Concat(p[ref], p[anyReference])
	if slices.Contains(allowed, digest) {
		return nil
	}
	if _, named, ok := strings.Cut(ref, "@"); ok && slices.Contains(allowed, named) {
		return nil
	}
	return &ImageError{ref, digest, allowed}
}

// An ImageError is an image that the policy does not name.
type ImageError struct {
	Reference, Digest string
	Wanted            []string // digests that the policy has for the reference
}

// Error says which image it was, and which it should have been.
func (e *ImageError) Error() string {
	if len(e.Wanted) == 0 {
		return fmt.Sprintf("image %s is %s, and %s names no digest for this reference", e.Reference, e.Digest, PinsRule)
	}
	return fmt.Sprintf("image %s is %s, want %s", e.Reference, e.Digest, strings.Join(e.Wanted, " or "))
}
