package admin

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

var start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func TestRoles(t *testing.T) {
	// Whether a role (row) may do what a route wants (column).
	for have, may := range map[Role]map[Role]bool{
		Viewer:   {Viewer: true},
		Operator: {Viewer: true, Operator: true},
		Approver: {Viewer: true, Approver: true},
		Auditor:  {Viewer: true, Auditor: true},
		Owner:    {Viewer: true, Operator: true, Auditor: true, Owner: true},
		"":       {}, "root": {},
	} {
		for _, need := range append(Roles(), "", "root") {
			if got := have.Includes(need); got != may[need] {
				t.Errorf("%q includes %q: %v", have, need, got)
			}
		}
	}
}

func TestIdentity(t *testing.T) {
	id := Identity{Issuer: "idp", Subject: "ann", Grants: []Grant{{Viewer, []string{AnyTenant}}, {Owner, []string{"a", "b"}}}}
	for _, c := range []struct {
		need   Role
		tenant string
		want   bool
	}{
		{Owner, "a", true}, {Owner, "b", true}, {Owner, "c", false}, {Owner, AnyTenant, false}, {Viewer, "c", true}, {Viewer, AnyTenant, true},
	} {
		if id.Has(c.need, c.tenant) != c.want {
			t.Errorf("%s in %s: %v", c.need, c.tenant, !c.want)
		}
	}
	if !id.In("c") || (Identity{Grants: id.Grants[1:]}).In("c") {
		t.Error("in")
	}
	for _, c := range []struct {
		a, b Identity
		same bool
	}{
		{Identity{Issuer: "x", Subject: "s"}, Identity{Issuer: "x", Subject: "s"}, true},
		{Identity{Issuer: "x", Subject: "s"}, Identity{Issuer: "y", Subject: "s"}, false},
		{Identity{Issuer: "x", Subject: "s"}, Identity{Issuer: "x", Subject: "t"}, false},
		{Identity{Issuer: "x", Subject: "s"}, Identity{Issuer: "y"}, true}, // nobody knows
	} {
		if c.a.Same(c.b) != c.same || c.b.Same(c.a) != c.same {
			t.Errorf("%v and %v", c.a, c.b)
		}
	}
	if a, b := id.String(), (Identity{Issuer: Issuer, Subject: "ann"}).String(); a != "admin:ann@idp" || b != "admin:ann" {
		t.Error(a, b)
	}
}

func newKey(t testing.TB) (ed25519.PrivateKey, []byte) {
	t.Helper()
	text, err := GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	key, err := ParsePrivateKey(text)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := MarshalPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return key, pub
}

func TestAuthenticate(t *testing.T) {
	priv, pubPEM := newKey(t)
	pub, err := ParsePublicKey(pubPEM)
	if err != nil {
		t.Fatal(err)
	}
	other, _ := newKey(t)
	sign := func(alg jose.SignatureAlgorithm, key any, payload string) string {
		s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, nil)
		if err != nil {
			t.Fatal(err)
		}
		jws, err := s.Sign([]byte(payload))
		if err != nil {
			t.Fatal(err)
		}
		text, err := jws.CompactSerialize()
		if err != nil {
			t.Fatal(err)
		}
		return "Bearer " + text
	}
	base := func(change string) string {
		m := map[string]any{
			"iss": Issuer, "sub": "me", "aud": []string{Audience}, "role": "owner", "tenants": []string{"a"},
			"iat": start.Unix(), "exp": start.Add(time.Hour).Unix(), "jti": "1",
		}
		if change != "" {
			var with map[string]any
			if err := json.Unmarshal([]byte(change), &with); err != nil {
				t.Fatal(err)
			}
			for k, v := range with {
				if m[k] = v; v == nil {
					delete(m, k)
				}
			}
		}
		raw, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." +
		base64.RawURLEncoding.EncodeToString([]byte(base(""))) + "."
	good, err := Issue(priv, Token{Grant{Operator, nil}, "me", time.Hour}, start)
	if err != nil {
		t.Fatal(err)
	}

	now := start.Add(time.Minute)
	a := NewAuthenticator(Config{Key: pub, MaxLifetime: 2 * time.Hour, Now: func() time.Time { return now }})
	id, err := a.Authenticate(t.Context(), "Bearer "+string(good.Reveal()))
	if err != nil || !id.Has(Operator, AnyTenant) || id.Has(Owner, "a") || id.Subject != "me" || id.TokenID == "" {
		t.Fatalf("%+v: %v", id, err)
	}
	if _, err := a.Authenticate(t.Context(), sign(jose.EdDSA, priv, base(""))); err != nil {
		t.Fatalf("baseline: %v", err)
	}
	for name, header := range map[string]string{
		"no header":       "",
		"basic":           "Basic " + string(good.Reveal()),
		"no token":        "Bearer ",
		"garbage":         "Bearer x.y.z",
		"alg none":        "Bearer " + none,
		"hmac by public":  sign(jose.HS256, []byte(pub), base("")),
		"hmac by pem":     sign(jose.HS256, pubPEM, base("")),
		"another key":     sign(jose.EdDSA, other, base("")),
		"expired":         sign(jose.EdDSA, priv, base(fmt.Sprintf(`{"exp":%d}`, start.Unix()))),
		"no issue":        sign(jose.EdDSA, priv, base(`{"iat":null}`)),
		"no tenants":      sign(jose.EdDSA, priv, base(`{"tenants":[]}`)),
		"too long":        sign(jose.EdDSA, priv, base(fmt.Sprintf(`{"exp":%d}`, start.Add(2*time.Hour+time.Second).Unix()))),
		"no expiry":       sign(jose.EdDSA, priv, base(`{"exp":null}`)),
		"future":          sign(jose.EdDSA, priv, base(fmt.Sprintf(`{"iat":%d}`, start.Add(time.Hour).Unix()))),
		"other issuer":    sign(jose.EdDSA, priv, base(`{"iss":"x"}`)),
		"other audience":  sign(jose.EdDSA, priv, base(`{"aud":["x"]}`)),
		"no audience":     sign(jose.EdDSA, priv, base(`{"aud":null}`)),
		"unknown role":    sign(jose.EdDSA, priv, base(`{"role":"root"}`)),
		"no role":         sign(jose.EdDSA, priv, base(`{"role":null}`)),
		"no id":           sign(jose.EdDSA, priv, base(`{"jti":null}`)),
		"wrong type":      sign(jose.EdDSA, priv, base(`{"exp":"never"}`)),
		"too large":       "Bearer " + strings.Repeat("a", maxSize+1),
		"payload changed": "Bearer " + strings.Replace(string(good.Reveal()), ".", ".e30", 1),
	} {
		if id, err := a.Authenticate(t.Context(), header); !errors.Is(err, ErrUnauthenticated) {
			t.Errorf("%s: accepted as %+v (%v)", name, id, err)
		}
	}
	now = start.Add(time.Hour)
	if _, err := a.Authenticate(t.Context(), "Bearer "+string(good.Reveal())); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("at expiry: %v", err)
	}
}

func TestIssueRefusesForever(t *testing.T) {
	priv, _ := newKey(t)
	for _, ttl := range []time.Duration{0, -time.Hour, MaxLifetime + 1} {
		if _, err := Issue(priv, Token{Grant{Owner, nil}, "me", ttl}, start); err == nil {
			t.Errorf("%s accepted", ttl)
		}
	}
	for name, bad := range map[string]Token{"unknown role": {Grant{"root", nil}, "me", time.Hour}, "no subject": {Grant{Owner, nil}, "", time.Hour}} {
		if _, err := Issue(priv, bad, start); err == nil {
			t.Errorf("%s accepted", name)
		}
	}
}

func FuzzAuthenticate(f *testing.F) {
	_, pubPEM := newKey(f)
	pub, err := ParsePublicKey(pubPEM)
	if err != nil {
		f.Fatal(err)
	}
	a := NewAuthenticator(Config{Key: pub, MaxLifetime: time.Hour, Now: func() time.Time { return start }})
	f.Add("Bearer a.b.c")
	f.Add("Bearer eyJhbGciOiJub25lIn0.e30.")
	f.Fuzz(func(t *testing.T, header string) {
		if _, err := a.Authenticate(t.Context(), header); err == nil {
			t.Fatalf("accepted %q", header)
		}
	})
}
