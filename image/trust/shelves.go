package trust

import (
	"context"

	"github.com/opencontainers/go-digest"

	"github.com/vouchsafe-cc/vouchsafe/image/registry"
)

// shelves are the places beside an image where signatures may lie. Each is
// looked at once, and only if those before it did not suffice.
type shelves struct {
	opened   int
	sigs     []Signature
	broken   []string
	refer    map[digest.Digest]*referrers
	attested *referrers
}

// referrers reads what refers to a manifest, once.
func (s *shelves) referrers(ctx context.Context, src registry.Source, d digest.Digest) (*referrers, error) {
	if r, ok := s.refer[d]; ok {
		return r, nil
	}
	r, err := fetchReferrers(ctx, src, d)
	if err != nil {
		return nil, err
	}
	if s.refer == nil {
		s.refer = map[digest.Digest]*referrers{}
	}
	s.refer[d] = &r
	return &r, nil
}

// attestations reads the envelopes under cosign's tag and among the referrers.
func (s *shelves) attestations(ctx context.Context, src registry.Source, of Subject) (*referrers, error) {
	if s.attested != nil {
		return s.attested, nil
	}
	all := &referrers{}
	for _, d := range of.digests() {
		tagged, err := fetchAttestations(ctx, src, d)
		if err != nil {
			return nil, err
		}
		r, err := s.referrers(ctx, src, d)
		if err != nil {
			return nil, err
		}
		for _, more := range []*referrers{&tagged, r} {
			all.sigs, all.bulk = append(all.sigs, more.sigs...), append(all.bulk, more.bulk...)
			all.broken, all.huge = append(all.broken, more.broken...), max(all.huge, more.huge)
		}
	}
	s.attested = all
	return all, nil
}

// next returns the signatures from index at on. If there are none yet it opens
// the next shelf; more is false once all have been read.
func (s *shelves) next(ctx context.Context, src registry.Source, of Subject, at int) (sigs []Signature, more bool, err error) {
	digests := of.digests()
	for at >= len(s.sigs) && s.opened < 2*len(digests) {
		d := digests[s.opened%len(digests)]
		found := &referrers{}
		if s.opened < len(digests) {
			found.sigs, err = FetchSignatures(ctx, src, d)
		} else {
			found, err = s.referrers(ctx, src, d)
		}
		if err != nil {
			return nil, false, err
		}
		s.opened++
		s.sigs, s.broken = append(s.sigs, found.sigs...), append(s.broken, found.broken...)
		for _, b := range found.bulk { // no signature is as large as that
			s.broken = append(s.broken, b.size()+", which was not read")
		}
	}
	return s.sigs[at:], s.opened < 2*len(digests), nil
}
