package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// leash keeps a registry's credential where it belongs. A registry names the
// server that makes its tokens, and may redirect any request, so neither may
// decide alone where a password goes. A bearer token goes to the registry's
// host only. A password or identity token goes there too, and to a token server
// over HTTPS that has the registry's host name or a name beside or above it
// (auth.docker.io for index.docker.io), or that the configuration names. What
// a registry says over plain HTTP anyone may have said: then the latter only.
type leash struct {
	home       string // host, possibly with port
	plain      bool
	tokenHosts []string
	next       http.RoundTripper
}

func (l *leash) RoundTrip(req *http.Request) (*http.Response, error) {
	scheme, _, _ := strings.Cut(req.Header.Get("Authorization"), " ")
	grant := req.Method == http.MethodPost && strings.HasPrefix(req.Header.Get("Content-Type"), "application/x-www-form-urlencoded")
	if scheme == "" && !grant {
		return l.next.RoundTrip(req)
	}
	if !l.mayGo(req.URL, grant || strings.EqualFold(scheme, "Basic")) {
		if req.Body != nil {
			_ = req.Body.Close() // RoundTrip must close it
		}
		return nil, fmt.Errorf("%w: the credential of %s must not go to %s", errRefused, l.home, req.URL.Host)
	}
	return l.next.RoundTrip(req)
}

func (l *leash) mayGo(u *url.URL, forToken bool) bool {
	if u.Scheme != "https" && !l.plain {
		return false
	}
	if withPort(u.Host, u.Scheme) == withPort(l.home, u.Scheme) {
		return true
	}
	if !forToken {
		return false
	}
	if slices.Contains(l.tokenHosts, u.Host) {
		return true
	}
	return u.Scheme == "https" && !l.plain && related(hostname(l.home), u.Hostname())
}

// related reports whether token is the host itself, its parent domain, or
// another name in that parent domain. A parent domain has at least one dot.
func related(home, token string) bool {
	home, token = strings.ToLower(home), strings.ToLower(token)
	if home == token {
		return true
	}
	if net.ParseIP(home) != nil || net.ParseIP(token) != nil {
		return false
	}
	_, parent, _ := strings.Cut(home, ".")
	return strings.Contains(parent, ".") && (token == parent || strings.HasSuffix(token, "."+parent))
}

func hostname(host string) string { return (&url.URL{Host: host}).Hostname() }

// withPort spells the port of a host out.
func withPort(host, scheme string) string {
	u := url.URL{Host: strings.ToLower(host)}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

const maxRedirects = 5

// checkRedirect bounds redirects and keeps them from leaving TLS.
func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return fmt.Errorf("%w: more than %d redirects", errRefused, maxRedirects)
	}
	if via[len(via)-1].URL.Scheme == "https" && req.URL.Scheme != "https" {
		return fmt.Errorf("%w: a redirect from HTTPS to plain HTTP at %s", errRefused, req.URL.Host)
	}
	return nil
}

// handshake marks the requests that find out how to authenticate. Nobody needs
// their bodies beyond a token, and the library reads a ping's body to its end.
type handshake struct{}

const maxHandshake = 1 << 20 // bytes

func inHandshake(ctx context.Context) context.Context {
	return context.WithValue(ctx, handshake{}, true)
}

// boundHandshake bounds the body of a handshake's answer.
func boundHandshake(ctx context.Context, body io.ReadCloser) io.ReadCloser {
	if ctx.Value(handshake{}) == nil {
		return body
	}
	return &boundedBody{ReadCloser: body, left: maxHandshake}
}

var errHandshake = errors.New("the answer to a handshake is too long")

type boundedBody struct {
	io.ReadCloser
	left int
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errHandshake
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}
