package token

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// anchors are the certificates that endorse the keys of foreign tokens. Their
// files are read again every few seconds while they are used.
type anchors struct {
	paths  []string
	now    func() time.Time
	logger *slog.Logger

	mu   sync.Mutex
	pool *x509.CertPool
	seen []byte
	read time.Time
}

func newAnchors(paths []string, now func() time.Time, logger *slog.Logger) (*anchors, error) {
	pool, seen, err := readAnchors(paths)
	if err != nil {
		return nil, err
	}
	return &anchors{paths: paths, now: now, logger: logger, pool: pool, seen: seen, read: now()}, nil
}

// roots returns what the files hold. Files that are broken change nothing: an
// administrator who is copying one must not lock everybody out, and one who
// wants nobody trusted leaves the setting out.
func (a *anchors) roots() *x509.CertPool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if now := a.now(); now.Sub(a.read) >= refreshEvery {
		a.read = now
		pool, seen, err := readAnchors(a.paths)
		switch {
		case err != nil:
			a.logger.Warn("trusted certificates cannot be read", slog.Any("error", err))
		case !bytes.Equal(seen, a.seen):
			a.pool, a.seen = pool, seen
		}
	}
	return a.pool
}

// endorse accepts a key whose certificate leads to an anchor.
func (a *anchors) endorse(k jose.JSONWebKey, chain []*x509.Certificate) error {
	if len(chain) == 0 {
		return errors.New("the key in the header has no certificate")
	}
	if !same(k.Key, chain[0].PublicKey) {
		return errors.New("the certificate in the header is that of another key")
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: a.roots(), Intermediates: between, CurrentTime: a.now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	return err
}

// readAnchors reads certificate files and returns them with their contents, by
// which a change is noticed.
func readAnchors(paths []string) (*x509.CertPool, []byte, error) {
	pool, seen := x509.NewCertPool(), &bytes.Buffer{}
	for _, path := range paths {
		raw, err := readFile(path)
		if err != nil {
			return nil, nil, fmt.Errorf("trusted certificates: %w", err)
		}
		certs, err := parseCertificates(raw)
		if err == nil && len(certs) == 0 {
			err = errors.New("there is none")
		}
		if err != nil {
			return nil, nil, fmt.Errorf("trusted certificates: %s: %w", path, err)
		}
		for _, c := range certs {
			pool.AddCert(c)
		}
		_, _ = seen.Write(raw)
	}
	return pool, seen.Bytes(), nil
}
