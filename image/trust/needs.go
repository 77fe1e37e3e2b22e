package trust

import "github.com/vouchsafe-cc/vouchsafe/image/registry"

// KeyPaths returns the key paths that the policy names for an image, which
// Evidence.Keys will be asked for: a tool can look beforehand whether they are
// there.
func (p *Policy) KeyPaths(ref registry.Reference) (paths []string) {
	_, requirements := p.choose(ref)
	for _, r := range requirements {
		for _, k := range r.keys {
			if k.path != "" {
				paths = append(paths, k.path)
			}
		}
	}
	return paths
}
