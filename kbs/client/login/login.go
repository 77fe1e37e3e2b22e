// Package login gets an administrator a token from an identity provider, for
// programs that run where there is no browser: the OAuth 2.0 device flow (RFC
// 8628), found by OpenID Connect Discovery.
//
// It asks for no refresh token and keeps nothing: whoever wants to go on when
// the token ends logs in again.
package login

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/client/admin"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// Limits of what a provider may answer.
const (
	maxAnswer   = 64 << 10 // bytes
	maxLifetime = time.Hour
	minInterval = time.Second
	interval    = 5 * time.Second // RFC 8628 section 3.2
	maxInterval = time.Minute
)

var (
	// ErrDenied says that the person refused, at the provider.
	ErrDenied = errors.New("the login was denied")
	// ErrExpired says that nobody answered in time.
	ErrExpired = errors.New("the login was not completed in time")
)

// Config says where to log in and as which client.
type Config struct {
	Issuer   string // URL; plain http only for a loopback address
	ClientID string
	Scopes   []string // "openid" is always among them
	// AccessToken takes the access token in the place of the ID token.
	AccessToken bool
	HTTP        *http.Client
	// Prompt shows where a person has to go and what to type there. complete is
	// an address that has the code in it; it may be empty.
	Prompt func(uri, code, complete string)
	// Wait returns after a time, or earlier with the context's error.
	Wait func(ctx context.Context, d time.Duration) error
}

// Token is what a login gives.
type Token struct {
	Text    secret.Bytes
	Expires time.Duration // from now; 0 if the provider does not say
}

// provider is what discovery tells.
type provider struct {
	Issuer string `json:"issuer"`
	Device string `json:"device_authorization_endpoint"`
	Token  string `json:"token_endpoint"`
}

// grant is the answer of the device authorization endpoint.
type grant struct {
	DeviceCode string `json:"device_code"`
	UserCode   string `json:"user_code"`
	URI        string `json:"verification_uri"`
	Complete   string `json:"verification_uri_complete"`
	ExpiresIn  int64  `json:"expires_in"` // seconds
	Interval   int64  `json:"interval"`   // seconds
}

// Device logs in. It returns when the person has, has not, or when ctx ends.
func Device(ctx context.Context, c Config) (Token, error) {
	p, err := discover(ctx, c)
	if err != nil {
		return Token{}, err
	}
	scopes := c.Scopes
	if !slices.Contains(scopes, "openid") {
		scopes = append([]string{"openid"}, scopes...)
	}
	var g grant
	if err := c.post(ctx, p.Device, url.Values{"client_id": {c.ClientID}, "scope": {strings.Join(scopes, " ")}}, &g); err != nil {
		return Token{}, fmt.Errorf("ask for a code: %w", err)
	}
	if g.DeviceCode == "" || g.UserCode == "" || g.ExpiresIn <= 0 {
		return Token{}, errors.New("ask for a code: the provider's answer lacks members")
	}
	for _, u := range []string{g.URI, g.Complete} {
		if err := checkURL(u); u != "" && err != nil {
			return Token{}, fmt.Errorf("ask for a code: %w", err)
		}
	}
	c.Prompt(g.URI, g.UserCode, g.Complete)
	ctx, cancel := context.WithTimeoutCause(ctx, min(time.Duration(g.ExpiresIn)*time.Second, maxLifetime), ErrExpired)
	defer cancel()
	return c.poll(ctx, p, g)
}

// poll asks until the person has decided (RFC 8628 sections 3.4 and 3.5).
func (c Config) poll(ctx context.Context, p provider, g grant) (Token, error) {
	every := interval
	if g.Interval > 0 {
		every = min(max(time.Duration(g.Interval)*time.Second, minInterval), maxInterval)
	}
	form := url.Values{
		"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "device_code": {g.DeviceCode}, "client_id": {c.ClientID},
	}
	for {
		if err := c.Wait(ctx, every); err != nil {
			return Token{}, context.Cause(ctx)
		}
		var answer struct {
			ID        string `json:"id_token"`
			Access    string `json:"access_token"`
			ExpiresIn int64  `json:"expires_in"`
		}
		err := c.post(ctx, p.Token, form, &answer)
		refused, isRefusal := errors.AsType[*refusal](err)
		switch {
		case err == nil:
			text := answer.ID
			if c.AccessToken {
				text = answer.Access
			}
			token, err := admin.ParseToken([]byte(text))
			if err != nil {
				return Token{}, fmt.Errorf("the provider's token: %w", err)
			}
			return Token{token, time.Duration(max(answer.ExpiresIn, 0)) * time.Second}, nil
		case ctx.Err() != nil:
			return Token{}, context.Cause(ctx)
		case !isRefusal:
			return Token{}, fmt.Errorf("ask for the token: %w", err)
		}
		switch refused.Code {
		case "authorization_pending":
		case "slow_down":
			every = min(every+5*time.Second, maxInterval)
		case "access_denied":
			return Token{}, ErrDenied
		case "expired_token":
			return Token{}, ErrExpired
		default:
			return Token{}, fmt.Errorf("ask for the token: %w", err)
		}
	}
}

// discover reads where the provider's endpoints are (OpenID Connect Discovery
// 1.0 section 4). They must be as protected as the issuer.
func discover(ctx context.Context, c Config) (provider, error) {
	if err := checkURL(c.Issuer); err != nil {
		return provider{}, err
	}
	at := strings.TrimSuffix(c.Issuer, "/") + "/.well-known/openid-configuration"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return provider{}, err
	}
	var p provider
	if err := c.do(req, &p); err != nil {
		return p, fmt.Errorf("find the provider: %w", err)
	}
	if strings.TrimSuffix(p.Issuer, "/") != strings.TrimSuffix(c.Issuer, "/") {
		return p, fmt.Errorf("find the provider: %s says that it is %q", c.Issuer, p.Issuer)
	}
	if p.Device == "" {
		return p, fmt.Errorf("find the provider: %s does not offer the device flow", c.Issuer)
	}
	return p, errors.Join(checkURL(p.Device), checkURL(p.Token))
}

// refusal is an error answer of the provider (RFC 6749 section 5.2).
type refusal struct {
	Status      int    `json:"-"`
	Code        string `json:"error"`
	Description string `json:"error_description"`
}

// Error says what the provider said.
func (r *refusal) Error() string {
	return fmt.Sprintf("the provider answered %d %s %s", r.Status, r.Code, r.Description)
}

func (c Config) post(ctx context.Context, uri string, form url.Values, out any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, uri, strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return c.do(req, out)
}

func (c Config) do(req *http.Request, out any) error {
	req.Header.Set("Accept", "application/json")
	resp, err := c.HTTP.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return err
	}
	if len(raw) > maxAnswer {
		return fmt.Errorf("the answer is larger than %d bytes", maxAnswer)
	}
	if resp.StatusCode != http.StatusOK {
		r := &refusal{Status: resp.StatusCode}
		_ = json.Unmarshal(raw, r) // the status says enough
		return r
	}
	return json.Unmarshal(raw, out)
}

// checkURL refuses addresses where others could read or answer.
func checkURL(text string) error {
	u, err := url.Parse(text)
	if err != nil {
		return err
	}
	host := u.Hostname()
	ip, err := netip.ParseAddr(host)
	if local := host == "localhost" || err == nil && ip.IsLoopback(); u.Scheme == "https" && host != "" || u.Scheme == "http" && local {
		return nil
	}
	return fmt.Errorf("%q is not an https address", u.Redacted())
}
