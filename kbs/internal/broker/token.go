package broker

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/keyring"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/tenant"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/token"
)

// tokenRoom is what makes and judges the tokens of one tenant.
type tokenRoom struct {
	keys     *token.Keys
	issuer   *token.Issuer
	verifier *token.Verifier
}

// openTokens joins the token room over a tenant's store and ring. A tenant's
// keys are its own: a token of one tenant is a forgery to every other.
//
// Who else is trusted is the operator's word, and the operator's tenant is the
// default one: an issuer must not decide for tenants that never named it.
func (s *shared) openTokens(ctx context.Context, name string, st store.Store, ring *keyring.Ring, log token.Recorder) (tokenRoom, error) {
	cfg, o, trust := s.cfg, s.Options, s.trust
	c := cfg.AttestationService.AttestationTokenBroker
	kc := token.KeysConfig{
		Store: st, Ring: ring, Audit: log, Lifetime: cfg.TokenLifetime(), RotateAfter: cfg.TokenKeyAge(), Now: o.Now, Logger: o.Logger,
	}
	if s := c.Signer; s.KeyPath != "" {
		kc.Signer = &token.Signer{KeyPath: s.KeyPath, CertPath: s.CertPath, CertURL: s.CertURL}
	}
	if name != tenant.Default {
		trust = nil
		// Where its key set is, if issuers are named by URL.
		c.IssuerName = strings.TrimSuffix(c.IssuerName, "/") + api.PathTenant + name
	}
	var (
		room tokenRoom
		err  error
	)
	if room.keys, err = token.OpenKeys(ctx, kc); err != nil {
		return room, err
	}
	var write token.Writer
	if c.EARDraft04 {
		write = token.AppraisalDraft04
	}
	room.issuer, err = token.NewIssuer(token.Config{
		Writer: write,
		Keys:   room.keys, Issuer: c.IssuerName, Developer: c.DeveloperName, Profile: c.ProfileName,
		Build: cmp.Or(c.BuildName, "vouchsafe-kbs "+o.Version), Lifetime: cfg.TokenLifetime(), Now: o.Now,
	})
	if err != nil {
		return room, err
	}
	room.verifier = token.NewVerifier(room.issuer, trust)
	return room, nil
}

// openTrust reads whose tokens the configuration trusts.
func (s *shared) openTrust(ctx context.Context) (*token.Trust, error) {
	c := s.cfg.AttestationToken
	t, err := token.NewTrust(ctx, token.TrustConfig{
		Certificates: c.TrustedCertsPaths, KeySets: c.TrustedJWKSets, TEEKeys: c.ExtraTEEKeyPaths, InsecureHeaderJWK: c.InsecureHeaderJWK,
		Now: s.Now, Logger: s.Logger,
	})
	if err != nil {
		return nil, fmt.Errorf("attestation_token: %w", err)
	}
	return t, nil
}
