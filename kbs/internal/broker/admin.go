package broker

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/http"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/jwks"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/tenant"
)

// openAdmin joins the broker's own admin key, the identity providers and the
// list of what was revoked.
func (s *shared) openAdmin() error {
	pub, err := readFile(adminPublicPath(s.cfg.StateDir))
	if errors.Is(err, fs.ErrNotExist) {
		// The private half may be taken away once there are tokens enough.
		pub, err = firstAdmin(s.cfg.StateDir, s.cfg.Admin.TokenLifetime(), s.Now())
	}
	if err != nil {
		return err
	}
	key, err := admin.ParsePublicKey(pub)
	if err != nil {
		return err
	}
	c := admin.Config{
		Mode: admin.Mode(s.cfg.Admin.AuthorizationMode), Key: key, Home: tenant.Default,
		MaxLifetime: s.cfg.Admin.MaxTokenLifetime(), Now: s.Now,
	}
	if c.ACLs, err = s.cfg.Admin.ACLs(); err != nil {
		return fmt.Errorf("admin.authorization: %w", err)
	}
	if c.Mappings, err = s.cfg.Admin.Mappings(); err != nil {
		return fmt.Errorf("admin.roles: %w", err)
	}
	for _, p := range s.cfg.Admin.Authentication.BearerJWT.IdentityProviders {
		provider, err := s.provider(p)
		if err != nil {
			return fmt.Errorf("admin.authentication: %w", err)
		}
		c.Providers = append(c.Providers, provider)
	}
	s.revoked = admin.OpenRevocations(s.store, c.MaxLifetime, s.Now)
	c.Revoked = s.revoked.Revoked
	s.admins = admin.NewAuthenticator(c)
	return nil
}

func (s *shared) provider(p config.IdentityProvider) (admin.Provider, error) {
	out := admin.Provider{Issuer: p.Issuer, Audience: p.Audience}
	client, err := clientOf(p.CAFile)
	if err != nil {
		return out, fmt.Errorf("ca_file: %w", err)
	}
	for _, uri := range []string{p.PublicKeyURI, p.JWKSetURI} {
		if uri == "" {
			continue
		}
		set, err := jwks.New(jwks.Config{URI: uri, HTTP: client, Now: s.Now, Logger: s.Logger})
		if err != nil {
			return out, err
		}
		out.Keys = append(out.Keys, set)
		if out.Name == "" {
			out.Name = uri
		}
	}
	return out, nil
}

// clientOf trusts the authorities in a PEM file and no others; without a file it
// is nil, for the usual ones.
func clientOf(caFile string) (*http.Client, error) {
	if caFile == "" {
		return nil, nil
	}
	raw, err := readFile(caFile)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(raw) {
		return nil, fmt.Errorf("%s has no certificate", caFile)
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	return &http.Client{Transport: t, CheckRedirect: jwks.CheckRedirect}, nil
}
