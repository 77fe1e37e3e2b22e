package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
)

// idp is an identity provider with the device flow. Whoever asks is logged in
// at the second question, as who the script says.
type idp struct {
	*httptest.Server
	signer jose.Signer
	public jose.JSONWebKey

	mu     sync.Mutex
	sub    string
	groups []string
	life   time.Duration
	asked  int
}

func newIDP() (*idp, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	p := &idp{public: jose.JSONWebKey{Key: key.Public(), KeyID: "1", Algorithm: "ES256", Use: "sig"}}
	if p.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: "1"}}, nil); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]any{
			"issuer": p.URL, "jwks_uri": p.URL + "/keys", "device_authorization_endpoint": p.URL + "/device", "token_endpoint": p.URL + "/token",
		})
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{p.public}})
	})
	mux.HandleFunc("POST /device", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]any{
			"device_code": "dc", "user_code": "WDJB-MJHT", "verification_uri": p.URL + "/go", "expires_in": 60, "interval": 1,
		})
	})
	mux.HandleFunc("POST /token", p.token)
	p.Server = httptest.NewServer(mux)
	return p, nil
}

func answer(w http.ResponseWriter, status int, v any) {
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func (p *idp) token(w http.ResponseWriter, _ *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.asked++; p.asked%2 == 1 {
		answer(w, http.StatusBadRequest, map[string]any{"error": "authorization_pending"})
		return
	}
	if p.sub == "" {
		answer(w, http.StatusBadRequest, map[string]any{"error": "access_denied"})
		return
	}
	text, err := p.sign()
	if err != nil {
		answer(w, http.StatusInternalServerError, nil)
		return
	}
	answer(w, http.StatusOK, map[string]any{"id_token": text, "expires_in": int(p.life.Seconds())})
}

func (p *idp) sign() (string, error) {
	now := time.Now()
	raw, err := json.Marshal(map[string]any{
		"iss": p.URL, "aud": "kbsctl", "sub": p.sub, "groups": p.groups, "jti": "jti-" + p.sub, "iat": now.Unix(), "exp": now.Add(p.life).Unix(),
	})
	if err != nil {
		return "", err
	}
	jws, err := p.signer.Sign(raw)
	if err != nil {
		return "", err
	}
	return jws.CompactSerialize()
}

// idp VAR starts an identity provider, sets VAR to its address, and lets the
// broker accept its tokens: the group owners owns the broker, the groups
// approvers-T approve for the tenant T.
func cmdIDP(ts *testscript.TestScript, _ bool, args []string) {
	p, err := newIDP()
	ts.Check(err)
	ts.Defer(p.Close)
	ts.Setenv(args[0], p.URL)
	b := brokerOf(ts)
	b.configure = func(c *config.Config) {
		c.Admin.Authentication.BearerJWT.IdentityProviders = []config.IdentityProvider{{Issuer: p.URL, Audience: "kbsctl", JWKSetURI: p.URL}}
		c.Admin.Roles = []config.AdminRole{{Claim: "groups", Value: "owners", Role: "owner", Tenants: []string{"*"}}}
		for _, t := range []string{"default", "team-a"} {
			c.Admin.Roles = append(c.Admin.Roles, config.AdminRole{Claim: "groups", Value: "approvers-" + t, Role: "approver", Tenants: []string{t}})
		}
	}
	ts.Check(b.broker.Close())
	ts.Check(b.open())
	b.idp = p
}

// person SUB LIFETIME GROUP... is who logs in next; without any, nobody may.
func cmdPerson(ts *testscript.TestScript, _ bool, args []string) {
	p := brokerOf(ts).idp
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sub, p.groups, p.life = "", nil, 0
	if len(args) > 0 {
		var err error
		p.life, err = time.ParseDuration(args[1])
		ts.Check(err)
		p.sub, p.groups = args[0], args[2:]
	}
}

// plugin FILE SUB LIFETIME GROUP... writes what a credential plugin prints.
func cmdPlugin(ts *testscript.TestScript, _ bool, args []string) {
	cmdPerson(ts, false, args[1:])
	p := brokerOf(ts).idp
	p.mu.Lock()
	defer p.mu.Unlock()
	text, err := p.sign()
	ts.Check(err)
	raw, err := json.Marshal(map[string]any{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": map[string]string{"token": text}})
	ts.Check(err)
	ts.Check(writeFile(ts.MkAbs(args[0]), strings.ReplaceAll(string(raw), "\n", "")))
}
