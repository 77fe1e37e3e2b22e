package broker

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/remoteas"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// openRemote returns the Attestation Service that the configuration asks, nil
// if the broker verifies by itself. It need not be up yet.
func (s *shared) openRemote() (*remoteas.Client, error) {
	c := s.cfg.AttestationService
	if !c.Remote() {
		return nil, nil
	}
	if s.trust == nil {
		return nil, errors.New("attestation_service: nobody vouches for its tokens: set attestation_token.trusted_jwk_sets or trusted_certs_paths")
	}
	rc := remoteas.Config{Addr: c.ASAddr, Calls: c.PoolSize, Timeout: c.ASTimeout(), TLS: &tls.Config{MinVersion: tls.VersionTLS12}}
	if c.ASCA != "" {
		raw, err := readFile(c.ASCA)
		if err != nil {
			return nil, fmt.Errorf("attestation_service.as_ca: %w", err)
		}
		rc.TLS.RootCAs = x509.NewCertPool()
		if !rc.TLS.RootCAs.AppendCertsFromPEM(raw) {
			return nil, errors.New("attestation_service.as_ca: it has no certificate")
		}
	}
	if c.ASClientCertificate != "" {
		cert, err := readFile(c.ASClientCertificate)
		if err != nil {
			return nil, fmt.Errorf("attestation_service.as_client_certificate: %w", err)
		}
		key, err := readKey(c.ASClientKey)
		if err != nil {
			return nil, fmt.Errorf("attestation_service.as_client_key: %w", err)
		}
		pair, err := tls.X509KeyPair(cert, key.Reveal())
		if err != nil {
			return nil, fmt.Errorf("attestation_service.as_client_certificate: %w", err)
		}
		rc.TLS.Certificates = []tls.Certificate{pair}
	}
	if c.ASTokenFile != "" { // read anew for each use: it may be replaced
		rc.Token = func() (secret.Bytes, error) { return readKey(c.ASTokenFile) }
	}
	return remoteas.New(rc)
}
