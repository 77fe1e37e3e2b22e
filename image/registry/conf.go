package registry

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// ErrBlocked says that the configuration of registries forbids a name.
var ErrBlocked = errors.New("blocked by the configuration of registries")

const maxConf = 1 << 20 // bytes

// Registries is registries.conf, version 2 (containers-registries.conf(5),
// guest-protocol 14.5): where images really come from. It never decides what an
// image is called: policy, measurement and signatures go by the name that the
// user asked for.
type Registries struct {
	// Unqualified may hold nothing but docker.io: names without a registry lie
	// there, and a search through several registries would let each of them
	// answer for the others.
	Unqualified []string `toml:"unqualified-search-registries"`
	Rules       []Rule   `toml:"registry"`
}

// A Rule says where the repositories below a prefix come from.
type Rule struct {
	// Prefix is a registry, a namespace or a repository, or "*.domain" for the
	// registries below a domain. Empty: Location.
	Prefix string `toml:"prefix"`
	// Location takes the place of the prefix. Empty: nothing is rewritten.
	Location string `toml:"location"`
	// Insecure allows plain HTTP to Location (or to the names themselves). TLS,
	// where it is spoken, is verified all the same.
	Insecure bool     `toml:"insecure"`
	Blocked  bool     `toml:"blocked"`
	Mirrors  []Mirror `toml:"mirror"` // tried in order, before Location
	// DigestOnly keeps tags from the mirrors: they could answer with an old image.
	DigestOnly bool `toml:"mirror-by-digest-only"`
}

// A Mirror has copies of what lies below the rule's prefix.
type Mirror struct {
	Location string `toml:"location"`
	Insecure bool   `toml:"insecure"`
	From     string `toml:"pull-from-mirror"` // "all" (default), "digest-only" or "tag-only"
}

// ParseRegistries reads the TOML form. A key that is not known is an error:
// it may have been meant to forbid something.
func ParseRegistries(raw []byte) (*Registries, error) {
	if len(raw) > maxConf {
		return nil, fmt.Errorf("registries.conf: %d bytes, at most %d are read", len(raw), maxConf)
	}
	var c Registries
	if err := toml.NewDecoder(bytes.NewReader(raw)).DisallowUnknownFields().Decode(&c); err != nil {
		return nil, fmt.Errorf("registries.conf: %w", err)
	}
	if _, err := c.rules(); err != nil {
		return nil, err
	}
	return &c, nil
}

// rules returns the rules with their names normalised, or all that is wrong.
func (c *Registries) rules() ([]Rule, error) {
	if c == nil {
		return nil, nil
	}
	var errs []error
	if slices.ContainsFunc(c.Unqualified, func(s string) bool { return s != dockerHub }) {
		errs = append(errs, fmt.Errorf("unqualified-search-registries: only %s is possible", dockerHub))
	}
	seen := map[string]bool{}
	out := make([]Rule, 0, len(c.Rules))
	for i, r := range c.Rules {
		r, err := r.normal()
		if err == nil && seen[r.Prefix] {
			err = fmt.Errorf("the prefix %q has a rule already", r.Prefix)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("registry[%d]: %w", i, err))
		}
		seen[r.Prefix] = true
		out = append(out, r)
	}
	if len(errs) > 0 {
		return nil, fmt.Errorf("registries.conf: %w", errors.Join(errs...))
	}
	return out, nil
}

func (r Rule) normal() (Rule, error) {
	var errs []error
	clean := func(what, s string) string {
		n, err := normalPrefix(s)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s %.80q: %w", what, s, err))
		}
		return n
	}
	if r.Prefix == "" {
		r.Prefix = r.Location
	}
	if domain, ok := strings.CutPrefix(r.Prefix, "*."); ok {
		if !strings.Contains(domain, ".") {
			errs = append(errs, fmt.Errorf("prefix %.80q: is all of a top-level domain", r.Prefix))
		} else if host := clean("prefix", domain); strings.Contains(host, "/") {
			errs = append(errs, errors.New("a prefix with a wildcard is a domain"))
		} else {
			r.Prefix = "*." + host
		}
	} else {
		r.Prefix = clean("prefix", r.Prefix)
	}
	if r.Location != "" {
		r.Location = clean("location", r.Location)
	}
	r.Mirrors = slices.Clone(r.Mirrors)
	for i := range r.Mirrors {
		m := &r.Mirrors[i]
		m.Location = clean("mirror location", m.Location)
		if !slices.Contains([]string{"", "all", "digest-only", "tag-only"}, m.From) {
			errs = append(errs, fmt.Errorf("pull-from-mirror %.80q is not known", m.From))
		}
		if r.DigestOnly {
			if m.From == "tag-only" {
				errs = append(errs, errors.New("a mirror of tags only in a rule of digests only is never used"))
			}
			m.From = "digest-only"
		}
	}
	return r, errors.Join(errs...)
}

// normalPrefix accepts a host with an optional path, in the spelling of
// normalised references.
func normalPrefix(s string) (string, error) {
	host, path, namespaced := strings.Cut(s, "/")
	host = strings.ToLower(host)
	if host == "index.docker.io" || host == "registry-1.docker.io" {
		host = dockerHub
	}
	// Without a dot or a port it would be a namespace of docker.io elsewhere.
	isHost := strings.ContainsAny(host, ".:") || host == "localhost"
	if !isHost || !hostForm.MatchString(host) || (namespaced && !pathForm.MatchString(path)) {
		return "", errors.New("is not a registry, namespace or repository")
	}
	if namespaced {
		return host + "/" + path, nil
	}
	return host, nil
}

// match reports how many bytes of the name the rule's prefix covers; 0: it does
// not apply. A prefix starts where the name starts and ends where a component
// of it ends. Only a block reaches over ports: who forbids a host forbids all of it.
func (r *Rule) match(name string) int {
	n := len(r.Prefix)
	if domain, ok := strings.CutPrefix(r.Prefix, "*"); ok {
		host, _, _ := strings.Cut(name, "/")
		bare := host
		if !strings.Contains(domain, ":") && r.Blocked {
			bare = hostname(host)
		}
		if !strings.HasSuffix(bare, domain) {
			return 0
		}
		return len(host)
	}
	if !strings.HasPrefix(name, r.Prefix) {
		return 0
	}
	if len(name) == n || name[n] == '/' || (r.Blocked && name[n] == ':') {
		return n
	}
	return 0
}

// find returns the rule with the longest prefix that applies, and what it covers.
func find(rules []Rule, name string) (rule *Rule, covered int) {
	for i := range rules {
		n := rules[i].match(name)
		if n > 0 && (rule == nil || len(rules[i].Prefix) > len(rule.Prefix)) {
			rule, covered = &rules[i], n
		}
	}
	return rule, covered
}

// A place is where a repository may be fetched.
type place struct {
	ref   Reference // host and path only
	plain bool      // plain HTTP is allowed
	from  string    // as Mirror.From
}

// places lists where ref's repository is fetched, in order; the last one is no
// mirror. It fails with [ErrBlocked].
func places(rules []Rule, ref Reference) ([]place, error) {
	name := ref.Name()
	rule, covered := find(rules, name)
	if rule == nil {
		return []place{{ref: Reference{Host: ref.Host, Path: ref.Path}}}, nil
	}
	if rule.Blocked {
		return nil, fmt.Errorf("%s: %w", name, ErrBlocked)
	}
	origin := rule.Location
	if origin == "" {
		origin = name[:covered]
	}
	var out []place
	for _, m := range append(slices.Clone(rule.Mirrors), Mirror{Location: origin, Insecure: rule.Insecure}) {
		moved, ok := split(m.Location + name[covered:])
		if !ok {
			return nil, fmt.Errorf("%s does not fit at %s, where the configuration of registries puts it", name, m.Location)
		}
		out = append(out, place{ref: moved, plain: m.Insecure, from: m.From})
	}
	return out, nil
}

// split reads a normalised name. [ParseNamed] would take a host for a
// repository of docker.io where the rule covers the whole name.
func split(name string) (Reference, bool) {
	host, path, ok := strings.Cut(name, "/")
	if host == dockerHub && !strings.Contains(path, "/") {
		path = "library/" + path
	}
	r := Reference{Host: host, Path: path}
	return r, ok && hostForm.MatchString(host) && pathForm.MatchString(path) && len(r.Name()) <= maxRepo
}
