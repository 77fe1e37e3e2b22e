package registry

import (
	"strings"
	"testing"
)

const someDigest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestParseReference(t *testing.T) {
	tests := []struct{ in, want string }{
		{"alpine", "docker.io/library/alpine:latest"},
		{"alpine:3.20", "docker.io/library/alpine:3.20"},
		{"user/app", "docker.io/user/app:latest"},
		{"docker.io/alpine", "docker.io/library/alpine:latest"},
		{"index.docker.io/library/alpine", "docker.io/library/alpine:latest"},
		{"localhost/app", "localhost/app:latest"},
		{"localhost:5000/app:v1", "localhost:5000/app:v1"},
		{"GHCR.io/app", "ghcr.io/app:latest"},
		{"Docker.IO/alpine", "docker.io/library/alpine:latest"},
		{"ghcr.io/a/b/c@" + someDigest, "ghcr.io/a/b/c@" + someDigest},
		{"ghcr.io/a:v1@" + someDigest, "ghcr.io/a:v1@" + someDigest},
		{"[::1]:5000/app", "[::1]:5000/app:latest"},
		{"foo.bar", "docker.io/library/foo.bar:latest"},
	}
	for _, tt := range tests {
		r, err := ParseReference(tt.in)
		if err != nil || r.String() != tt.want {
			t.Errorf("%q gives %q, %v; want %q", tt.in, r, err, tt.want)
		}
	}
	bad := []string{"", ":tag", "UPPER", "Host/app", "a//b", "/a", "a/", "a:b:c", "ghcr.io/a@sha256:12", "ghcr.io/a@md5:0123456789abcdef0123456789abcdef",
		"ghcr.io/../a", "ghcr.io/a b", "ghcr.io/a\n", "http://ghcr.io/a", "ghcr.io/a:" + strings.Repeat("x", 129), "a@b@" + someDigest, strings.Repeat("a", 300)}
	for _, in := range bad {
		if r, err := ParseReference(in); err == nil {
			t.Errorf("%q was taken for %q", in, r)
		}
	}
}

func FuzzParseReference(f *testing.F) {
	for _, s := range []string{"alpine", "localhost:5000/a/b:v1", "ghcr.io/a:v1@" + someDigest, "HOST.io/a", "[::1]/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseReference(s)
		if err != nil {
			return
		}
		again, err := ParseReference(r.String())
		if err != nil || again != r {
			t.Fatalf("%q normalises to %q, and that to %q (%v)", s, r, again, err)
		}
	})
}
