package registry

import (
	"errors"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// suspects are the endpoints that sent wrong bytes for a blob. They are not
// asked for that blob again, as long as the repository is used.
type suspects struct {
	mu     sync.Mutex
	byBlob map[digest.Digest][]*endpoint
}

// add blames those that sent a blob, in their order. If they were several, the
// last one is given the chance to send it whole: nobody knows whose bytes were
// wrong.
func (s *suspects) add(d digest.Digest, sent []*endpoint) {
	if len(sent) > 1 {
		sent = sent[:len(sent)-1]
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byBlob == nil {
		s.byBlob = map[digest.Digest][]*endpoint{}
	}
	for _, e := range sent {
		e.down.Store(true)
		s.byBlob[d] = append(s.byBlob[d], e)
	}
}

// without drops the suspects of the blob from a list.
func (s *suspects) without(d digest.Digest, from []*endpoint) []*endpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(from), func(e *endpoint) bool { return slices.Contains(s.byBlob[d], e) })
}

// Elsewhere reports whether a blob that was read to err may be right at another
// mirror: its length or its digest was wrong, and there is a place left that was
// not blamed for it. Reading it anew goes there. As each such err blames another
// place, this ends.
func Elsewhere(src Source, desc ocispec.Descriptor, err error) bool {
	repo, ok := src.(*Repository)
	if !ok {
		return false
	}
	wrong, isDigest := errors.AsType[*DigestError](err)
	size, isSize := errors.AsType[*SizeError](err)
	blamed := (isDigest && wrong.blamed) || (isSize && size.blamed)
	return blamed && len(repo.suspects.without(desc.Digest, repo.order(true))) > 0
}
