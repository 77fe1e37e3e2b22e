package token

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/keyring"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

const (
	nameCA = "token/ca"
	// lifetimeCA bounds the broker's own authority and all that it certifies.
	lifetimeCA = 10 * 365 * 24 * time.Hour
)

// authority certifies the keys that the broker makes for itself. A relying
// party that trusts it once (trusted_certs_paths, kbs-protocol 5.2) goes on
// trusting when the keys are rotated.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

// openAuthority returns the authority in the ring, made where there is none.
func openAuthority(ctx context.Context, ring *keyring.Ring, now time.Time) (*authority, error) {
	text, err := ring.LoadOrCreate(ctx, nameCA, func() (secret.Bytes, error) { return newAuthority(now) })
	if err != nil {
		return nil, fmt.Errorf("token authority: %w", err)
	}
	defer text.Destroy()
	k, err := parseKey(text, "")
	if err != nil {
		return nil, fmt.Errorf("token authority: %w", err)
	}
	if k.private == nil || len(k.chain) != 1 {
		return nil, errors.New("token authority: the record is not one key and one certificate")
	}
	return &authority{key: k.private, cert: k.chain[0]}, nil
}

func newAuthority(now time.Time) (secret.Bytes, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("generate token authority: %w", err)
	}
	a := authority{key: private, cert: &x509.Certificate{
		Subject:               pkix.Name{CommonName: "Vouchsafe attestation token authority"},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(lifetimeCA),
		KeyUsage:              x509.KeyUsageCertSign,
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
	}}
	cert, err := a.certify(&private.PublicKey, a.cert)
	if err != nil {
		return secret.Bytes{}, err
	}
	k, err := newKey(&private.PublicKey, private, []*x509.Certificate{cert}, "")
	if err != nil {
		return secret.Bytes{}, err
	}
	return k.marshal()
}

// make returns a new key under the authority.
func (a *authority) make(now time.Time) (*key, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate token key: %w", err)
	}
	cert, err := a.certify(&private.PublicKey, &x509.Certificate{
		Subject:   pkix.Name{CommonName: "Vouchsafe attestation tokens"},
		NotBefore: now.Add(-time.Hour),
		NotAfter:  a.cert.NotAfter,
		KeyUsage:  x509.KeyUsageDigitalSignature,
	})
	if err != nil {
		return nil, err
	}
	return newKey(&private.PublicKey, private, []*x509.Certificate{cert, a.cert}, "")
}

func (a *authority) certify(public *ecdsa.PublicKey, template *x509.Certificate) (*x509.Certificate, error) {
	var err error
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)); err != nil {
		return nil, fmt.Errorf("certify token key: %w", err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, public, a.key)
	if err != nil {
		return nil, fmt.Errorf("certify token key: %w", err)
	}
	return x509.ParseCertificate(der)
}
