package trust

import (
	"fmt"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/image/crypt"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/image/trust/outline"
)

// typeEncrypted is ours: every layer of the image is encrypted. A registry, or who
// may write to it, then cannot offer the same image in the clear, nor one with a
// layer that nobody needed a key for. It says nothing about who made the image.
const typeEncrypted = outline.Encrypted

// SubjectOf describes what a reference was resolved to.
func SubjectOf(ref registry.Reference, r *registry.Resolved) Subject {
	s := Subject{Reference: ref, Root: r.Root.Digest, Manifest: r.Manifest.Digest}
	for _, l := range r.Image.Layers {
		s.Layers = append(s.Layers, l.MediaType)
	}
	return s
}

// encrypted refuses an image with a layer in the clear, and one of whose layers
// nothing is known.
func (e *evaluation) encrypted() error {
	if len(e.subject.Layers) == 0 {
		return e.reject("the policy demands encryption, and no layers are known", nil)
	}
	for i, mediaType := range e.subject.Layers {
		if !strings.HasSuffix(mediaType, crypt.MediaSuffix) {
			return e.reject(fmt.Sprintf("the policy demands encryption, and layer %d is in the clear", i), nil)
		}
	}
	return nil
}
