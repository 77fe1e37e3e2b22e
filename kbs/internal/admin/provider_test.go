package admin

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/jwks"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/sqlite"
)

// idp signs tokens and publishes its key in a file.
type idp struct {
	t      testing.TB
	signer jose.Signer
	keys   *jwks.Set
}

func newIDP(t testing.TB, now func() time.Time) *idp {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "k", Algorithm: "ES256"}}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "jwks.json")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	set, err := jwks.New(jwks.Config{URI: path, Now: now, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: "k"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &idp{t, signer, set}
}

// token signs claims that are good but for the changes; nil removes one.
func (p *idp) token(change map[string]any) string {
	p.t.Helper()
	c := map[string]any{
		"iss": "https://idp.example", "aud": "kbs", "sub": "ann", "jti": "j1", "groups": []string{"staff", "kbs-admins"},
		"iat": start.Unix(), "exp": start.Add(time.Hour).Unix(),
	}
	for k, v := range change {
		if c[k] = v; v == nil {
			delete(c, k)
		}
	}
	raw, err := json.Marshal(c)
	if err != nil {
		p.t.Fatal(err)
	}
	jws, err := p.signer.Sign(raw)
	if err != nil {
		p.t.Fatal(err)
	}
	text, err := jws.CompactSerialize()
	if err != nil {
		p.t.Fatal(err)
	}
	return "Bearer " + text
}

func at(d time.Duration) func() time.Time {
	return func() time.Time { return start.Add(d) }
}

func TestProviders(t *testing.T) {
	first, second := newIDP(t, at(0)), newIDP(t, at(0))
	a := NewAuthenticator(Config{
		MaxLifetime: 12 * time.Hour, Now: at(time.Minute), Home: "default",
		Providers: []Provider{
			{Issuer: "https://idp.example", Audience: "kbs", Keys: []*jwks.Set{first.keys}},
			{Name: "second", Keys: []*jwks.Set{second.keys}},
		},
		Mappings: []Mapping{
			{Grant: Grant{Owner, []string{AnyTenant}}, Issuer: "https://idp.example", Claim: "groups", Value: "kbs-admins"},
			{Grant: Grant{Approver, []string{"a"}}, Claim: "/realm_access/roles", Value: "approver"},
			{Grant: Grant{Viewer, []string{"b"}}, Claim: "role", Value: "look"},
		},
	})
	for name, c := range map[string]struct {
		from   *idp
		change map[string]any
		want   []Grant // of an identity that is accepted
		who    string  // "" means refused
	}{
		"mapped":             {first, nil, []Grant{{Owner, []string{AnyTenant}}}, "admin:ann@https://idp.example"},
		"audience in a list": {first, map[string]any{"aud": []string{"x", "kbs"}}, []Grant{{Owner, []string{AnyTenant}}}, "admin:ann@https://idp.example"},
		"a pointer":          {first, map[string]any{"groups": nil, "realm_access": map[string]any{"roles": []string{"approver"}}}, []Grant{{Approver, []string{"a"}}}, "admin:ann@https://idp.example"},
		"a string claim":     {first, map[string]any{"groups": "kbs-admins"}, []Grant{{Owner, []string{AnyTenant}}}, "admin:ann@https://idp.example"},
		"two mappings":       {first, map[string]any{"role": "look"}, []Grant{{Owner, []string{AnyTenant}}, {Viewer, []string{"b"}}}, "admin:ann@https://idp.example"},
		"no role":            {first, map[string]any{"groups": []string{"staff"}}, nil, "admin:ann@https://idp.example"},
		"fractions":          {first, map[string]any{"iat": float64(start.Unix()) + 0.5}, []Grant{{Owner, []string{AnyTenant}}}, "admin:ann@https://idp.example"},
		"a little early":     {first, map[string]any{"iat": start.Add(90 * time.Second).Unix()}, []Grant{{Owner, []string{AnyTenant}}}, "admin:ann@https://idp.example"},
		// The second provider is not bound to an issuer: it speaks for itself
		// only, and a mapping for the first does not count.
		"another provider":  {second, nil, nil, "admin:ann@second"},
		"wrong issuer":      {first, map[string]any{"iss": "https://evil.example"}, nil, ""},
		"our issuer":        {second, map[string]any{"iss": Issuer}, nil, ""},
		"wrong audience":    {first, map[string]any{"aud": "other"}, nil, ""},
		"no audience":       {first, map[string]any{"aud": nil}, nil, ""},
		"no expiry":         {first, map[string]any{"exp": nil}, nil, ""},
		"no issue":          {first, map[string]any{"iat": nil}, nil, ""},
		"expired":           {first, map[string]any{"exp": start.Unix()}, nil, ""},
		"not yet":           {first, map[string]any{"nbf": start.Add(time.Hour).Unix()}, nil, ""},
		"from the future":   {first, map[string]any{"iat": start.Add(3 * time.Minute).Unix()}, nil, ""},
		"ten years":         {first, map[string]any{"exp": start.AddDate(10, 0, 0).Unix()}, nil, ""},
		"beyond time":       {first, map[string]any{"exp": 1e300}, nil, ""},
		"before time":       {first, map[string]any{"iat": -1}, nil, ""},
		"a text for a time": {first, map[string]any{"exp": "tomorrow"}, nil, ""},
		"a long subject":    {first, map[string]any{"sub": strings.Repeat("x", maxText+1)}, nil, ""},
		"a subject list":    {first, map[string]any{"sub": []string{"ann"}}, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			id, err := a.Authenticate(t.Context(), c.from.token(c.change))
			if c.who == "" {
				if !errors.Is(err, ErrUnauthenticated) {
					t.Errorf("accepted as %+v (%v)", id, err)
				}
				if errors.Is(err, ErrLifetime) != (name == "ten years") {
					t.Errorf("the reason: %v", err)
				}
				return
			}
			same := func(a, b Grant) bool { return a.Role == b.Role && slices.Equal(a.Tenants, b.Tenants) }
			if err != nil || id.String() != c.who || !slices.EqualFunc(id.Grants, c.want, same) {
				t.Errorf("%s with %v: %v", id, id.Grants, err)
			}
		})
	}
}

func TestModes(t *testing.T) {
	id, err := NewAuthenticator(Config{Mode: InsecureAllowAll}).Authenticate(t.Context(), "")
	if err != nil || !id.Has(Owner, "x") || id.Has(Approver, "x") {
		t.Errorf("%+v: %v", id, err)
	}
	if _, err := NewAuthenticator(Config{Mode: DenyAll}).Authenticate(t.Context(), "Bearer x"); !errors.Is(err, ErrDenyAll) {
		t.Error(err)
	}
}

func TestACL(t *testing.T) {
	entry := func(role, pattern string) ACL {
		re, err := CompileEndpoints(pattern)
		if err != nil {
			t.Fatal(err)
		}
		return ACL{Role: role, Endpoints: re}
	}
	read, other := entry("reader", `^/kbs/v0/.*$`), entry("team", `^/kbs/v0/.*$`)
	read.Methods, other.Tenants = []string{"GET"}, []string{"b"}
	a := NewAuthenticator(Config{Home: "default", ACLs: []ACL{
		entry("secrets", `^/kbs/v0/resource/teamA/.*$`), entry("two", `^/kbs/v0/(a|b)$|^/v1/.*$`), read, other,
	}})
	for _, c := range []struct {
		role, tenant, method, uri string
		want                      bool
	}{
		{"secrets", "default", "POST", "/kbs/v0/resource/teamA/x/y", true},
		{"secrets", "default", "POST", "/kbs/v0/resource/teamA/x/y?z=1", true},
		{"secrets", "default", "POST", "/kbs/v0/resource/teamB/x/y", false},
		{"secrets", "default", "POST", "/kbs/v0/resource/teamB/x/y?/kbs/v0/resource/teamA/x", false},
		{"secrets", "default", "POST", "/kbs/v0/resource/team?A/x/y", false},
		{"secrets", "b", "POST", "/kbs/v0/resource/teamA/x/y", false},
		{"", "default", "POST", "/kbs/v0/resource/teamA/x/y", false},
		{"two", "default", "POST", "/kbs/v0/b", true}, {"two", "default", "POST", "/kbs/v0/c", false},
		{"two", "default", "POST", "/v1/policies", false},
		{"reader", "default", "GET", "/kbs/v0/x", true}, {"reader", "default", "POST", "/kbs/v0/x", false},
		{"team", "b", "POST", "/kbs/v0/x", true}, {"team", "default", "POST", "/kbs/v0/x", false},
	} {
		id := Identity{Subject: "s", Claim: c.role}
		if got := a.Permits(id, Call{Tenant: c.tenant, Need: Owner, Method: c.method, URI: c.uri}); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
	if !a.Concerns(Identity{Claim: "team"}, "b") || a.Concerns(Identity{Claim: "secrets"}, "b") || a.Concerns(Identity{}, "b") || !a.Concerns(Identity{}, "default") {
		t.Error("concerns")
	}
	for _, bad := range []string{
		"", "^/kbs", "/kbs/v0$", "^/v1/.*$", "^/kbs/v0/a|.*$", "^/kbs/v0/a$|^.*$|/x$", "^/kbs/(v0|.*$", "^/kbs/v0/a|^/kbs/v0/b$", "^/kbs\\$", strings.Repeat("a", maxPattern) + "$",
	} {
		if _, err := CompileEndpoints(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestRevocations(t *testing.T) {
	st, err := sqlite.Open(filepath.Join(t.TempDir(), "kbs.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = st.Close() }()
	now := start
	list := OpenRevocations(st, time.Hour, func() time.Time { return now })
	p := newIDP(t, at(0))
	a := NewAuthenticator(Config{
		MaxLifetime: time.Hour, Now: func() time.Time { return now }, Revoked: list.Revoked, Providers: []Provider{{Name: "p", Keys: []*jwks.Set{p.keys}}},
	})
	try := func(jti, sub string, issued time.Time) error {
		_, err := a.Authenticate(t.Context(), p.token(map[string]any{"jti": jti, "sub": sub, "iat": issued.Unix(), "exp": issued.Add(time.Hour).Unix()}))
		return err
	}
	add := func(r Revocation) {
		t.Helper()
		r.Issuer = "p"
		if _, err := list.Add(t.Context(), r, func(store.Tx, Revocation) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	want := func(what string, err error, refused bool) {
		t.Helper()
		if errors.Is(err, ErrUnauthenticated) != refused || (!refused && err != nil) {
			t.Errorf("%s: %v", what, err)
		}
	}
	want("nobody was revoked", try("1", "ann", start), false)
	now = start.Add(time.Minute)
	add(Revocation{TokenID: "1"})
	want("by id", try("1", "ann", start), true)
	want("another token", try("2", "ann", start), false)
	want("no id", try("", "ann", start), false)
	add(Revocation{Subject: "ann"})
	want("by subject", try("2", "ann", start), true)
	want("another subject", try("2", "bob", start), false)
	want("issued later", try("3", "ann", now.Add(time.Second)), false)
	for _, bad := range []Revocation{{}, {TokenID: "x", Subject: "y"}, {TokenID: strings.Repeat("x", maxText+1)}} {
		bad.Issuer = "p"
		if _, err := list.Add(t.Context(), bad, nil); !errors.Is(err, ErrRevocation) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	failed := errors.New("no entry")
	if _, err := list.Add(t.Context(), Revocation{Issuer: "p", TokenID: "9"}, func(store.Tx, Revocation) error { return failed }); !errors.Is(err, failed) {
		t.Error(err)
	}
	if all, err := list.List(t.Context()); err != nil || len(all) != 2 {
		t.Errorf("%v: %v", all, err)
	}
	// What has expired by itself is forgotten.
	now = start.Add(3 * time.Hour)
	add(Revocation{TokenID: "4"})
	if all, err := list.List(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("%v: %v", all, err)
	}
}

// Whatever a provider puts into its claims, an identity is bounded and does not
// live too long.
func FuzzClaims(f *testing.F) {
	a := NewAuthenticator(Config{
		MaxLifetime: time.Hour, Now: at(0), Mappings: []Mapping{{Grant: Grant{Owner, []string{AnyTenant}}, Claim: "/a/0", Value: "x"}},
	})
	f.Add([]byte(`{"iat":1795348800,"exp":1795348900,"sub":"s","aud":["a"],"a":["x"]}`))
	f.Add([]byte(`{"iat":1e400,"exp":-1,"role":{},"aud":1}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		id, err := a.foreign(Provider{Name: "p"}, raw)
		if err != nil {
			return
		}
		if id.Issuer != "p" || len(id.Subject) > maxText || len(id.Claim) > maxText || id.Expires.Sub(id.Issued) > time.Hour || !id.Expires.After(start) {
			t.Fatalf("%+v", id)
		}
	})
}

// No pattern that is accepted allows a call outside /kbs, or one whose query
// alone matches.
func FuzzCompileEndpoints(f *testing.F) {
	f.Add(`^/kbs/v0/.*$`, "/v1/policies")
	f.Add(`^/kbs|.*$`, "x")
	f.Add(`^/kbs/(a|b)$|^/kbs/c$`, "/kbs/c")
	f.Fuzz(func(t *testing.T, pattern, uri string) {
		re, err := CompileEndpoints(pattern)
		if err != nil {
			return
		}
		path, _, _ := strings.Cut(uri, "?")
		e := ACL{Role: "r", Endpoints: re}
		if e.permits(Identity{Claim: "r"}, Call{Tenant: "h", URI: uri}, "h") && (!strings.HasPrefix(uri, "/kbs/") || !re.MatchString(path)) {
			t.Fatalf("%q allows %q", pattern, uri)
		}
	})
}
