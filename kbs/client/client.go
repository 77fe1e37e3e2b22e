// Package client is the guest's side of the KBS protocol: it proves the guest
// to a key broker and fetches what the broker releases to it. The guest agent
// uses it for its own resources and for what it hands to workloads; it speaks
// to our broker and to any other broker of the field.
//
// One handshake gives one token, which is cached until shortly before it
// expires. Any number of concurrent calls share one handshake. A token that
// the broker no longer takes (status 401) is renewed once for each request; a
// denial (403) or an absent resource (404) never costs another attestation.
//
// The guest's key pair is made for each token, stays in this package and dies
// with the token. What workloads are given is a token of another key pair
// ([Client.WorkloadToken]), whose private half is thrown away; only
// [Client.TokenWithKey] hands one out, and that one is used for nothing else.
//
// Whatever the broker answers is foreign: sizes are limited, redirects are not
// followed, and of an error only a known code and a well-formed ticket become
// public. A [Client] is safe for concurrent use.
package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/jwe"
	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/pause"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// ErrUnsupported means that the broker does not offer what was asked of it,
// for example our /v1 API at another implementation of the protocol.
var ErrUnsupported = errors.New("client: the broker does not offer this")

const (
	requestTimeout = 60 * time.Second // one HTTP exchange, body included (guest-protocol 7.2)
	maxAnswer      = 4 << 20          // bytes of a response body
	maxAnswerHead  = 64 << 10         // bytes of response headers
	userAgent      = "vouchsafe-kbs-client"
)

// Config says where the broker is and who asks.
type Config struct {
	// URL of the broker, for example "https://kbs.example:8080". A path is
	// kept as a prefix.
	URL string
	// RootCAs are the roots that the broker's certificate may end in; nil
	// means those of the system.
	RootCAs *x509.CertPool
	// UnsafePlainHTTP allows an http:// URL. Released secrets are encrypted to
	// the guest all the same, but anyone on the way can read the token and the
	// names of resources, and can answer in the broker's place.
	UnsafePlainHTTP bool
	// Attester obtains the evidence. Required.
	Attester measure.Attester
	// Devices obtain the evidence of what is attached to the guest, each of
	// another platform. The broker verifies all of it, or gives no token.
	Devices []measure.Attester
	// PolicySelector asks for one of the attestation policies that the broker
	// offers by name; "" means its default.
	PolicySelector string
	// InitData is presented with the evidence; nil if the guest has none.
	InitData *api.InitData
	// KeyAlgorithm of the guest's key pairs, as guests configure it:
	// "ECDH-ES+A256KW-P256" (also the meaning of ""), "-P384" or "-P521",
	// "RSA-OAEP-256", or "ML-KEM-768+A192KW".
	KeyAlgorithm string
	// PostQuantum makes the key pairs a hybrid of X25519 and ML-KEM-768, so
	// that what the broker sends stays closed to who records it and waits for
	// a quantum computer. Only our broker has it, and there is no fallback: a
	// fallback could be forced. KeyAlgorithm must be "".
	PostQuantum bool
	// Logger gets events without secrets and without names of resources; nil
	// discards them.
	Logger *slog.Logger
	// Now is the clock that token expiry is judged by; nil is time.Now.
	Now func() time.Time
	// Dial opens the connections, for a guest whose way to the broker is not
	// the default route; nil is an ordinary dialer. TLS comes on top.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// A Client talks to one broker on behalf of one guest.
type Client struct {
	base         string // URL without trailing slash
	http         *http.Client
	attester     measure.Attester
	devices      []measure.Attester
	selector     string
	initData     *api.InitData
	keyAlgorithm string
	log          *slog.Logger
	now          func() time.Time
	wait         func(context.Context, time.Duration) error // between attempts

	own        sessions
	lent       sessions // for workloads; without keys
	handshakes atomic.Int64
}

// New checks the configuration and returns a client. It does not connect.
func New(cfg Config) (*Client, error) {
	base, err := baseURL(cfg)
	if err != nil {
		return nil, err
	}
	if cfg.Attester == nil {
		return nil, errors.New("client: no attester is configured")
	}
	if cfg.InitData != nil && (!utf8.ValidString(cfg.InitData.Body) || !utf8.ValidString(cfg.InitData.Format)) {
		return nil, errors.New("client: the init-data is not UTF-8")
	}
	algorithm, err := keyAlgorithm(cfg)
	if err != nil {
		return nil, err
	}
	if err := checkDevices(cfg); err != nil {
		return nil, err
	}
	c := &Client{
		base:         base,
		http:         newHTTPClient(cfg),
		attester:     cfg.Attester,
		devices:      cfg.Devices,
		selector:     cfg.PolicySelector,
		initData:     cfg.InitData,
		keyAlgorithm: algorithm,
		log:          cfg.Logger,
		now:          cfg.Now,
		wait:         pause.For,
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if c.now == nil {
		c.now = time.Now
	}
	c.own.now, c.own.open = c.now, c.handshake
	c.lent.now, c.lent.open = c.now, c.lend
	if strings.HasPrefix(base, "http:") {
		c.log.Warn("the broker is reached without TLS", slog.String("url", base))
	}
	return c, nil
}

func keyAlgorithm(cfg Config) (string, error) {
	if cfg.PostQuantum && cfg.KeyAlgorithm != "" {
		return "", errors.New("client: PostQuantum and KeyAlgorithm exclude each other")
	}
	if cfg.PostQuantum {
		return jwe.KeyHybrid, nil
	}
	if !jwe.KnownKey(cfg.KeyAlgorithm) {
		return "", fmt.Errorf("client: key algorithm %q is not supported", cfg.KeyAlgorithm)
	}
	return cfg.KeyAlgorithm, nil
}

// checkDevices refuses two attesters of one platform: evidence is named by it.
func checkDevices(cfg Config) error {
	seen := map[measure.Platform]bool{cfg.Attester.Platform(): true}
	for _, d := range cfg.Devices {
		if seen[d.Platform()] {
			return fmt.Errorf("client: two attesters of platform %s", d.Platform())
		}
		seen[d.Platform()] = true
	}
	return nil
}

func baseURL(cfg Config) (string, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil {
		return "", fmt.Errorf("client: broker URL: %w", err)
	}
	switch {
	case u.Scheme == "http" && !cfg.UnsafePlainHTTP:
		return "", errors.New("client: the broker URL is http:// and plain HTTP was not allowed (UnsafePlainHTTP)")
	case u.Scheme != "https" && u.Scheme != "http":
		return "", errors.New("client: the broker URL must start with https://")
	case u.Host == "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return "", errors.New("client: the broker URL needs a host and has no user, query or fragment")
	}
	return strings.TrimRight(u.String(), "/"), nil
}

func newHTTPClient(cfg Config) *http.Client {
	return &http.Client{
		Timeout: requestTimeout,
		// The broker is who the configuration says, not who an answer says.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            cfg.Dial,
			TLSClientConfig:        &tls.Config{RootCAs: cfg.RootCAs, MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2:      true,
			DisableCompression:     true, // the size limit counts what is read
			MaxResponseHeaderBytes: maxAnswerHead,
			MaxIdleConnsPerHost:    8,
			IdleConnTimeout:        90 * time.Second,
			TLSHandshakeTimeout:    20 * time.Second,
		},
	}
}

// Close drops idle connections. The client may still be used.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Handshakes returns how many handshakes were begun, whatever became of them.
func (c *Client) Handshakes() int64 { return c.handshakes.Load() }

// Token is an attestation token.
type Token struct {
	JWT     secret.Bytes
	Expires time.Time // the token's exp claim; the guest does not verify the token
}

// Token returns the attestation token that this client uses itself, from the
// cache or by a handshake. The copy is the caller's.
func (c *Client) Token(ctx context.Context) (Token, error) {
	s, err := c.own.get(ctx, nil)
	if err != nil {
		return Token{}, err
	}
	return Token{JWT: secret.Copy(s.token.Reveal()), Expires: s.expires}, nil
}

// WorkloadToken returns an attestation token for a workload to show to others:
// JSON {"token":JWT}. It is cached like the client's own, and is not that one,
// so that nobody else can ask in the client's name. What a broker would answer
// to it cannot be opened by anyone: its key is gone.
func (c *Client) WorkloadToken(ctx context.Context) (secret.Bytes, error) {
	s, err := c.lent.get(ctx, nil)
	if err != nil {
		return secret.Bytes{}, err
	}
	return tokenJSON(s.token, secret.Bytes{})
}

func (c *Client) lend(ctx context.Context) (*session, error) {
	s, err := c.handshake(ctx)
	if err == nil {
		s.key = nil
	}
	return s, err
}

// Renew attests anew if this client has attested before, and puts the new token
// in the place of those that it has.
func (c *Client) Renew(ctx context.Context) error {
	before := c.own.peek()
	if before == nil {
		return nil
	}
	_, err := c.own.get(ctx, before)
	return err
}

// Forget drops the tokens and their keys. The next call attests.
func (c *Client) Forget() {
	c.own.forget()
	c.lent.forget()
}

// TokenWithKey makes a handshake with a fresh key pair and returns both, for a
// workload that fetches and opens resources by itself: JSON
// {"token":JWT,"tee_keypair":PEM} (guest-protocol 7.1). Nothing of it is
// cached, so that the key pair this client works with is never shared.
func (c *Client) TokenWithKey(ctx context.Context) (secret.Bytes, error) {
	s, err := c.handshake(ctx)
	if err != nil {
		return secret.Bytes{}, err
	}
	key, err := s.key.PEM()
	if errors.Is(err, jwe.ErrNoPEM) {
		return secret.Bytes{}, fault.New(fault.InvalidRequest, err)
	}
	if err != nil {
		return secret.Bytes{}, fault.New(fault.Internal, err)
	}
	defer key.Destroy()
	return tokenJSON(s.token, key)
}

// tokenJSON writes the answer of guest-protocol 7.1, without a key pair if there
// is none.
func tokenJSON(token, key secret.Bytes) (secret.Bytes, error) {
	answer := struct {
		Token      string `json:"token"`
		TEEKeypair string `json:"tee_keypair,omitempty"`
	}{Token: string(token.Reveal())}
	if key.Len() > 0 {
		answer.TEEKeypair = string(key.Reveal())
	}
	text, err := json.Marshal(answer)
	if err != nil {
		return secret.Bytes{}, fault.New(fault.Internal, err)
	}
	return secret.New(text), nil
}
