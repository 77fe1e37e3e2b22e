package server_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
)

// restart opens the stage's broker again with another configuration.
func (s *stage) restart(change func(*config.Config)) {
	s.t.Helper()
	s.stop()
	change(&s.cfg)
	s.start()
}

// fieldAdmin signs tokens as the field's test scripts do (kbs-protocol 6).
func fieldAdmin(t *testing.T) (uri string, sign func(claims map[string]any) string) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	uri = filepath.Join(t.TempDir(), "public.pub")
	if err := os.WriteFile(uri, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: private}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		t.Fatal(err)
	}
	return uri, func(claims map[string]any) string {
		raw, err := json.Marshal(claims)
		if err != nil {
			t.Fatal(err)
		}
		jws, err := signer.Sign(raw)
		if err != nil {
			t.Fatal(err)
		}
		text, err := jws.CompactSerialize()
		if err != nil {
			t.Fatal(err)
		}
		return "Authorization: Bearer " + text
	}
}

// The field's access list and its tokens, as they are, on both listeners; the
// words that its tests look for (kbs-protocol 2.4); and no way beyond it.
func TestFieldAccessList(t *testing.T) {
	s := newStage(t)
	uri, sign := fieldAdmin(t)
	s.restart(func(c *config.Config) {
		c.Admin.AuthorizationMode = "AuthenticatedAuthorization"
		c.Admin.Authentication.BearerJWT.IdentityProviders = []config.IdentityProvider{{Issuer: "TrusteeInDocker", Audience: "KBS", PublicKeyURI: uri}}
		c.Admin.Authorization.RegexACL.ACLs = []config.AdminACL{
			{Role: "admin", AllowedEndpoints: "^/kbs/v0/.*$"},
			{Role: "secrets", AllowedEndpoints: "^/kbs/v0/resource/teamA/.*$"},
			{Role: "reader", AllowedEndpoints: "^/kbs/v0/.*$", Methods: []string{"GET"}},
		}
	})
	now := s.clock.now()
	token := func(role string, life time.Duration) string {
		return sign(map[string]any{"iss": "TrusteeInDocker", "role": role, "aud": []string{"KBS"}, "iat": now.Unix(), "exp": now.Add(life).Unix()})
	}
	for name, c := range map[string]struct {
		token, method, path string
		status              int
		text                string
	}{
		"admin":             {token("admin", time.Hour), "POST", "/resource/x/y/z", 200, ""},
		"admin, policy":     {token("admin", time.Hour), "GET", "/resource-policy", 200, ""},
		"secrets, own":      {token("secrets", time.Hour), "POST", "/resource/teamA/y/z", 200, ""},
		"secrets, other":    {token("secrets", time.Hour), "POST", "/resource/teamB/y/z", 403, "admin access denied for endpoint resource: Role secrets not allowed for path"},
		"secrets, by query": {token("secrets", time.Hour), "POST", "/resource/teamB/y/z?/kbs/v0/resource/teamA/x", 403, "not allowed for path"},
		"secrets, climbing": {token("secrets", time.Hour), "POST", "/resource/teamA/../teamB/y", 400, ""},
		"reader reads":      {token("reader", time.Hour), "GET", "/resource-policy", 200, ""},
		"reader writes":     {token("reader", time.Hour), "POST", "/resource/x/y/z", 403, "Role reader not allowed for path"},
		"ten years":         {token("admin", 87600*time.Hour), "POST", "/resource/x/y/z", 401, "Cannot verify token with any of the issuers: the token lives longer"},
		"another issuer":    {sign(map[string]any{"iss": "x", "role": "admin", "aud": "KBS", "iat": now.Unix(), "exp": now.Add(time.Hour).Unix()}), "POST", "/resource/x/y/z", 401, "admin access denied for endpoint resource: Cannot verify token with any of the issuers"},
		"nobody":            {"X-None: 1", "POST", "/resource-policy", 401, "admin access denied for endpoint resource-policy: Cannot verify token with any of the issuers"},
	} {
		for _, base := range []string{s.guestURL, s.adminURL} {
			got := s.raw(c.method, base, api.PathPrefix+c.path, "", c.token)
			if got.status != c.status || !strings.Contains(string(got.body), c.text) {
				t.Errorf("%s: %d %s", name, got.status, got.body)
			}
		}
	}
	for _, path := range []string{api.PathPolicies, api.PathTenants, api.PathAudit + "/entries"} {
		if got := s.send("GET", s.adminURL+path, nil, token("admin", time.Hour)); got.status != http.StatusForbidden {
			t.Errorf("%s by the access list: %d %s", path, got.status, got.body)
		}
	}
	if got := s.send("GET", s.adminURL+api.PathTenant+"default"+api.PathResourcePolicy, nil, token("admin", time.Hour)); got.status != http.StatusOK {
		t.Errorf("the default tenant by its name: %d %s", got.status, got.body)
	}
	a := s.in("a")
	if got := s.send("GET", a.adminURL+api.PathResourcePolicy, nil, token("admin", time.Hour)); got.status != http.StatusUnauthorized {
		t.Errorf("another tenant: %d %s", got.status, got.body)
	}
}

func TestAuthorizationModes(t *testing.T) {
	s := newStage(t)
	s.restart(func(c *config.Config) { c.Admin.AuthorizationMode = "DenyAll" })
	for _, header := range []string{"X-None: 1", "Authorization: Bearer " + s.adminToken} {
		got := s.send("GET", s.adminURL+api.PathResourcePolicy, nil, header)
		if got.status != http.StatusForbidden || !strings.Contains(got.info(t).Detail, "DenyAll authorization_mode is enabled") {
			t.Errorf("%d %s", got.status, got.body)
		}
		if got := s.send("GET", s.adminURL+api.PathPolicies, nil, header); got.status != http.StatusForbidden {
			t.Errorf("%d %s", got.status, got.body)
		}
	}
	s.restart(func(c *config.Config) { c.Admin.AuthorizationMode = "InsecureAllowAll" })
	if got := s.send("POST", s.adminURL+api.PathResource+"/x/y/z", []byte("1")); got.status != http.StatusOK {
		t.Errorf("%d %s", got.status, got.body)
	}
	var me api.WhoAmI
	if got := s.send("GET", s.adminURL+api.PathWhoAmI, nil); json.Unmarshal(got.body, &me) != nil || !me.Insecure {
		t.Errorf("%d %s", got.status, got.body)
	}
	loud := false
	for _, e := range s.entries() {
		loud = loud || e.Kind == api.AuditBrokerStart && strings.Contains(e.Details["insecure"], "admin.authorization_mode: InsecureAllowAll")
	}
	if !loud {
		t.Error("nobody is told")
	}
}
