package kms

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
)

// Limits of one call.
const (
	maxAnswer    = 1 << 20 // bytes
	maxMessage   = 200     // bytes of what a service says about an error
	tries        = 3
	firstPause   = 200 * time.Millisecond
	longestPause = 2 * time.Second
)

// common are settings of every provider.
type common struct {
	// Credential is the resource at the broker that holds the credential.
	Credential string `json:"credential"`
	// Endpoint is https://HOST[:PORT] in place of the service's usual one.
	Endpoint string `json:"endpoint_url"`
	// Roots are certificates in PEM that are trusted in place of the system's.
	Roots string `json:"root_certificates"`
}

func (c common) check() error {
	if _, err := roots(c.Roots); err != nil {
		return err
	}
	if c.Endpoint == "" {
		return nil
	}
	return checkURL("endpoint_url", c.Endpoint)
}

// at returns the endpoint, or the usual one.
func (c common) at(usual string) string {
	if c.Endpoint != "" {
		return strings.TrimSuffix(c.Endpoint, "/")
	}
	return usual
}

// checkURL takes https://HOST[:PORT] alone.
func checkURL(what, text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || strings.TrimSuffix(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("%s: want https://HOST[:PORT]", what)
	}
	return nil
}

// roots reads certificates; none means the system's.
func roots(pem string) (*x509.CertPool, error) {
	if pem == "" {
		return nil, nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(pem)) {
		return nil, errors.New("root_certificates: there is no certificate in it")
	}
	return pool, nil
}

// caller makes the calls of one service.
type caller struct {
	http  *http.Client
	pause func(ctx context.Context, d time.Duration) error
}

func newCaller(e env, pem string) (*caller, error) {
	pool, err := roots(pem)
	if err != nil {
		return nil, fault.New(fault.SealedInvalid, err)
	}
	return &caller{pause: e.pause, http: &http.Client{
		Timeout: e.timeout,
		Transport: &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			DialContext:         (&net.Dialer{Timeout: e.timeout}).DialContext,
			TLSClientConfig:     &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout: e.timeout,
			ForceAttemptHTTP2:   true,
			IdleConnTimeout:     30 * time.Second,
		},
		// What proves who we are must not follow to where a stranger points.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

func (c *caller) close() { c.http.CloseIdleConnections() }

// judge says what an answer of a failure means, and what the service calls it.
// An empty code leaves the judgement to the status.
type judge func(status int, body []byte) (fault.Code, string)

// call sends what build makes, which is made anew for each try since signatures
// carry the time. The caller clears the body, which may hold a secret.
func (c *caller) call(ctx context.Context, build func(context.Context) (*http.Request, error), j judge) ([]byte, error) {
	wait := firstPause
	for n := 1; ; n++ {
		req, err := build(ctx)
		if err != nil {
			return nil, err
		}
		body, again, err := c.try(req, j)
		if err == nil || !again || n == tries || ctx.Err() != nil {
			return body, err
		}
		if perr := c.pause(ctx, wait); perr != nil {
			return nil, err
		}
		wait = min(2*wait, longestPause)
	}
}

// try sends one request; again is whether another may have more luck.
func (c *caller) try(req *http.Request, j judge) (body []byte, again bool, err error) {
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, true, fault.Newf(fault.Unavailable, "%s: %w", req.URL.Host, transportError(err))
	}
	defer func() { _ = resp.Body.Close() }()
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		clear(body) // half a secret
		return nil, true, fault.Newf(fault.Unavailable, "%s: the answer was cut off: %w", req.URL.Host, err)
	case len(body) > maxAnswer:
		clear(body)
		return nil, false, fault.Newf(fault.Unavailable, "%s: the answer is larger than %d bytes", req.URL.Host, maxAnswer)
	case resp.StatusCode/100 == 2:
		return body, false, nil
	}
	code, said := j(resp.StatusCode, body)
	if code == "" {
		code = ofStatus(resp.StatusCode)
	}
	again = code == fault.TooMany || code == fault.Unavailable && resp.StatusCode >= http.StatusInternalServerError
	return nil, again, fault.Newf(code, "%s: status %d: %q", req.URL.Host, resp.StatusCode, clip(said))
}

// transportError leaves the URL out: the query of some services holds what is
// asked for.
func transportError(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}

// ofStatus is what a status means where the service does not say more.
func ofStatus(status int) fault.Code {
	switch {
	case status == http.StatusUnauthorized:
		return fault.Unauthenticated
	case status == http.StatusForbidden:
		return fault.Forbidden
	case status == http.StatusNotFound:
		return fault.NotFound
	case status == http.StatusTooManyRequests:
		return fault.TooMany
	case status >= http.StatusInternalServerError, status < http.StatusBadRequest:
		return fault.Unavailable // a redirect leads away from where the owner said
	}
	return fault.SealedInvalid
}

func clip(text string) string {
	text = strings.ToValidUTF8(text, "?")
	if len(text) > maxMessage {
		text = strings.ToValidUTF8(text[:maxMessage], "")
	}
	return text
}

// post makes a request with a body.
func post(ctx context.Context, to, contentType string, body []byte) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		return nil, fault.New(fault.SealedInvalid, err)
	}
	req.Header.Set("Content-Type", contentType)
	return req, nil
}

// decode reads an answer and clears it. Nothing of it is quoted.
func decode(from string, body []byte, v any) error {
	defer clear(body)
	if err := json.Unmarshal(body, v); err != nil {
		return malformed(from)
	}
	return nil
}

func malformed(from string) error {
	return fault.Newf(fault.Unavailable, "%s: the answer is not what the service says", from)
}
