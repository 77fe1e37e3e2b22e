// Package admin is the typed client of the broker's /v1 API: policies,
// reference values, resources, tickets and the audit log, for people and
// programs that hold an administrator's credential. kbsctl is built on it; it
// has no server dependencies.
//
// It cannot read a resource's value, because the API has no way to ask for one.
// A [Client] is safe for concurrent use.
package admin

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
	"net/netip"
	"net/url"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

const (
	defaultTimeout = 30 * time.Second
	maxAnswer      = 32 << 20 // bytes of any answer
	maxProblem     = 64 << 10 // bytes of an error answer
)

// Config says which broker to talk to and as whom.
type Config struct {
	// URL of the broker, such as https://kbs.example:8081. Plain http is
	// accepted only for a loopback address, because the credential travels
	// with every request.
	URL string
	// TokenFile holds the bearer token. It is read for every request, so a
	// rotated token is used at once. A file that the group or others can read
	// is refused.
	TokenFile string
	// Token gives the bearer token for each request, in the place of a file.
	Token func(ctx context.Context) (secret.Bytes, error)
	// Tenant of the broker; "" is the one that the address means by itself.
	Tenant string
	// RootCAs verifies the broker's certificate; nil means the system's roots.
	RootCAs *x509.CertPool
	// Timeout of one request with its answer; 0 means 30 s.
	Timeout time.Duration
}

// Client talks to one broker.
type Client struct {
	base  *url.URL
	token func(context.Context) (secret.Bytes, error)
	http  *http.Client
}

// New returns a client. It does not contact the broker and does not read the
// token yet.
func New(c Config) (*Client, error) {
	base, err := parseBase(c.URL)
	if err != nil {
		return nil, err
	}
	if c.Token == nil {
		if c.TokenFile == "" {
			return nil, ErrNoToken
		}
		c.Token = func(context.Context) (secret.Bytes, error) { return ReadToken(c.TokenFile) }
	}
	if c.Tenant != "" {
		base = base.JoinPath(api.PathTenant, url.PathEscape(c.Tenant))
	}
	timeout := c.Timeout
	if timeout == 0 {
		timeout = defaultTimeout
	}
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSClientConfig:     &tls.Config{RootCAs: c.RootCAs, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout: 10 * time.Second,
		ForceAttemptHTTP2:   true,
		MaxIdleConns:        4,
		IdleConnTimeout:     30 * time.Second,
	}
	return &Client{
		base:  base,
		token: c.Token,
		http: &http.Client{
			Transport: transport,
			Timeout:   timeout,
			// A redirect would carry the credential to a place that nobody
			// configured; the 3xx is reported instead.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func parseBase(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		if _, _, split := net.SplitHostPort(s); split == nil {
			return nil, fmt.Errorf("server address %q: want https://%s", s, s)
		}
		return nil, fmt.Errorf("server address: %w", err)
	}
	if u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("server address %q: want https://HOST[:PORT]", u.Redacted())
	}
	switch {
	case u.Scheme == "https":
	case u.Scheme == "http" && loopback(u.Hostname()):
	case u.Scheme == "http":
		return nil, fmt.Errorf("server address %q: plain http would show the credential to the network; use https", u.Redacted())
	default:
		return nil, fmt.Errorf("server address %q: want https://HOST[:PORT]", u.Redacted())
	}
	return u, nil
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// call is one request. Segments are escaped one by one, so that a name can
// never climb out of its collection.
type call struct {
	method   string
	root     string
	segments []string
	query    url.Values
	body     []byte
	mime     string
	header   http.Header
}

// do sends the call and returns the whole body of a 2xx answer.
func (c *Client) do(ctx context.Context, r call) ([]byte, error) {
	req, err := c.request(ctx, r)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, unreachable(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode/100 != 2 {
		return nil, refusal(resp)
	}
	body, err := readAtMost(resp.Body, maxAnswer)
	if err != nil {
		return nil, unreachable(ctx, err)
	}
	if resp.StatusCode == http.StatusAccepted {
		return nil, waits(body)
	}
	return body, nil
}

func (c *Client) request(ctx context.Context, r call) (*http.Request, error) {
	u := c.base.JoinPath(r.root)
	for _, s := range r.segments {
		if s == "" || s == "." || s == ".." {
			return nil, fault.Newf(fault.InvalidRequest, "%q cannot be part of a name", s)
		}
		u = u.JoinPath(url.PathEscape(s))
	}
	u.RawQuery = r.query.Encode()
	var body io.Reader
	if r.body != nil {
		body = bytes.NewReader(r.body)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, u.String(), body)
	if err != nil {
		return nil, err
	}
	token, err := c.token(ctx)
	if err != nil {
		return nil, err
	}
	for k, v := range r.header {
		req.Header[k] = v
	}
	req.Header.Set("Authorization", "Bearer "+string(token.Reveal()))
	req.Header.Set("Accept", "application/json, application/problem+json, text/plain")
	if r.mime != "" {
		req.Header.Set("Content-Type", r.mime)
	}
	return req, nil
}

// doJSON sends in (unless nil) as JSON and decodes the answer into out (unless
// nil). Members that this version does not know are ignored, so that an older
// client can talk to a newer broker.
func (c *Client) doJSON(ctx context.Context, r call, in, out any) error {
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		r.body, r.mime = b, "application/json"
	}
	b, err := c.do(ctx, r)
	if err != nil || out == nil {
		return err
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fault.Newf(fault.Unavailable, "the answer to %s %s is not what this client expects: %w", r.method, r.root, err)
	}
	return nil
}

func readAtMost(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("the answer is larger than %d bytes", limit)
	}
	return b, nil
}

// unreachable classifies an error of the transport. The caller's own
// cancellation stays recognisable.
func unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	return fault.New(fault.Unavailable, err)
}

// A Problem is what the broker answered instead of a result. It is the private
// cause of the *fault.Fault that every method returns for such an answer: an
// administrator may see it, nobody else.
type Problem struct{ api.Problem }

// Error returns the detail, or the title where there is none.
func (p *Problem) Error() string {
	if p.Detail != "" {
		return p.Detail
	}
	if p.Title != "" {
		return p.Title
	}
	return fmt.Sprintf("the broker answered HTTP status %d", p.Status)
}

// refusal turns an answer outside 2xx into a fault. What the body says counts
// only as far as it is well formed: an unknown code is replaced by that of the
// HTTP status.
func refusal(resp *http.Response) error {
	p := &Problem{}
	if b, err := readAtMost(resp.Body, maxProblem); err == nil {
		_ = json.Unmarshal(b, &p.Problem)
	}
	p.Status = resp.StatusCode
	code := fault.Code(p.Code)
	if !code.Known() {
		code = fault.OfStatus(resp.StatusCode)
	}
	f := fault.New(code, p)
	if t, err := fault.ParseTicket(p.Ticket); err == nil {
		f = f.With(t)
	}
	return f
}
