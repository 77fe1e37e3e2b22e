package registry

import (
	"net/url"
	"testing"
)

func TestWhereCredentialsMayGo(t *testing.T) {
	tests := []struct {
		home, target  string
		plain         bool
		token, bearer bool
	}{
		{"index.docker.io", "https://index.docker.io/v2/", false, true, true},
		{"index.docker.io", "https://index.docker.io:443/v2/", false, true, true},
		{"index.docker.io", "http://index.docker.io/v2/", false, false, false},
		{"index.docker.io", "https://auth.docker.io/token", false, true, false},
		{"registry.gitlab.com", "https://gitlab.com/jwt/auth", false, true, false},
		{"Registry.Example.com:5000", "https://registry.example.com:5001/token", false, true, false},
		{"registry.example.com", "https://AUTH.example.com/token", false, true, false},
		{"registry.example.com", "https://named.org/token", false, true, false},
		{"registry.example.com", "https://named.org:8443/token", false, false, false},
		{"registry.example.com", "https://evil.org/token", false, false, false},
		{"registry.example.com", "https://evilexample.com/token", false, false, false},
		{"registry.example.com", "https://example.com.evil.org/token", false, false, false},
		{"example.com", "https://evil.com/token", false, false, false},
		{"localhost:5000", "https://evil/token", false, false, false},
		{"10.0.0.1:5000", "https://10.0.0.1:5001/token", false, true, false},
		{"10.0.0.1:5000", "https://9.0.0.1/token", false, false, false},
		{"registry.example.com:80", "http://registry.example.com/v2/", true, true, true},
		{"registry.example.com:80", "http://registry.example.com:81/token", true, false, false},
		{"registry.example.com:80", "https://auth.example.com/token", true, false, false},
		{"registry.example.com:80", "https://named.org/token", true, true, false},
	}
	for _, tt := range tests {
		u, err := url.Parse(tt.target)
		if err != nil {
			t.Fatal(err)
		}
		l := leash{home: tt.home, plain: tt.plain, tokenHosts: []string{"named.org"}}
		if got := l.mayGo(u, true); got != tt.token {
			t.Errorf("a password for %s (plain %v) to %s: %v", tt.home, tt.plain, tt.target, got)
		}
		if got := l.mayGo(u, false); got != tt.bearer {
			t.Errorf("a token for %s (plain %v) to %s: %v", tt.home, tt.plain, tt.target, got)
		}
	}
}
