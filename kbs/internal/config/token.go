package config

import (
	"strings"
	"time"
)

// TokenBroker says how attestation tokens are made (kbs-protocol 10).
type TokenBroker struct {
	// DurationMin is the lifetime of a token, in minutes.
	DurationMin int `toml:"duration_min"`
	// IssuerName is the iss of tokens. An https:// URL makes the broker an
	// OpenID Connect issuer that verifiers can discover.
	IssuerName string `toml:"issuer_name"`
	// DeveloperName is the developer in ear.verifier-id.
	DeveloperName string `toml:"developer_name"`
	// BuildName is the build in ear.verifier-id; empty means that of the program.
	BuildName string `toml:"build_name"`
	// ProfileName is the eat_profile; empty means that of the field.
	ProfileName string `toml:"profile_name"`
	// VerboseToken repeats the evidence of additional devices in the token's
	// runtime data: it may be megabytes, and a token travels in request heads.
	VerboseToken bool `toml:"verbose_token"`
	// EARDraft04 adds the members ear_attester_claims and ear_verifier_claims of
	// draft 04 of EAR to each appraisal.
	EARDraft04 bool `toml:"ear_draft_04"`
	// RotateDays is the age at which the signing key gives way to the next; 0
	// means only when an administrator says so.
	RotateDays int `toml:"rotate_days"`
	// Signer names a key that is not of the broker's own making. Without one the
	// broker makes its keys, keeps them in its store and rotates them.
	Signer Signer `toml:"signer"`
}

// Signer names the files of a key.
type Signer struct {
	// KeyPath is a PEM file, SEC 1 or PKCS #8, with a key on P-256.
	KeyPath string `toml:"key_path" kind:"path" file:"some"`
	// CertPath is a PEM file with the key's chain, the leaf first.
	CertPath string `toml:"cert_path" kind:"path" file:"chain=key_path"`
	// CertURL is where others find the chain; tokens show it as x5u.
	CertURL string `toml:"cert_url"`
}

// AttestationToken says whose tokens are accepted beside the broker's own
// (kbs-protocol 5.2). Own tokens need no setting.
type AttestationToken struct {
	// TrustedCertsPaths are PEM files with the certificates of authorities, or
	// of signers themselves, that endorse the key in a token's header.
	TrustedCertsPaths []string `toml:"trusted_certs_paths" kind:"path" file:"certificates"`
	// TrustedJWKSets are the key sets of issuers: a path, file:// or https://, or
	// the URL of an OpenID Connect issuer.
	TrustedJWKSets []string `toml:"trusted_jwk_sets"`
	// ExtraTEEKeyPaths are further JSON pointers to the guest's key in the claims
	// of such tokens.
	ExtraTEEKeyPaths []string `toml:"extra_teekey_paths"`
	// InsecureHeaderJWK accepts whatever key a token brings along: anybody can
	// then make a token.
	InsecureHeaderJWK bool `toml:"insecure_header_jwk"`
}

func defaultAttestationToken() AttestationToken {
	return AttestationToken{TrustedCertsPaths: []string{}, TrustedJWKSets: []string{}, ExtraTEEKeyPaths: []string{}}
}

func (a AttestationToken) insecure() []string {
	if a.InsecureHeaderJWK {
		return []string{"attestation_token.insecure_header_jwk"}
	}
	return nil
}

// maxTrusted bounds each list: every one is tried on tokens of strangers.
const maxTrusted = 16

func (a AttestationToken) validate(p *problems) {
	p.between("attestation_token.trusted_certs_paths", len(a.TrustedCertsPaths), 0, maxTrusted)
	p.between("attestation_token.trusted_jwk_sets", len(a.TrustedJWKSets), 0, maxTrusted)
	p.between("attestation_token.extra_teekey_paths", len(a.ExtraTEEKeyPaths), 0, maxTrusted)
	for _, pointer := range a.ExtraTEEKeyPaths {
		if !strings.HasPrefix(pointer, "/") {
			p.bad("attestation_token.extra_teekey_paths", "%q is not a JSON pointer, which begins with a slash", pointer)
		}
	}
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

func (b TokenBroker) validate(p *problems) {
	const at = "attestation_service.attestation_token_broker."
	p.between(at+"duration_min", b.DurationMin, 1, 1440)
	p.between(at+"rotate_days", b.RotateDays, 0, 3650)
	if b.IssuerName == "" {
		p.bad(at+"issuer_name", "must not be empty")
	}
	if b.Signer.KeyPath == "" && b.Signer != (Signer{}) {
		p.bad(at+"signer.key_path", "must be given with cert_path and cert_url")
	}
}
