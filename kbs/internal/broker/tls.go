package broker

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/metrics"
)

// The certificate that the broker makes for itself.
const (
	certLifetime = 365 * 24 * time.Hour
	// certRenewal is how long before its end a start replaces it.
	certRenewal = 30 * 24 * time.Hour
)

// tlsFiles is the server's certificate and where it lies.
type tlsFiles struct {
	certPath, keyPath string
	selfMade          bool
	now               func() time.Time

	config *tls.Config
	pair   atomic.Pointer[tls.Certificate]
}

// openTLS returns nil if the configuration wants no TLS.
func openTLS(cfg config.Config, now func() time.Time) (*tlsFiles, error) {
	h := cfg.HTTPServer
	if h.InsecureHTTP {
		return nil, nil
	}
	t := &tlsFiles{certPath: h.Certificate, keyPath: h.PrivateKey, now: now}
	if t.certPath == "" {
		t.selfMade = true
		t.certPath = filepath.Join(cfg.StateDir, "tls", "cert.pem")
		t.keyPath = filepath.Join(cfg.StateDir, "tls", "key.pem")
	}
	if err := t.load(); err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	p := h.TLS()
	t.config = &tls.Config{
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return t.pair.Load(), nil },
		MinVersion:     p.Min, MaxVersion: p.Max, CipherSuites: p.Suites, CurvePreferences: p.Groups,
	}
	return t, nil
}

// load reads the pair, and puts it in force if it is one: connections from now
// on get it, those that are open keep theirs. A certificate of the broker's own
// is made anew before it ends.
func (t *tlsFiles) load() error {
	if t.selfMade {
		if err := ensureCertificate(t.certPath, t.keyPath, t.now()); err != nil {
			return err
		}
	}
	key, err := readKey(t.keyPath)
	if err != nil {
		return fmt.Errorf("private key: %w", err)
	}
	cert, err := readFile(t.certPath)
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	pair, err := tls.X509KeyPair(cert, key.Reveal())
	if err != nil {
		return err
	}
	t.pair.Store(&pair)
	return nil
}

// certificateExpiry tells when the certificate ends.
func (b *Broker) certificateExpiry(context.Context) ([]metrics.Sample, error) {
	if b.tls == nil {
		return nil, nil
	}
	leaf, err := x509.ParseCertificate(b.tls.pair.Load().Certificate[0])
	if err != nil {
		return nil, err
	}
	return metrics.One(float64(leaf.NotAfter.Unix())), nil
}

// ensureCertificate makes a self-signed certificate for this host's loopback
// names, unless there is one that lives for some time yet.
func ensureCertificate(certPath, keyPath string, now time.Time) error {
	raw, err := readFile(certPath)
	if err == nil {
		if block, _ := pem.Decode(raw); block != nil {
			cert, perr := x509.ParseCertificate(block.Bytes)
			if perr == nil && now.Before(cert.NotAfter.Add(-certRenewal)) {
				return nil
			}
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	certPEM, keyPEM, err := selfSigned(now)
	if err != nil {
		return err
	}
	if err := replaceFile(keyPath, keyPEM, 0o600); err != nil {
		return err
	}
	return replaceFile(certPath, certPEM, 0o644)
}

// selfSigned makes a leaf, not a CA: whoever trusts it trusts this key for
// these names and nothing else.
func selfSigned(now time.Time) (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "Vouchsafe key broker"},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(certLifetime),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		DNSNames:              []string{"localhost"},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), nil
}
