package config

import (
	"fmt"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/admin"
)

// Admin says who administers the broker (kbs-protocol 6).
type Admin struct {
	// AuthorizationMode is AuthenticatedAuthorization, DenyAll or
	// InsecureAllowAll.
	AuthorizationMode string `toml:"authorization_mode"`
	// TokenLifetimeHours is that of the token written at the first start.
	TokenLifetimeHours int `toml:"token_lifetime_hours"`
	// MaxTokenLifetimeHours bounds every admin token, from its issue to its
	// expiry, whoever signed it.
	MaxTokenLifetimeHours int `toml:"max_token_lifetime_hours"`
	// ApprovalHours is how long a change waits for its second person.
	ApprovalHours  int                 `toml:"approval_hours"`
	Authentication AdminAuthentication `toml:"authentication"`
	Authorization  AdminAuthorization  `toml:"authorization"`
	// Roles give our roles to claims of identity providers' tokens.
	Roles []AdminRole `toml:"roles"`
}

// AdminAuthentication says whose tokens are accepted beside the broker's own.
type AdminAuthentication struct {
	BearerJWT struct {
		IdentityProviders []IdentityProvider `toml:"identity_providers"`
	} `toml:"bearer_jwt"`
}

// IdentityProvider is one issuer of admin tokens.
type IdentityProvider struct {
	Issuer       string `toml:"issuer,omitempty"`
	Audience     string `toml:"audience,omitempty"`
	PublicKeyURI string `toml:"public_key_uri,omitempty" kind:"uri"` // PEM: a path, file:// or https://
	JWKSetURI    string `toml:"jwk_set_uri,omitempty" kind:"uri"`    // a JWK set, or an OIDC issuer
	// CAFile is a PEM file with the authorities of the certificate that those
	// addresses show; empty means those of the system.
	CAFile string `toml:"ca_file,omitempty" kind:"path" file:"certificates"`
}

// AdminAuthorization is the field's access list over request URIs.
type AdminAuthorization struct {
	RegexACL struct {
		ACLs []AdminACL `toml:"acls"`
	} `toml:"regex_acl"`
}

// AdminACL lets a role call what its pattern matches.
type AdminACL struct {
	Role             string   `toml:"role"`
	AllowedEndpoints string   `toml:"allowed_endpoints"`
	Methods          []string `toml:"methods,omitempty"` // ours; empty means all
	Tenants          []string `toml:"tenants,omitempty"` // ours; empty means "default"
}

// AdminRole maps a claim to a role.
type AdminRole struct {
	Issuer  string   `toml:"issuer,omitempty"` // only tokens of this provider
	Claim   string   `toml:"claim"`            // a name or a JSON pointer
	Value   string   `toml:"value"`
	Role    string   `toml:"role"`
	Tenants []string `toml:"tenants"` // names, or "*"
}

func defaultAdmin() Admin {
	a := Admin{
		AuthorizationMode: string(admin.Authenticated), TokenLifetimeHours: 12, MaxTokenLifetimeHours: 12, ApprovalHours: 24,
		Roles: []AdminRole{},
	}
	a.Authentication.BearerJWT.IdentityProviders = []IdentityProvider{}
	a.Authorization.RegexACL.ACLs = []AdminACL{}
	return a
}

func (a Admin) insecure() []string {
	if a.AuthorizationMode == string(admin.InsecureAllowAll) {
		return []string{"admin.authorization_mode: " + a.AuthorizationMode}
	}
	return nil
}

func (a Admin) validate(p *problems) {
	p.oneOf("admin.authorization_mode", a.AuthorizationMode, string(admin.Authenticated), string(admin.DenyAll), string(admin.InsecureAllowAll))
	p.between("admin.max_token_lifetime_hours", a.MaxTokenLifetimeHours, 1, int(admin.MaxLifetime/time.Hour))
	p.between("admin.token_lifetime_hours", a.TokenLifetimeHours, 1, a.MaxTokenLifetimeHours)
	p.between("admin.approval_hours", a.ApprovalHours, 1, 30*24)
	seen := map[IdentityProvider]bool{}
	for i, one := range a.Authentication.BearerJWT.IdentityProviders {
		if one.PublicKeyURI == "" && one.JWKSetURI == "" || seen[one] {
			p.bad(index("admin.authentication.bearer_jwt.identity_providers", i), "public_key_uri or jwk_set_uri is needed, and no provider twice")
		}
		seen[one] = true
	}
	if _, err := a.ACLs(); err != nil {
		p.bad("admin.authorization.regex_acl", "%v", err)
	}
	if _, err := a.Mappings(); err != nil {
		p.bad("admin", "%v", err)
	}
}

// ACLs is the access list, compiled.
func (a Admin) ACLs() ([]admin.ACL, error) {
	out := make([]admin.ACL, 0, len(a.Authorization.RegexACL.ACLs))
	for i, e := range a.Authorization.RegexACL.ACLs {
		re, err := admin.CompileEndpoints(e.AllowedEndpoints)
		if err != nil {
			return nil, fmt.Errorf("acls[%d]: %w", i, err)
		}
		if e.Role == "" {
			return nil, fmt.Errorf("acls[%d]: role must not be empty", i)
		}
		out = append(out, admin.ACL{Role: e.Role, Endpoints: re, Methods: e.Methods, Tenants: e.Tenants})
	}
	return out, nil
}

// Mappings are the roles of claims, checked.
func (a Admin) Mappings() ([]admin.Mapping, error) {
	out := make([]admin.Mapping, 0, len(a.Roles))
	for i, r := range a.Roles {
		m := admin.Mapping{Grant: admin.Grant{Role: admin.Role(r.Role), Tenants: r.Tenants}, Issuer: r.Issuer, Claim: r.Claim, Value: r.Value}
		if err := m.Validate(); err != nil {
			return nil, fmt.Errorf("roles[%d]: %w", i, err)
		}
		out = append(out, m)
	}
	return out, nil
}

// TokenLifetime is that of the token written at the first start.
func (a Admin) TokenLifetime() time.Duration { return time.Duration(a.TokenLifetimeHours) * time.Hour }

// MaxTokenLifetime bounds every admin token.
func (a Admin) MaxTokenLifetime() time.Duration {
	return time.Duration(a.MaxTokenLifetimeHours) * time.Hour
}

// ApprovalLifetime is how long a change waits for its second person.
func (a Admin) ApprovalLifetime() time.Duration { return time.Duration(a.ApprovalHours) * time.Hour }
