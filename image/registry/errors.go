package registry

import (
	"errors"
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
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

// A PlainHTTPError says that a request would have gone out without TLS to a host for
// which that is not allowed by name.
type PlainHTTPError struct{ Host string }

func (e *PlainHTTPError) Error() string { return "plain HTTP to " + e.Host + " is not allowed" }

// An AnswerError says that a registry, or a token server, answered with a status that
// is an error.
type AnswerError struct {
	Host   string // that answered
	Status int    // of HTTP
	err    error
}

const maxAnswer = 400 // bytes of what is told of an answer

// Error keeps to one line: what stands in front of a registry may answer with a page.
func (e *AnswerError) Error() string {
	if e.err == nil { // not of this package's making
		return fmt.Sprintf("%s answered with status %d", e.Host, e.Status)
	}
	text := strings.Join(strings.Fields(e.err.Error()), " ")
	if len(text) > maxAnswer {
		text = strings.ToValidUTF8(text[:maxAnswer], "") + "…"
	}
	return text
}

// Unwrap returns the library's error, with all that came.
func (e *AnswerError) Unwrap() error { return e.err }

// answered marks errors that are answers.
func answered(err error) error {
	te, ok := errors.AsType[*transport.Error](err)
	if !ok {
		return err
	}
	a := &AnswerError{Status: te.StatusCode, err: err}
	if te.Request != nil {
		a.Host = te.Request.URL.Host
	}
	return a
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrMalformed, fmt.Errorf(format, args...))
}
