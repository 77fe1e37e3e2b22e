package trust

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vouchsafe-cc/vouchsafe/image/trust/outline"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

const maxPolicy = outline.MaxSize // bytes

// transportDocker is the only transport that a guest pulls over.
const transportDocker = "docker"

// transportNames are those of containers-transports(5), and atomic, which
// containers-policy.json(5) knows besides. The rules of a misspelt one would
// never apply.
var transportNames = []string{
	"atomic", "containers-storage", "dir", transportDocker, "docker-archive", "docker-daemon", "oci", "oci-archive", "ostree", "sif", "tarball",
}

// A Policy says, per scope of image names, what must hold. It is immutable.
type Policy struct {
	fallback []requirement
	docker   map[string][]requirement
}

// ParsePolicy reads a policy.json. Anything that it does not understand makes
// the whole policy invalid: a half-understood policy would let through what
// its author meant to refuse.
func ParsePolicy(raw []byte) (*Policy, error) {
	p, err := parsePolicy(raw)
	if err != nil {
		return nil, fmt.Errorf("image policy: %w", err)
	}
	return p, nil
}

func parsePolicy(raw []byte) (*Policy, error) {
	if len(raw) > maxPolicy {
		return nil, fmt.Errorf("%d bytes, at most %d are read", len(raw), maxPolicy)
	}
	doc, err := strictjson.Parse(raw)
	if err != nil {
		return nil, err
	}
	p := &Policy{}
	if p.fallback, err = requirements(doc, "default"); err != nil {
		return nil, err
	}
	transports, err := doc.Object("transports")
	if err != nil {
		return nil, err
	}
	if transports == nil {
		return nil, errors.New("transports is missing")
	}
	for _, name := range transports.Names() {
		if !slices.Contains(transportNames, name) {
			return nil, fmt.Errorf("transport %.40q does not exist", name)
		}
		scopes, err := parseScopes(transports, name)
		if err != nil {
			return nil, fmt.Errorf("transport %.40q: %w", name, err)
		}
		if name == transportDocker {
			p.docker = scopes
		}
	}
	return p, doc.Done()
}

func parseScopes(transports *strictjson.Object, name string) (map[string][]requirement, error) {
	doc, err := transports.Object(name)
	if err != nil {
		return nil, err
	}
	scopes := map[string][]requirement{}
	for _, scope := range doc.Names() {
		if name == transportDocker {
			if err := checkScope(scope); err != nil {
				return nil, err
			}
		}
		reqs, err := requirements(doc, scope)
		if err != nil {
			return nil, err
		}
		scopes[scope] = reqs
	}
	return scopes, nil
}

// requirements takes the list under the given name.
func requirements(doc *strictjson.Object, name string) ([]requirement, error) {
	var items []rawObject
	ok, err := doc.Take(name, &items)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fmt.Errorf("%q is missing", name)
	}
	if len(items) == 0 {
		return nil, fmt.Errorf("the requirements of %.80q are empty: write %s to accept everything", name, typeAccept)
	}
	var reqs []requirement
	for i, item := range items {
		r, err := parseRequirement(item)
		if err != nil {
			return nil, fmt.Errorf("requirement %d of %.80q: %w", i, name, err)
		}
		reqs = append(reqs, r)
	}
	if !slices.ContainsFunc(reqs, func(r requirement) bool { return r.kind != typeEncrypted }) {
		return nil, fmt.Errorf("the requirements of %.80q ask for no signature: write %s beside %s to accept everything", name, typeAccept, typeEncrypted)
	}
	return reqs, nil
}

// rawObject keeps the bytes of a list element for strictjson.
type rawObject []byte

func (r *rawObject) UnmarshalJSON(b []byte) error {
	*r = append(rawObject(nil), b...)
	return nil
}
