package trust

import (
	"fmt"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// An identityRule says which name a signature must carry for the image that
// was asked for (guest-protocol 15.1, signedIdentity).
type identityRule struct {
	kind   string
	target string // exactReference, exactRepository; the signed prefix of remapIdentity
	prefix string // remapIdentity
}

const (
	matchRepository = "matchRepository"
	matchExact      = "matchExact"
	matchDigest     = "matchRepoDigestOrExact"
	exactReference  = "exactReference"
	exactRepository = "exactRepository"
	remapIdentity   = "remapIdentity"
	// ignoreIdentity is ours: cosign 3 signs a digest and no name, so that a
	// policy which takes such signatures must say that it asks for none.
	ignoreIdentity = "insecureIgnoreIdentity"
)

// parseIdentity reads a signedIdentity; fallback is the kind where there is
// none.
func parseIdentity(doc *strictjson.Object, fallback string) (identityRule, error) {
	if doc == nil {
		return identityRule{kind: fallback}, nil
	}
	var r identityRule
	if _, err := doc.Take("type", &r.kind); err != nil {
		return r, err
	}
	members := map[string]*string{}
	switch r.kind {
	case matchRepository, matchExact, matchDigest, ignoreIdentity:
	case exactReference:
		members["dockerReference"] = &r.target
	case exactRepository:
		members["dockerRepository"] = &r.target
	case remapIdentity:
		members["prefix"], members["signedPrefix"] = &r.prefix, &r.target
	default:
		return r, fmt.Errorf("signedIdentity type %.40q is not supported", r.kind)
	}
	for name, v := range members {
		if ok, err := doc.Take(name, v); err != nil {
			return r, err
		} else if !ok || *v == "" {
			return r, fmt.Errorf("signedIdentity %s needs %s", r.kind, name)
		}
	}
	if err := r.checkTarget(); err != nil {
		return r, err
	}
	return r, doc.Done()
}

func (r identityRule) checkTarget() error {
	if r.kind == remapIdentity {
		for _, p := range []string{r.prefix, r.target} {
			if !isHost(p) && !isRepository(p) {
				return fmt.Errorf("signedIdentity %s: %.80q is no host, namespace or repository", r.kind, p)
			}
		}
		return nil
	}
	if r.kind != exactReference && r.kind != exactRepository {
		return nil
	}
	ref, err := registry.ParseNamed(r.target)
	if err != nil {
		return err
	}
	if named := ref.Tag != "" || ref.Digest != ""; named != (r.kind == exactReference) {
		return fmt.Errorf("%.80q does not fit signedIdentity %s", r.target, r.kind)
	}
	return nil
}

// matches compares the image that was asked for with the name in a signature.
func (r identityRule) matches(ref registry.Reference, signed string) bool {
	if r.kind == ignoreIdentity {
		return true
	}
	name, err := registry.ParseNamed(signed)
	if err != nil {
		return false
	}
	switch r.kind {
	case matchRepository:
		return name.Name() == ref.Name()
	case matchExact:
		return ref.Digest == "" && name.Tag != "" && name == ref
	case matchDigest:
		return digestOrExact(ref, name)
	case exactReference:
		want, err := registry.ParseNamed(r.target)
		return err == nil && name == want
	case exactRepository:
		want, err := registry.ParseNamed(r.target)
		return err == nil && name.Name() == want.Name()
	case remapIdentity:
		mapped, ok := remap(ref, r.prefix, r.target)
		return ok && digestOrExact(mapped, name)
	}
	return false
}

// digestOrExact: a tag must be signed as such; for a digest the repository is
// enough, since the signature names the digest anyway.
func digestOrExact(ref, signed registry.Reference) bool {
	if signed.Tag == "" && signed.Digest == "" {
		return false
	}
	if ref.Digest != "" {
		return signed.Name() == ref.Name()
	}
	return signed == ref
}

// remap replaces the prefix of the repository name; it ends at a component.
func remap(ref registry.Reference, prefix, signed string) (registry.Reference, bool) {
	rest, ok := strings.CutPrefix(ref.Name(), prefix)
	if !ok {
		return ref, true // the rule does not concern this image
	}
	if rest != "" && rest[0] != '/' {
		return ref, true
	}
	full := signed + rest
	if ref.Tag != "" {
		full += ":" + ref.Tag
	}
	if ref.Digest != "" {
		full += "@" + ref.Digest.String()
	}
	mapped, err := registry.ParseNamed(full)
	return mapped, err == nil
}
