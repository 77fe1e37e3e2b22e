package login_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/client/login"
)

// idp is a provider that answers the token endpoint from a script: an error
// code, or "ok".
type idp struct {
	*httptest.Server
	answers []string
	asked   int
	config  map[string]any // changes of the discovery document
	grant   map[string]any // changes of the grant
	scope   string
	hold    bool
}

func newIDP(t *testing.T, answers ...string) *idp {
	t.Helper()
	p := &idp{answers: answers}
	mux := http.NewServeMux()
	send := func(w http.ResponseWriter, status int, v, change map[string]any) {
		for k, x := range change {
			v[k] = x
		}
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(v)
	}
	mux.HandleFunc("GET /realm/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		send(w, 200, map[string]any{"issuer": p.URL + "/realm", "device_authorization_endpoint": p.URL + "/device", "token_endpoint": p.URL + "/token"}, p.config)
	})
	mux.HandleFunc("POST /device", func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("client_id") != "kbsctl" {
			send(w, 401, map[string]any{"error": "invalid_client"}, nil)
			return
		}
		p.scope = r.FormValue("scope")
		send(w, 200, map[string]any{"device_code": "dc", "user_code": "AB-CD", "verification_uri": p.URL + "/go", "verification_uri_complete": p.URL + "/go?c", "expires_in": 600, "interval": 2}, p.grant)
	})
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		what := "authorization_pending"
		if p.asked < len(p.answers) {
			what = p.answers[p.asked]
		}
		p.asked++
		switch {
		case r.FormValue("device_code") != "dc" || r.FormValue("grant_type") != "urn:ietf:params:oauth:grant-type:device_code" || r.FormValue("client_id") != "kbsctl":
			send(w, 400, map[string]any{"error": "invalid_request"}, nil)
		case what == "ok":
			send(w, 200, map[string]any{"id_token": "a.b.c", "access_token": "x.y.z", "expires_in": 300}, nil)
		case what == "bad token":
			send(w, 200, map[string]any{"id_token": "a b\n"}, nil)
		case what == "garbage":
			_, _ = w.Write([]byte("<html>"))
		case what == "huge":
			_, _ = w.Write([]byte(strings.Repeat("x", 1<<20)))
		default:
			send(w, 400, map[string]any{"error": what}, nil)
		}
	})
	p.Server = httptest.NewTLSServer(mux)
	t.Cleanup(p.Close)
	return p
}

func (p *idp) login(ctx context.Context, change func(*login.Config)) (login.Token, []string, []time.Duration, error) {
	var shown []string
	var waited []time.Duration
	c := login.Config{
		Issuer: p.URL + "/realm", ClientID: "kbsctl", Scopes: []string{"groups"}, HTTP: p.Client(),
		Prompt: func(uri, code, complete string) { shown = append(shown, uri, code, complete) },
		Wait: func(ctx context.Context, d time.Duration) error {
			waited = append(waited, d)
			if p.hold {
				<-ctx.Done()
			}
			return ctx.Err()
		},
	}
	if change != nil {
		change(&c)
	}
	t, err := login.Device(ctx, c)
	return t, shown, waited, err
}

func TestDevice(t *testing.T) {
	p := newIDP(t, "authorization_pending", "slow_down", "authorization_pending", "ok")
	token, shown, waited, err := p.login(t.Context(), nil)
	if err != nil || string(token.Text.Reveal()) != "a.b.c" || token.Expires != 5*time.Minute {
		t.Fatalf("%v: %v", token, err)
	}
	if fmt.Sprint(shown) != fmt.Sprint([]string{p.URL + "/go", "AB-CD", p.URL + "/go?c"}) || p.scope != "openid groups" {
		t.Errorf("shown %v, scope %q", shown, p.scope)
	}
	if fmt.Sprint(waited) != "[2s 2s 7s 7s]" {
		t.Errorf("waited %v", waited)
	}
	p = newIDP(t, "ok")
	if token, _, _, err := p.login(t.Context(), func(c *login.Config) { c.AccessToken = true }); err != nil || string(token.Text.Reveal()) != "x.y.z" {
		t.Errorf("access token: %v", err)
	}
}

func TestDeviceRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		answers       []string
		config, grant map[string]any
		change        func(*login.Config)
		want          error
		text          string
	}{
		"denied":              {answers: []string{"authorization_pending", "access_denied"}, want: login.ErrDenied},
		"expired":             {answers: []string{"expired_token"}, want: login.ErrExpired},
		"another error":       {answers: []string{"invalid_grant"}, text: "invalid_grant"},
		"another client":      {change: func(c *login.Config) { c.ClientID = "x" }, text: "invalid_client"},
		"bad token":           {answers: []string{"bad token"}, text: "one bearer token"},
		"garbage":             {answers: []string{"garbage"}, text: "ask for the token"},
		"huge":                {answers: []string{"huge"}, text: "larger than"},
		"another issuer":      {config: map[string]any{"issuer": "https://evil.example"}, text: "evil.example"},
		"no device flow":      {config: map[string]any{"device_authorization_endpoint": ""}, text: "device flow"},
		"unprotected tokens":  {config: map[string]any{"token_endpoint": "http://idp.example/token"}, text: "not an https address"},
		"unprotected page":    {grant: map[string]any{"verification_uri": "http://idp.example/go"}, text: "not an https address"},
		"a page that is code": {grant: map[string]any{"verification_uri": "javascript:alert(1)"}, text: "not an https address"},
		"no code":             {grant: map[string]any{"user_code": ""}, text: "lacks members"},
		"no end":              {grant: map[string]any{"expires_in": 0}, text: "lacks members"},
		"plain http":          {change: func(c *login.Config) { c.Issuer = "http://idp.example" }, text: "not an https address"},
		"no provider":         {change: func(c *login.Config) { c.Issuer += "/none" }, text: "404"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newIDP(t, c.answers...)
			p.config, p.grant = c.config, c.grant
			_, _, _, err := p.login(t.Context(), c.change)
			if err == nil || (c.want != nil && !errors.Is(err, c.want)) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// It ends when the code does, or when the caller does not want any more.
func TestDeviceEnds(t *testing.T) {
	p := newIDP(t)
	p.hold = true
	p.grant = map[string]any{"expires_in": 1}
	if _, _, _, err := p.login(t.Context(), nil); !errors.Is(err, login.ErrExpired) {
		t.Errorf("the code ended: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	p.grant = nil
	_, _, _, err := p.login(ctx, func(c *login.Config) {
		c.Prompt = func(string, string, string) { cancel() }
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the caller went away: %v", err)
	}
}
