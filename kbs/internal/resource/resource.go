// Package resource keeps the secrets that the broker releases.
//
// A back end holds values by path; [Mounts] joins several of them, each under
// a prefix of its own, and is what the server talks to. The built-in one keeps
// them in the broker's store, under envelope encryption, with their versions
// and with what is said about them; see [Builtin] for what its seals bind.
// Other back ends do less, and say so: see [Traits].
package resource

import (
	"errors"
	"strings"
)

var (
	// ErrPath says that a resource path is not repo/type/tag of legal segments.
	ErrPath = errors.New("resource: path must be three segments of [A-Za-z0-9_-][A-Za-z0-9_.-]*")
	// ErrTooLarge says that a value is longer than its back end takes.
	ErrTooLarge = errors.New("resource: value is too large")
	// ErrUnsupported says that a back end cannot do what it was asked.
	ErrUnsupported = errors.New("resource: the back end cannot do this")
	// ErrReadOnly says that a back end is mounted for reading.
	ErrReadOnly = errors.New("resource: mounted read-only")
	// ErrSealed says that a stored value does not open: it was altered, moved,
	// or brought back from another version.
	ErrSealed = errors.New("resource: the stored value does not open")
)

// MaxValue bounds one resource of any back end, in bytes.
const MaxValue = 1 << 20

// Path names a resource: repository, type and tag (kbs-protocol 8.1).
type Path struct{ Repo, Type, Tag string }

const maxSegment = 128 // bytes

// validSegment checks [A-Za-z0-9_-][A-Za-z0-9_.-]*.
func validSegment(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '-':
		case c == '.' && i > 0:
		default:
			return false
		}
	}
	return s != "" && len(s) <= maxSegment
}

// ParsePath reads "repo/type/tag".
func ParsePath(s string) (Path, error) {
	parts := strings.Split(s, "/")
	if len(parts) != 3 {
		return Path{}, ErrPath
	}
	p := Path{parts[0], parts[1], parts[2]}
	if err := p.check(); err != nil {
		return Path{}, err
	}
	return p, nil
}

// String returns "repo/type/tag".
func (p Path) String() string { return p.Repo + "/" + p.Type + "/" + p.Tag }

// check guards against a Path that ParsePath never saw.
func (p Path) check() error {
	if !validSegment(p.Repo) || !validSegment(p.Type) || !validSegment(p.Tag) {
		return ErrPath
	}
	return nil
}
