package registry

import (
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
)

// ErrNotFound says that the registry has no such manifest or blob.
var ErrNotFound = errors.New("not found in the registry")

// ErrMalformed marks answers that are not well-formed manifests, indexes or
// layouts, and images that have no form for this platform.
var ErrMalformed = errors.New("malformed image")

// A DigestError says that bytes are not those that their digest names.
type DigestError struct {
	What   string // "blob" or "manifest"
	Wanted digest.Digest
	Seen   digest.Digest
	blamed bool // on who sent them, see [Elsewhere]
}

func (e *DigestError) Error() string {
	return fmt.Sprintf("%s is %s, not %s", e.What, e.Seen, e.Wanted)
}

// A SizeError says that a blob is shorter or longer than its descriptor says.
type SizeError struct {
	Digest digest.Digest
	Wanted int64 // bytes
	Seen   int64 // bytes read; one more than Wanted when the body goes on
	blamed bool  // on who sent it, see [Elsewhere]
}

func (e *SizeError) Error() string {
	if e.Seen > e.Wanted {
		return fmt.Sprintf("blob %s is longer than its %d bytes", e.Digest, e.Wanted)
	}
	return fmt.Sprintf("blob %s ends after %d of %d bytes", e.Digest, e.Seen, e.Wanted)
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrMalformed, fmt.Errorf(format, args...))
}
