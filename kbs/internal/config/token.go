package config

import (
	"fmt"
	"time"
)

// TokenBroker says how attestation tokens are made (kbs-protocol 10).
type TokenBroker struct {
	DurationMin   int    `toml:"duration_min"` // lifetime of a token, in minutes
	IssuerName    string `toml:"issuer_name"`  // iss; a URL makes the broker an OIDC issuer
	DeveloperName string `toml:"developer_name"`
	BuildName     string `toml:"build_name"` // "" is the version of the build
	ProfileName   string `toml:"profile_name"`
	// RotateDays is the age at which the signing key gives way to the next; 0
	// means only when an administrator says so.
	RotateDays int    `toml:"rotate_days"`
	Signer     Signer `toml:"signer"`
}

// Signer names a key that is not the broker's own making. Without one the
// broker makes its keys, keeps them in its store and rotates them.
type Signer struct {
	KeyPath  string `toml:"key_path" kind:"path"`  // PEM, SEC 1 or PKCS #8, on P-256
	CertPath string `toml:"cert_path" kind:"path"` // PEM, leaf first
	CertURL  string `toml:"cert_url"`
}

func defaultTokenBroker() TokenBroker {
	return TokenBroker{
		DurationMin: 5, IssuerName: "vouchsafe-kbs", DeveloperName: "https://github.com/vouchsafe-cc/vouchsafe", RotateDays: 90,
	}
}

// TokenLifetime is that of an attestation token.
func (c Config) TokenLifetime() time.Duration {
	return time.Duration(c.AttestationService.AttestationTokenBroker.DurationMin) * time.Minute
}

// TokenKeyAge is when a signing key gives way to the next; 0 is never.
func (c Config) TokenKeyAge() time.Duration {
	return time.Duration(c.AttestationService.AttestationTokenBroker.RotateDays) * 24 * time.Hour
}

func (b TokenBroker) validate() []error {
	const at = "attestation_service.attestation_token_broker."
	var all []error
	bad := func(key, format string, args ...any) {
		all = append(all, fmt.Errorf("%s%s: %s", at, key, fmt.Sprintf(format, args...)))
	}
	if b.DurationMin < 1 || b.DurationMin > 1440 {
		bad("duration_min", "must be from 1 to 1440, is %d", b.DurationMin)
	}
	if b.IssuerName == "" {
		bad("issuer_name", "must not be empty")
	}
	if b.RotateDays < 0 || b.RotateDays > 3650 {
		bad("rotate_days", "must be from 0 to 3650, is %d", b.RotateDays)
	}
	if b.Signer.KeyPath == "" && b.Signer != (Signer{}) {
		bad("signer.key_path", "must be given with cert_path and cert_url")
	}
	return all
}
