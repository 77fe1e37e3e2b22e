package fetch

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

func TestAptProxy(t *testing.T) {
	environment := func(*http.Request) (*url.URL, error) { return url.Parse("http://environment:1") }
	const dump = `Acquire "";
Acquire::http "";
Acquire::http::Proxy "http://general:3128/";
Acquire::http::Proxy::mirror.example.org "http://special:3128";
Acquire::http::Proxy::Near.example.org "DIRECT";
Acquire::https::Proxy::secure.example.org "http://secure:3128";
Acquire::http::User-Agent "odd";
Acquire::http::Proxy-Auto-Detect "/usr/bin/auto-apt-proxy";
Acquire::http::ProxyAutoDetect "/usr/bin/auto-apt-proxy";
`
	for _, c := range []struct{ dump, request, want string }{
		{dump, "http://other.example.org/x", "http://general:3128/"},
		{dump, "http://mirror.example.org:8080/x", "http://special:3128"},
		{dump, "http://near.example.org/x", ""},
		{dump, "https://secure.example.org/x", "http://secure:3128"},
		{dump, "https://other.example.org/x", "http://general:3128/"},
		{"", "http://other.example.org/x", "http://environment:1"},
		{`Acquire::https::Proxy "http://https:1";`, "http://other.example.org/x", "http://environment:1"},
	} {
		proxy, err := aptProxy(c.dump, environment)
		if err != nil {
			t.Fatal(err)
		}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.request, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := proxy(r)
		if err != nil {
			t.Error(err)
		}
		text := ""
		if got != nil {
			text = got.String()
		}
		if text != c.want {
			t.Errorf("%s goes over %q, want %q", c.request, text, c.want)
		}
	}
	if _, err := aptProxy(`Acquire::http::Proxy "user:word";`, environment); err == nil || strings.Contains(err.Error(), "word") {
		t.Errorf("no address: %v", err)
	}
}
