package registry

import (
	"errors"
	"strings"
	"testing"
)

const conf = `
unqualified-search-registries = ["docker.io"]
[[registry]]
location = "example.com"
[[registry]]
prefix = "example.com/foo"
location = "mirror.internal:5000/bar"
insecure = true
[[registry.mirror]]
location = "mirror-0.local/foo"
[[registry.mirror]]
location = "mirror-1.local"
insecure = true
pull-from-mirror = "digest-only"
[[registry]]
prefix = "example.com/foo/secret"
blocked = true
[[registry]]
prefix = "*.wild.org"
location = "one.internal/wild"
[[registry]]
prefix = "*.bad.wild.org"
blocked = true
[[registry]]
prefix = "evil.io"
blocked = true
[[registry]]
prefix = "docker.io"
location = "hub.internal/hub"
`

func TestPlaces(t *testing.T) {
	c, err := ParseRegistries([]byte(conf))
	if err != nil {
		t.Fatal(err)
	}
	rules, err := c.rules()
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]string{
		"example.com/app":                               "example.com/app",
		"example.com/foo":                               "no repository",
		"example.com/foo/a/b":                           "mirror-0.local/foo/a/b mirror-1.local/a/b+digest-only+plain mirror.internal:5000/bar/a/b+plain",
		"example.com/food":                              "example.com/food",
		"example.com:5000/foo/a":                        "example.com:5000/foo/a",
		"registry.example.com/foo/a":                    "registry.example.com/foo/a",
		"evil.org/example.com/foo/a":                    "evil.org/example.com/foo/a",
		"example.com.evil.org/foo/a":                    "example.com.evil.org/foo/a",
		"example.com/foo/secret":                        "blocked",
		"example.com/foo/secret/deep":                   "blocked",
		"example.com/foo/secrets":                       "mirror-0.local/foo/secrets mirror-1.local/secrets+digest-only+plain mirror.internal:5000/bar/secrets+plain",
		"evil.io/a":                                     "blocked",
		"EVIL.io/a":                                     "blocked",
		"evil.io:443/a":                                 "blocked",
		"notevil.io/a":                                  "notevil.io/a",
		"evil.io.org/a":                                 "evil.io.org/a",
		"a.b.wild.org/x/y":                              "one.internal/wild/x/y",
		"wild.org/x":                                    "wild.org/x",
		"awild.org/x":                                   "awild.org/x",
		"a.wild.org:444/x":                              "a.wild.org:444/x",
		"a.bad.wild.org/x":                              "blocked",
		"a.bad.wild.org:444/x":                          "blocked",
		"alpine":                                        "hub.internal/hub/library/alpine",
		"index.docker.io/team/app:v1":                   "hub.internal/hub/team/app",
		"localhost/example.com/foo/x":                   "localhost/example.com/foo/x",
		"example.com/foo/a:v1":                          "mirror-0.local/foo/a mirror-1.local/a+digest-only+plain mirror.internal:5000/bar/a+plain",
		"example.com/" + strings.Repeat("a", 200):       "example.com/" + strings.Repeat("a", 200),
		"docker.io/" + strings.Repeat("a/", 119) + "aa": "too long",
	}
	for in, want := range tests {
		ref, err := ParseReference(in)
		if err != nil {
			t.Fatal(err)
		}
		found, err := places(rules, ref)
		var got []string
		for _, p := range found {
			s := p.ref.Name()
			if p.from != "" {
				s += "+" + p.from
			}
			if p.plain {
				s += "+plain"
			}
			got = append(got, s)
		}
		switch {
		case want == "no repository" || want == "too long":
			if err == nil {
				t.Errorf("%s went to %q", in, got)
			}
		case want == "blocked":
			if !errors.Is(err, ErrBlocked) {
				t.Errorf("%s is not blocked: %q, %v", in, got, err)
			}
		case err != nil || strings.Join(got, " ") != want:
			t.Errorf("%s:\n got %q, %v\nwant %q", in, got, err, want)
		}
	}
}

func TestBadRegistries(t *testing.T) {
	for name, doc := range map[string]string{
		"not TOML":              `[[registry`,
		"version 1":             "[registries.search]\nregistries = ['docker.io']",
		"an unknown key":        "[[registry]]\nlocation='a.io'\nblockd=true",
		"another search":        "unqualified-search-registries = ['docker.io','quay.io']",
		"no name":               "[[registry]]\nblocked=true",
		"a prefix twice":        "[[registry]]\nprefix='a.io'\n[[registry]]\nlocation='A.io'\nblocked=true",
		"a tag":                 "[[registry]]\nprefix='a.io/b:v1'",
		"a scheme":              "[[registry]]\nprefix='a.io'\nlocation='https://b.io'",
		"a wildcard path":       "[[registry]]\nprefix='*.a.io/b'",
		"a wildcard location":   "[[registry]]\nprefix='a.io'\nlocation='*.b.io'",
		"a wildcard mirror":     "[[registry]]\nprefix='a.io'\n[[registry.mirror]]\nlocation='*'",
		"a mirror of nothing":   "[[registry]]\nprefix='a.io'\n[[registry.mirror]]\ninsecure=true",
		"an unknown use":        "[[registry]]\nprefix='a.io'\n[[registry.mirror]]\nlocation='m.io'\npull-from-mirror='never'",
		"a mirror of no use":    "[[registry]]\nprefix='a.io'\nmirror-by-digest-only=true\n[[registry.mirror]]\nlocation='m.io'\npull-from-mirror='tag-only'",
		"a trailing slash":      "[[registry]]\nprefix='a.io/'",
		"credential helpers":    "credential-helpers=['x']",
		"a bare name":           "[[registry]]\nprefix='a.io'\nlocation='mirror/x'",
		"a path that climbs":    "[[registry]]\nprefix='a.io'\nlocation='b.io/../c'",
		"far too many bytes":    strings.Repeat("#", maxConf+1),
		"a name with a newline": "[[registry]]\nprefix=\"a.io\\nb\"",
	} {
		if _, err := ParseRegistries([]byte(doc)); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func FuzzParseRegistries(f *testing.F) {
	f.Add([]byte("[[registry]]\nprefix='a.io/b'\nlocation='c.io'"), "a.io/b/c")
	f.Add([]byte("[[registry]]\nprefix='*.b.io'\nblocked=true"), "a.b.io/b")
	f.Fuzz(func(t *testing.T, doc []byte, name string) {
		c, err := ParseRegistries(doc)
		if err != nil {
			return
		}
		ref, err := ParseReference(name)
		if err != nil {
			return
		}
		rules, err := c.rules()
		if err != nil {
			t.Fatal(err)
		}
		found, err := places(rules, ref)
		if (err == nil) == (len(found) == 0) {
			t.Errorf("%d places, %v", len(found), err)
		}
	})
}
