// Package vault talks to a HashiCorp Vault or an OpenBao, and keeps itself
// logged in there.
//
// It is plain HTTP and JSON: the broker needs five calls, and the client
// libraries bring a hundred packages. What the answers mean is left to those
// who call: package transit for the master key, vaultkv for resources, and
// sealed/kms for sealed secrets, which guests open.
//
// A Client is safe for concurrent use. It logs in when first used and whenever
// its token stops working; Keep renews the token while nothing is asked for.
// A server that is sealed, overloaded or on the move is asked a few times more.
// Neither errors nor logs hold a token or a secret.
package vault

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
	"strconv"
	"strings"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/pause"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

var (
	// ErrNotFound says that there is nothing at the path.
	ErrNotFound = errors.New("vault: not found")
	// ErrForbidden says that the login, or what it may do, was refused.
	ErrForbidden = errors.New("vault: permission denied")
	// ErrRefused says that the server did not accept what was sent.
	ErrRefused = errors.New("vault: request refused")
	// ErrLogin says that it happened on the way to a token; another of these
	// errors says what.
	ErrLogin = errors.New("vault: log in")
	// ErrUnavailable says that no answer could be had in time.
	ErrUnavailable = errors.New("vault: not available")
)

// Limits of one call.
const (
	maxAnswer      = 4 << 20 // bytes
	maxMessage     = 200     // bytes of what a server says about an error
	tries          = 4
	firstPause     = 100 * time.Millisecond
	longestPause   = 2 * time.Second
	defaultTimeout = 5 * time.Second // of one try
)

// Config says which server to use, and as whom.
type Config struct {
	Address   string // https://host:port; http only if the caller allows it
	Namespace string
	RootCAs   *x509.CertPool // nil means the system's
	Timeout   time.Duration  // of one try; 0 is 5 s
	Auth      Auth
	Now       func() time.Time
	// Pause waits between two tries; nil: [pause.For].
	Pause func(ctx context.Context, d time.Duration) error
}

// Client is logged in to one server.
type Client struct {
	base      *url.URL
	namespace string
	http      *http.Client
	pause     func(context.Context, time.Duration) error
	login     login
}

// New checks the configuration. It contacts nobody.
func New(c Config) (*Client, error) {
	u, err := url.Parse(c.Address)
	if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
		return nil, errors.New("vault: the address is not https://HOST[:PORT]")
	}
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	if c.Pause == nil {
		c.Pause = pause.For
	}
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: c.Timeout}).DialContext,
		TLSClientConfig:     &tls.Config{RootCAs: c.RootCAs, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout: c.Timeout,
		ForceAttemptHTTP2:   true,
		MaxIdleConnsPerHost: 32,
		IdleConnTimeout:     90 * time.Second,
	}
	return &Client{
		base: u, namespace: c.Namespace, pause: c.Pause,
		login: login{auth: c.Auth, now: c.Now, turn: make(chan struct{}, 1)},
		http: &http.Client{
			Transport: transport, Timeout: c.Timeout,
			// The token must not follow a redirect to a server nobody named.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// Close drops idle connections, and the token if nobody is using it.
func (c *Client) Close() {
	select {
	case c.login.turn <- struct{}{}:
		c.login.held.token.Destroy()
		c.login.held = session{}
		<-c.login.turn
	default:
	}
	c.http.CloseIdleConnections()
}

// Call is one request.
type Call struct {
	Method string
	Path   string // below /v1, segments already escaped
	Query  url.Values
	In     any // JSON body; nil for none
	// Once forbids a second try after an answer got lost: the server may have
	// done what it was asked.
	Once bool
}

// Do sends a call and decodes the answer's "data" into out, unless out is nil.
// Errors wrap one of this package's, or the context's.
func (c *Client) Do(ctx context.Context, call Call, out any) error {
	renewed := false
	return c.retry(ctx, call, func() (answer, error) {
		token, err := c.token(ctx)
		if err != nil {
			return answer{}, final{err}
		}
		defer func() { token.Destroy() }()
		a, err := c.send(ctx, call, token)
		if err == nil && a.status == http.StatusForbidden && !renewed {
			renewed = true // the token may have been revoked or have expired
			c.forget(token)
			token.Destroy()
			if token, err = c.token(ctx); err != nil {
				return answer{}, final{err}
			}
			a, err = c.send(ctx, call, token)
		}
		if err != nil {
			return a, err
		}
		return a, a.decode(out)
	})
}

// final marks an error that another try would not mend.
type final struct{ error }

func (f final) Unwrap() error { return f.error }

// retry tries again what may succeed later.
func (c *Client) retry(ctx context.Context, call Call, try func() (answer, error)) error {
	wait := firstPause
	for n := 1; ; n++ {
		a, err := try()
		if err == nil {
			return nil
		}
		if f, ok := errors.AsType[final](err); ok {
			return f.error
		}
		lost := a.status == 0
		if n == tries || (lost && call.Once) || !(lost || a.temporary()) {
			return err
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
		}
		if perr := c.pause(ctx, min(max(wait, a.retryAfter), longestPause)); perr != nil {
			return fmt.Errorf("%w: %w: %w", ErrUnavailable, perr, err)
		}
		wait *= 2
	}
}

// answer is what came back; its status is 0 if nothing did.
type answer struct {
	status     int
	retryAfter time.Duration
	body       []byte
}

// send makes one try.
func (c *Client) send(ctx context.Context, call Call, token secret.Bytes) (answer, error) {
	var body io.Reader
	if call.In != nil {
		raw, err := json.Marshal(call.In)
		if err != nil {
			return answer{}, final{err}
		}
		defer clear(raw) // it may hold a key
		body = bytes.NewReader(raw)
	}
	u := c.base.JoinPath("v1", call.Path)
	u.RawQuery = call.Query.Encode()
	req, err := http.NewRequestWithContext(ctx, call.Method, u.String(), body)
	if err != nil {
		return answer{}, final{err}
	}
	req.Header.Set("X-Vault-Request", "true")
	if token.Len() > 0 {
		req.Header.Set("X-Vault-Token", string(token.Reveal()))
	}
	if c.namespace != "" {
		req.Header.Set("X-Vault-Namespace", c.namespace)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return answer{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		clear(raw)
		return answer{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if len(raw) > maxAnswer {
		clear(raw)
		return answer{}, final{fmt.Errorf("%w: the answer is larger than %d bytes", ErrUnavailable, maxAnswer)}
	}
	a := answer{status: resp.StatusCode, body: raw}
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 {
		a.retryAfter = time.Duration(s) * time.Second
	}
	return a, nil
}

// temporary reports whether the status is one that passes: too many requests, a
// replica behind or on standby, a server that is sealed or restarts.
func (a answer) temporary() bool {
	switch a.status {
	case http.StatusTooManyRequests, http.StatusPreconditionFailed, 472, 473:
		return true
	}
	return a.status >= http.StatusInternalServerError
}

func (a answer) err() error {
	var kind error
	switch {
	case a.status/100 == 2:
		return nil
	case a.status == http.StatusNotFound:
		kind = ErrNotFound
	case a.status == http.StatusForbidden, a.status == http.StatusUnauthorized:
		kind = ErrForbidden
	case a.temporary(), a.status/100 == 3:
		kind = ErrUnavailable
	default:
		kind = ErrRefused
	}
	var said struct {
		Errors []string `json:"errors"`
	}
	if json.Unmarshal(a.body, &said) != nil || len(said.Errors) == 0 {
		return fmt.Errorf("%w: status %d", kind, a.status)
	}
	text := strings.ToValidUTF8(strings.Join(said.Errors, "; "), "?")
	if len(text) > maxMessage {
		text = strings.ToValidUTF8(text[:maxMessage], "")
	}
	return fmt.Errorf("%w: status %d: %q", kind, a.status, text)
}

// decode reads the answer's data.
func (a answer) decode(out any) error {
	if err := a.err(); err != nil {
		return err
	}
	if out == nil {
		return nil
	}
	defer clear(a.body)
	var envelope struct {
		Data json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(a.body, &envelope); err != nil || len(envelope.Data) == 0 {
		return final{fmt.Errorf("%w: the answer is not what a Vault says", ErrUnavailable)}
	}
	defer clear(envelope.Data)
	if err := json.Unmarshal(envelope.Data, out); err != nil {
		return final{fmt.Errorf("%w: the answer's data is malformed", ErrUnavailable)}
	}
	return nil
}
