package client

import (
	"net/url"
	"path"
	"strings"
	"testing"
)

func TestParseResourceURI(t *testing.T) {
	tests := []struct {
		in, path string
		want     ResourceURI
	}{
		{"kbs:///default/key/1", "/kbs/v0/resource/default/key/1", ResourceURI{Plugin: "resource", Path: "default/key/1"}},
		{"kbs+resource:///default/key/1", "/kbs/v0/resource/default/key/1", ResourceURI{Plugin: "resource", Path: "default/key/1"}},
		{"kbs://kbs.example:8080/r/t/g", "/kbs/v0/resource/r/t/g", ResourceURI{Plugin: "resource", Host: "kbs.example:8080", Path: "r/t/g"}},
		{"kbs://[::1]:8080/r/t/g", "/kbs/v0/resource/r/t/g", ResourceURI{Plugin: "resource", Host: "[::1]:8080", Path: "r/t/g"}},
		{"kbs:///r/t/_A-z.0..9", "/kbs/v0/resource/r/t/_A-z.0..9", ResourceURI{Plugin: "resource", Path: "r/t/_A-z.0..9"}},
		{"kbs:///r/t/g?v=1", "/kbs/v0/resource/r/t/g?v=1", ResourceURI{Plugin: "resource", Path: "r/t/g", Query: "v=1"}},
		{"kbs+pkcs11:///a/b?x=1", "/kbs/v0/pkcs11/a/b?x=1", ResourceURI{Plugin: "pkcs11", Path: "a/b", Query: "x=1"}},
		{"kbs+nebula-ca:///credential?name=pod-1&ip=10.9.8.7%2F21", "/kbs/v0/nebula-ca/credential?name=pod-1&ip=10.9.8.7%2F21",
			ResourceURI{Plugin: "nebula-ca", Path: "credential", Query: "name=pod-1&ip=10.9.8.7%2F21"}},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			got, err := ParseResourceURI(tt.in)
			if err != nil || got != tt.want {
				t.Fatalf("got %+v, %v", got, err)
			}
			if got.requestPath() != tt.path {
				t.Fatalf("asks for %s, want %s", got.requestPath(), tt.path)
			}
			if s := got.String(); s != strings.Replace(tt.in, "kbs+resource:", "kbs:", 1) {
				t.Fatalf("written as %s", s)
			}
		})
	}
}

func TestParseResourceURIRefuses(t *testing.T) {
	tests := []string{
		"", "kbs:", "kbs:/default/key/1", "default/key/1", "/default/key/1", "kbs://", "kbs:///",
		"KBS:///a/b/c", "http:///a/b/c", "kbs+:///a", "kbs+A:///a", "kbs+a b:///a", "kbs+../admin:///a", "kbs+a/b:///a",
		"kbs+auth:///x", "kbs+attest:///x", "kbs+resource-policy:///x", "kbs+attestation-policy:///x", "kbs+reference-value:///x",
		"kbs:///a/b", "kbs:///a/b/c/d", "kbs:///a//c", "kbs:////a/b/c", "kbs:///a/b/c/",
		"kbs:///a/../c", "kbs:///a/./c", "kbs:///.a/b/c", "kbs+x:///a/../b", "kbs+x:///",
		"kbs:///a/b/%63", "kbs:///a/b/c%2F..%2Fd", "kbs:///a/b/c d", "kbs:///a/b/ä", "kbs:///a/b/c\n", "kbs:///a/b/c\x00",
		"kbs:///a/b/c#f", "kbs:///a/b/c?x#f", "kbs:///a/b/c?", "kbs:///a/b/c?a b", "kbs:///a/b/c?%zz", "kbs:///a/b/c?a;b", "kbs:///a/b/c?a?b",
		"kbs://user@host/a/b/c", "kbs://host:port/a/b/c", "kbs://h:123456/a/b/c", "kbs://a\\b/a/b/c", "kbs://[::1/a/b/c",
		"kbs:///a/b/" + strings.Repeat("c", maxURI),
	}
	for _, in := range tests {
		if got, err := ParseResourceURI(in); err == nil {
			t.Errorf("%.40q accepted as %+v", in, got)
		} else if len(err.Error()) > 200 {
			t.Errorf("%.40q: the error has %d bytes", in, len(err.Error()))
		}
	}
}

// Whatever is accepted means one thing only: written and read again it is the
// same, and no URL parser finds another path in it.
func FuzzParseResourceURI(f *testing.F) {
	for _, s := range []string{"kbs:///default/key/1", "kbs+pkcs11://h:1/a/b?x=1&y=%20", "kbs+resource://[::1]/a/b/c", "kbs:///a/../b", "kbs+x:///%2e%2e/y"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ParseResourceURI(s)
		if err != nil {
			return
		}
		again, err := ParseResourceURI(u.String())
		if err != nil || again != u {
			t.Fatalf("%q became %+v, then %+v (%v)", s, u, again, err)
		}
		std, err := url.Parse("https://broker.example" + u.requestPath())
		if err != nil {
			t.Fatalf("%q gives a path that is no URL: %v", s, err)
		}
		if std.Path != path.Clean(std.Path) || std.Path != "/kbs/v0/"+u.Plugin+"/"+u.Path || std.RawQuery != u.Query || std.Fragment != "" {
			t.Fatalf("%q is read as %+v", s, std)
		}
	})
}
