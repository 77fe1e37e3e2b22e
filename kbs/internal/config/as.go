package config

import (
	"net/netip"
	"net/url"
	"time"
)

// AttestationService says who verifies evidence and how.
type AttestationService struct {
	// Type is coco_as_builtin, where the verifier is part of the broker, or
	// coco_as_grpc, where another Attestation Service is asked.
	Type string `toml:"type"`
	// Timeout is the lifetime of a session, in minutes.
	Timeout                int         `toml:"timeout"`
	RVPSConfig             RVPSConfig  `toml:"rvps_config"`
	AttestationTokenBroker TokenBroker `toml:"attestation_token_broker"`
	Handshake
	// ASAddr is where the other service is: http:// (on loopback) or https://.
	// Its tokens must be trusted by attestation_token.
	ASAddr string `toml:"as_addr"`
	// PoolSize is how many calls to it run at once.
	PoolSize int `toml:"pool_size"`
	// ASTimeoutSeconds limits one call to it.
	ASTimeoutSeconds int `toml:"as_timeout_seconds"`
	// ASCA is a PEM file with the authorities of its certificate; empty means
	// those of the system.
	ASCA string `toml:"as_ca" kind:"path" file:"certificates"`
	// ASClientCertificate and as_client_key are what the broker shows to it.
	ASClientCertificate string `toml:"as_client_certificate" kind:"path" file:"chain=as_client_key"`
	// ASClientKey is the key of as_client_certificate, in PEM.
	ASClientKey string `toml:"as_client_key" kind:"path" file:"private key"`
	// ASTokenFile holds an administrator's token of the other service, for
	// policies and reference values that are handed on to it.
	ASTokenFile string `toml:"as_token_file" kind:"path" file:"private key"`
	// InsecureASHTTP allows http:// beyond loopback.
	InsecureASHTTP bool `toml:"insecure_as_http"`
	// GRPC serves this broker's verifier to others.
	GRPC ServiceListener `toml:"grpc"`
	// REST serves it over HTTP.
	REST ServiceListener `toml:"rest"`
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
		ASAddr: "http://127.0.0.1:50004", PoolSize: 100, ASTimeoutSeconds: 300,
		GRPC: defaultServiceListener(), REST: defaultServiceListener(),
	}
}

// SessionLifetime is that of a handshake.
func (c Config) SessionLifetime() time.Duration {
	return time.Duration(c.AttestationService.Timeout) * time.Minute
}

// Remote reports whether another service verifies.
func (a AttestationService) Remote() bool { return a.Type == "coco_as_grpc" || a.Type == "CoCoASGrpc" }

// ASTimeout limits one call to the other service.
func (a AttestationService) ASTimeout() time.Duration {
	return time.Duration(a.ASTimeoutSeconds) * time.Second
}

func (a AttestationService) insecure() []string {
	out := a.Handshake.insecure()
	if a.Remote() && a.InsecureASHTTP {
		out = append(out, "attestation_service.insecure_as_http")
	}
	out = append(out, a.GRPC.insecure("attestation_service.grpc")...)
	return append(out, a.REST.insecure("attestation_service.rest")...)
}

func (a AttestationService) validate(p *problems) {
	switch a.Type {
	case "coco_as_builtin", "CoCoASBuiltIn", "coco_as_grpc", "CoCoASGrpc":
	case "intel_ta", "IntelTA":
		p.bad("attestation_service.type", "Intel Trust Authority is not asked; its tokens are accepted as passports: attestation_token.trusted_jwk_sets")
	default:
		p.oneOf("attestation_service.type", a.Type, "coco_as_builtin", "coco_as_grpc")
	}
	if a.RVPSConfig.Type != "BuiltIn" {
		p.bad("attestation_service.rvps_config.type", "must be BuiltIn, is %q: reference values are in the broker's store", a.RVPSConfig.Type)
	}
	p.between("attestation_service.timeout", a.Timeout, 1, 60) // at most challenge.Period
	p.between("attestation_service.pool_size", a.PoolSize, 1, 1000)
	p.between("attestation_service.as_timeout_seconds", a.ASTimeoutSeconds, 1, 600)
	if (a.ASClientCertificate == "") != (a.ASClientKey == "") {
		p.bad("attestation_service", "as_client_certificate and as_client_key must be given together")
	}
	a.validateAddr(p)
	a.AttestationTokenBroker.validate(p)
	a.Handshake.validate(p)
	a.GRPC.validate("attestation_service.grpc", p)
	a.REST.validate("attestation_service.rest", p)
}

// validateAddr refuses a way to the other service on which anybody could
// answer in its place.
func (a AttestationService) validateAddr(p *problems) {
	u, err := url.Parse(a.ASAddr)
	switch {
	case err != nil || u.Host == "" || u.Path != "" && u.Path != "/" || u.Scheme != "http" && u.Scheme != "https":
		p.bad("attestation_service.as_addr", "%q is not http://host:port or https://host:port", a.ASAddr)
	case u.Scheme == "http" && !onLoopback(u.Hostname()) && !a.InsecureASHTTP:
		p.bad("attestation_service.as_addr", "must be https beyond loopback, or insecure_as_http must be set")
	}
}

func onLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}
