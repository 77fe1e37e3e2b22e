package config

import (
	"fmt"
	"regexp"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/resource"
)

// BackendBuiltin is the back end in the broker's own store.
const BackendBuiltin = "builtin"

// Resources settings of the built-in back end.
type Resources struct {
	// KeepVersions is how many values of a resource are kept, the current one
	// included.
	KeepVersions int `toml:"keep_versions"`
}

// ResourceBackend mounts a back end. Where none is mounted at the root, the
// built-in one is.
type ResourceBackend struct {
	Name string `toml:"name"`
	// Prefix of the paths that it serves: "" is all, else repo/ or repo/type/.
	// Of several that match, the longest one decides.
	Prefix   string `toml:"prefix"`
	Type     string `toml:"type"` // "builtin"
	ReadOnly bool   `toml:"read_only,omitempty"`
}

func defaultResources() Resources { return Resources{KeepVersions: resource.Keep} }

var backendName = regexp.MustCompile(`^[a-z0-9]([a-z0-9_-]{0,38}[a-z0-9])?$`)

func validateResources(r Resources, backends []ResourceBackend) []error {
	var all []error
	bad := func(key, format string, args ...any) {
		all = append(all, fmt.Errorf("%s: %s", key, fmt.Sprintf(format, args...)))
	}
	if r.KeepVersions < 1 || r.KeepVersions > 100 {
		bad("resources.keep_versions", "must be from 1 to 100, is %d", r.KeepVersions)
	}
	names, prefixes := map[string]bool{}, map[string]bool{}
	for i, b := range backends {
		key := fmt.Sprintf("resource_backends[%d]", i)
		if !backendName.MatchString(b.Name) || names[b.Name] {
			bad(key+".name", "%q needs to be a unique name of a-z, 0-9, - and _", b.Name)
		}
		if err := resource.CheckPrefix(b.Prefix); err != nil || prefixes[b.Prefix] {
			bad(key+".prefix", "%q must be empty, repo/ or repo/type/, and no other's", b.Prefix)
		}
		if b.Type != BackendBuiltin {
			bad(key+".type", "must be %q, is %q", BackendBuiltin, b.Type)
		}
		names[b.Name], prefixes[b.Prefix] = true, true
	}
	return all
}
