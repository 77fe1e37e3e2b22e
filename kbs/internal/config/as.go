package config

import "time"

// AttestationService says who verifies evidence and how.
type AttestationService struct {
	Timeout                int         `toml:"timeout"` // lifetime of a session, in minutes
	AttestationTokenBroker TokenBroker `toml:"attestation_token_broker"`
}

func defaultAttestationService() AttestationService {
	return AttestationService{Timeout: 5, AttestationTokenBroker: defaultTokenBroker()}
}

// SessionLifetime is that of a handshake.
func (c Config) SessionLifetime() time.Duration {
	return time.Duration(c.AttestationService.Timeout) * time.Minute
}
