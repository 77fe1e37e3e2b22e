package config

import "time"

// AttestationService says who verifies evidence and how.
type AttestationService struct {
	// Type is coco_as_builtin: the verifier is part of the broker.
	Type string `toml:"type"`
	// Timeout is the lifetime of a session, in minutes.
	Timeout                int         `toml:"timeout"`
	RVPSConfig             RVPSConfig  `toml:"rvps_config"`
	AttestationTokenBroker TokenBroker `toml:"attestation_token_broker"`
	Handshake
}

// RVPSConfig is where the field's broker finds its reference values.
type RVPSConfig struct {
	// Type is BuiltIn: reference values are in the broker's store.
	Type string `toml:"type"`
}

func defaultAttestationService() AttestationService {
	return AttestationService{
		Type: "coco_as_builtin", Timeout: 5, RVPSConfig: RVPSConfig{Type: "BuiltIn"},
		AttestationTokenBroker: defaultTokenBroker(), Handshake: defaultHandshake(),
	}
}

// SessionLifetime is that of a handshake.
func (c Config) SessionLifetime() time.Duration {
	return time.Duration(c.AttestationService.Timeout) * time.Minute
}

func (a AttestationService) validate(p *problems) {
	switch a.Type {
	case "coco_as_builtin", "CoCoASBuiltIn":
	case "coco_as_grpc", "CoCoASGrpc", "intel_ta", "IntelTA":
		p.bad("attestation_service.type", "%s is another service's verifier; this broker verifies by itself: coco_as_builtin", a.Type)
	default:
		p.oneOf("attestation_service.type", a.Type, "coco_as_builtin")
	}
	if a.RVPSConfig.Type != "BuiltIn" {
		p.bad("attestation_service.rvps_config.type", "must be BuiltIn, is %q: reference values are in the broker's store", a.RVPSConfig.Type)
	}
	p.between("attestation_service.timeout", a.Timeout, 1, 60) // at most challenge.Period
	a.AttestationTokenBroker.validate(p)
	a.Handshake.validate(p)
}
