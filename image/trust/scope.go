package trust

import (
	"fmt"
	"net"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/image/registry"
)

// scopes lists the policy scopes that cover ref, the most specific first: the
// full name, the repository and its parents down to the host, then wildcards
// of the host's parent domains (guest-protocol 15.1).
func scopes(ref registry.Reference) []string {
	var list []string
	if ref.Digest != "" {
		list = append(list, ref.Name()+"@"+ref.Digest.String())
	} else {
		list = append(list, ref.Name()+":"+ref.Tag)
	}
	for name := ref.Name(); ; {
		list = append(list, name)
		i := strings.LastIndexByte(name, '/')
		if i < 0 {
			break
		}
		name = name[:i]
	}
	host := ref.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if net.ParseIP(strings.Trim(host, "[]")) != nil {
		return list // an address has no parent domain
	}
	for {
		_, parent, ok := strings.Cut(host, ".")
		if !ok {
			return list
		}
		list = append(list, "*."+parent)
		host = parent
	}
}

// choose returns the requirements for ref and the scope that they stand under,
// as an administrator would look it up in the file.
func (p *Policy) choose(ref registry.Reference) (scope string, reqs []requirement) {
	for _, s := range append(scopes(ref), "") {
		if reqs, ok := p.docker[s]; ok {
			return fmt.Sprintf("transports.docker[%q]", s), reqs
		}
	}
	return "default", p.fallback
}

// checkScope refuses scopes that could never match, which is what a typing
// error in a reject rule amounts to: names that are not normalised ("alpine",
// "index.docker.io"), capitals in a host, a tag beside a digest.
func checkScope(s string) error {
	bad := fmt.Errorf("scope %.80q can match no image name", s)
	if s == "" {
		return nil
	}
	if domain, ok := strings.CutPrefix(s, "*."); ok {
		if !isHost("x."+domain) || strings.ContainsAny(domain, ":[") {
			return bad
		}
		return nil
	}
	if !strings.Contains(s, "/") {
		if !isHost(s) {
			return bad
		}
		return nil
	}
	if isRepository(s) {
		return nil
	}
	ref, err := registry.ParseNamed(s)
	if err != nil || ref.String() != s || (ref.Tag == "") == (ref.Digest == "") {
		return bad
	}
	return nil
}

// isHost says whether s is a registry's name in normal form.
func isHost(s string) bool {
	if strings.Contains(s, "/") {
		return false
	}
	ref, err := registry.ParseNamed(s + "/x/y")
	return err == nil && ref.Host == s
}

// isRepository says whether s is a repository, or a namespace of repositories,
// in normal form.
func isRepository(s string) bool {
	ref, err := registry.ParseNamed(s + "/x")
	return err == nil && ref.Name() == s+"/x" && strings.Contains(s, "/")
}
