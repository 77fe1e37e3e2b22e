// Package resource keeps the secrets that the broker releases.
//
// The built-in backend seals each value under a data key of its own, and the
// data key under the master key. Both seals cover the path, the version and
// the description, so that a record that was moved, or brought back from an
// older version, does not open.
package resource

import (
	"context"
	"errors"
	"regexp"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// ErrPath says that a resource path is not repo/type/tag of legal segments.
var ErrPath = errors.New("resource: path must be three segments of [A-Za-z0-9_-][A-Za-z0-9_.-]*")

// Path names a resource: repository, type and tag (kbs-protocol 8.1).
type Path struct{ Repo, Type, Tag string }

var segment = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}$`)

// ParsePath reads "repo/type/tag".
func ParsePath(s string) (Path, error) {
	parts := strings.Split(s, "/")
	if len(parts) != 3 {
		return Path{}, ErrPath
	}
	for _, p := range parts {
		if !segment.MatchString(p) {
			return Path{}, ErrPath
		}
	}
	return Path{parts[0], parts[1], parts[2]}, nil
}

// String returns "repo/type/tag".
func (p Path) String() string { return p.Repo + "/" + p.Type + "/" + p.Tag }

// Backend stores values. The built-in one keeps them in the broker's store
// under envelope encryption.
type Backend interface {
	// Get returns store.ErrNotFound for an absent path.
	Get(ctx context.Context, p Path) (secret.Bytes, error)
	// Put stores a new version and returns its description.
	Put(ctx context.Context, p Path, value secret.Bytes, author string) (api.ResourceInfo, error)
	Delete(ctx context.Context, p Path) error
	// List describes resources whose path starts with prefix.
	List(ctx context.Context, prefix string) ([]api.ResourceInfo, error)
}

// Transactional is what a Backend may also be, if it keeps its values in the
// broker's store: a change can then be made durable together with its audit
// entry.
type Transactional interface {
	PutTx(tx store.Tx, p Path, value secret.Bytes, author string) (api.ResourceInfo, error)
	DeleteTx(tx store.Tx, p Path) error
}
