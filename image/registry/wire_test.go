package registry

import (
	"net/url"
	"testing"
)

func TestWhatGoesDirectly(t *testing.T) {
	for no, tests := range map[string]map[string]bool{
		"":                           {"https://a.io": false},
		"*":                          {"https://a.io": true, "http://10.0.0.1": true},
		"example.com , .b.io,":       {"https://example.com": true, "https://EXAMPLE.com:5000": true, "https://x.example.com": true, "https://notexample.com": false, "https://example.com.evil.io": false, "https://a.b.io": true},
		"example.com:5000":           {"https://example.com:5000": true, "https://example.com": false},
		"example.com:443":            {"https://example.com": true, "http://example.com": false},
		"10.0.0.0/8,::1,192.168.1.1": {"https://10.2.3.4:5000": true, "https://11.0.0.1": false, "https://[::1]:5000": true, "https://192.168.1.1": true, "https://1.192.168.1.1.nip.io": false},
		"0.0.1":                      {"https://10.0.0.1": false},
	} {
		for target, want := range tests {
			u, err := url.Parse(target)
			if err != nil {
				t.Fatal(err)
			}
			if got := (Proxy{No: no}).direct(u); got != want {
				t.Errorf("%s without a proxy, with the list %q: %v", target, no, got)
			}
		}
	}
}
