package jwks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const (
	timeout   = 10 * time.Second
	maxSize   = 512 << 10 // bytes of any document
	wellKnown = "/.well-known/openid-configuration"
)

// checkURI accepts what fetch can read with an authentic answer.
func checkURI(text string) error {
	if text == "" {
		return errors.New("jwks: a URI is needed")
	}
	scheme, _, ok := strings.Cut(text, "://")
	if !ok {
		return nil // a path
	}
	u, err := url.Parse(text)
	if err != nil {
		return fmt.Errorf("jwks: %w", err)
	}
	switch {
	case scheme == "file" && u.Host == "" && u.Path != "":
		return nil
	case scheme == "https" && u.Host != "":
		return nil
	case scheme == "http" && loopback(u.Hostname()):
		return nil
	}
	return fmt.Errorf("jwks: %q is neither a path nor a file:// or https:// URI", u.Redacted())
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// CheckRedirect lets an issuer move a document to another protected place.
func CheckRedirect(r *http.Request, via []*http.Request) error {
	if len(via) > 3 {
		return errors.New("too many redirects")
	}
	return checkURI(r.URL.String())
}

// fetch reads the keys. At an https URI that publishes no keys, there may be an
// OIDC issuer (kbs-protocol 5.2, OpenID Connect Discovery 1.0 section 4).
func (s *Set) fetch(ctx context.Context) ([]jose.JSONWebKey, error) {
	if !strings.HasPrefix(s.URI, "http") || !strings.Contains(s.URI, "://") {
		raw, err := readFile(strings.TrimPrefix(s.URI, "file://"))
		if err != nil {
			return nil, err
		}
		return Parse(raw)
	}
	raw, err := s.get(ctx, s.URI)
	if err == nil {
		var keys []jose.JSONWebKey
		if keys, err = Parse(raw); err == nil {
			return keys, nil
		}
	}
	doc, derr := s.get(ctx, strings.TrimSuffix(s.URI, "/")+wellKnown)
	if derr != nil {
		return nil, errors.Join(err, derr)
	}
	var discovery struct {
		JWKSURI string `json:"jwks_uri"`
	}
	if derr := json.Unmarshal(doc, &discovery); derr != nil {
		return nil, errors.Join(err, fmt.Errorf("discovery document: %w", derr))
	}
	if !strings.HasPrefix(discovery.JWKSURI, "http") {
		return nil, errors.Join(err, errors.New("the discovery document has no jwks_uri"))
	}
	if derr := checkURI(discovery.JWKSURI); derr != nil {
		return nil, derr
	}
	if raw, err = s.get(ctx, discovery.JWKSURI); err != nil {
		return nil, err
	}
	return Parse(raw)
}

func (s *Set) get(ctx context.Context, uri string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, uri, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json, application/jwk-set+json")
	resp, err := s.HTTP.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET %s: status %d", uri, resp.StatusCode)
	}
	return readAll(resp.Body, uri)
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return readAll(f, path)
}

func readAll(r io.Reader, name string) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(r, maxSize+1))
	if err == nil && len(raw) > maxSize {
		err = fmt.Errorf("%s is larger than %d bytes", name, maxSize)
	}
	return raw, err
}
