// Package passport obtains attestation tokens from an Attestation Service of the
// field over its REST form (guest-protocol 7.6, kbs-protocol 11.2): what the
// field calls a token of type coco_as.
//
// The service gives no challenge, and the evidence is over nothing: such a token
// says what the guest is and not that it was asked just now. Whoever wants to
// know that asks for evidence over a nonce of its own.
package passport

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

const (
	requestTimeout = 60 * time.Second
	maxToken       = 512 << 10 // bytes, as of the broker's tokens
)

// jwtForm is that of a compact JWS (RFC 7515, section 7.1).
var jwtForm = regexp.MustCompile(`^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*$`)

// Config says where the service is and who asks.
type Config struct {
	// URL of the service, for example "https://as.example:8000".
	URL string
	// RootCAs are the roots that its certificate may end in; nil means those of
	// the system.
	RootCAs *x509.CertPool
	// UnsafePlainHTTP allows an http:// URL: anyone on the way can read the
	// evidence and the token, and answer in the service's place.
	UnsafePlainHTTP bool
	// Attester obtains the evidence.
	Attester measure.Attester
}

// Source gets tokens. It is safe for concurrent use.
type Source struct {
	url      string
	http     *http.Client
	attester measure.Attester
}

// New checks the configuration. It does not connect.
func New(cfg Config) (*Source, error) {
	u, err := url.Parse(cfg.URL)
	switch {
	case err != nil:
		return nil, fmt.Errorf("attestation service: %w", err)
	case cfg.Attester == nil:
		return nil, errors.New("attestation service: no attester is configured")
	case u.Scheme == "http" && !cfg.UnsafePlainHTTP:
		return nil, errors.New("attestation service: the URL is http:// and plain HTTP was not allowed")
	case u.Scheme != "https" && u.Scheme != "http", u.Host == "", u.User != nil, u.RawQuery != "", u.Fragment != "":
		return nil, errors.New("attestation service: want a URL of the form https://host[:port][/path]")
	}
	return &Source{
		url:      strings.TrimRight(cfg.URL, "/") + "/attestation",
		attester: cfg.Attester,
		http: &http.Client{
			Timeout:       requestTimeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Transport: &http.Transport{
				Proxy:                  http.ProxyFromEnvironment,
				TLSClientConfig:        &tls.Config{RootCAs: cfg.RootCAs, MinVersion: tls.VersionTLS12},
				DisableCompression:     true, // the size limit counts what is read
				MaxResponseHeaderBytes: 64 << 10,
				MaxIdleConnsPerHost:    2,
				IdleConnTimeout:        90 * time.Second,
				TLSHandshakeTimeout:    20 * time.Second,
			},
		},
	}, nil
}

// request is the body of POST /attestation.
type request struct {
	Requests  []verification `json:"verification_requests"`
	PolicyIDs []string       `json:"policy_ids"` // the key is required
}

type verification struct {
	TEE      string `json:"tee"`
	Evidence string `json:"evidence"` // base64url of JSON
}

// Token attests and returns the service's token as it is. Errors are
// *fault.Fault.
func (s *Source) Token(ctx context.Context) (secret.Bytes, error) {
	ev, err := measure.EvidenceOver(ctx, s.attester, nil)
	if err != nil {
		return secret.Bytes{}, fault.New(fault.Internal, fmt.Errorf("obtain evidence: %w", err))
	}
	body, err := json.Marshal(request{
		Requests:  []verification{{TEE: string(ev.Platform), Evidence: base64.RawURLEncoding.EncodeToString(ev.Data)}},
		PolicyIDs: []string{},
	})
	if err != nil {
		return secret.Bytes{}, fault.New(fault.Internal, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		return secret.Bytes{}, fault.New(fault.Internal, err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.http.Do(req)
	if err != nil {
		return secret.Bytes{}, fault.New(fault.Unavailable, fmt.Errorf("ask the attestation service: %w", err))
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxToken+1))
	if err != nil {
		return secret.Bytes{}, fault.New(fault.Unavailable, fmt.Errorf("read the attestation service's answer: %w", err))
	}
	if resp.StatusCode != http.StatusOK {
		return secret.Bytes{}, fault.Newf(fault.OfStatus(resp.StatusCode), "the attestation service answered %d: %.512q", resp.StatusCode, text)
	}
	if len(text) > maxToken || !jwtForm.Match(text) {
		return secret.Bytes{}, fault.Newf(fault.Internal, "the attestation service's answer is no token")
	}
	return secret.New(text), nil
}
