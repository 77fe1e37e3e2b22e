package hostile

import (
	"net/http"
	"net/url"
	"strings"
)

// segments are what stands in a path where a name should.
func segments() map[string]string {
	return map[string]string{
		"parent":                  "..",
		"parent, encoded":         "%2e%2e",
		"parent, twice encoded":   "%252e%252e",
		"slash":                   "%2f",
		"out of the directory":    "..%2f..%2f..%2fetc%2fpasswd",
		"backslash":               "..%5c..%5cetc",
		"NUL":                     "a%00b",
		"line feed":               "a%0d%0aSet-Cookie:%20a=b",
		"5,000 bytes":             strings.Repeat("a", 5000),
		"unicode":                 url.PathEscape("ключ\u202e"),
		"not UTF-8":               "%ff%fe",
		"overlong slash":          "%c0%af",
		"nothing":                 "",
		"dot":                     ".",
		"semicolon":               ";a=b",
		"space":                   "%20",
		"a template":              "%7B%7Bdata%7D%7D",
		"another tenant's prefix": "..%2f..%2ft%2fother%2f",
	}
}

// paths puts each hostile segment into each place of each path.
func (s *stage) paths(routes []route) {
	token := s.token()
	for _, r := range routes {
		for _, match := range parameter.FindAllStringSubmatch(r.pattern, -1) {
			name := match[1]
			for what, text := range segments() {
				if text == "" && strings.HasPrefix(r.pattern, "/kbs/v0/") {
					continue // the field's address of all of them
				}
				req := s.request(r, token)
				req.path = r.fill(name, text)
				if r.writes() {
					req.body = "["
				}
				a := s.send(req)
				switch {
				case a.status >= 400 && a.status < 500:
				case a.status == http.StatusMovedPermanently || a.status == http.StatusTemporaryRedirect:
					s.redirected(req, a)
				default:
					s.Errorf("%s as %s of %s %s: status %d: %.200s", what, name, r.method, r.pattern, a.status, a.body)
				}
			}
		}
	}
}

// redirected demands that a redirection leads to a clean path of this broker.
func (s *stage) redirected(r request, a answer) {
	s.Helper()
	to := a.header.Get("Location")
	if !strings.HasPrefix(to, "/") || strings.HasPrefix(to, "//") || strings.Contains(to, "..") {
		s.Errorf("%s leads to %q", r, to)
	}
}

// queries gives each parameter of each query values that it cannot have. Some
// are a text to look for; what matters is that none is a failure of ours.
func (s *stage) queries(routes []route) {
	token := s.token()
	values := []string{"-1", "99999999999999999999", "1e9", "%00", "%ff", "'%20OR%201=1--", "..%2f..", strings.Repeat("9", 5000), "%zz", "a&", "2026-13-45T99:99:99Z"}
	for _, r := range routes {
		for _, name := range r.query {
			if r.method != http.MethodGet {
				continue // a change with a query that is a text would be made
			}
			for _, value := range values {
				req := s.request(r, token)
				req.path += "?" + name + "=" + value + "&" + name + "=" + value
				s.send(req)
			}
		}
	}
}
