package refvalue

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/measure/refvalue"
)

const prefixSigner = "refvalue/signer/"

// Limits of signers.
const (
	maxSigners   = 256
	maxPublicKey = 16 << 10 // bytes of PEM
	maxPrefixes  = 64
)

// ErrSigner says that a signer is not registrable.
var ErrSigner = errors.New("refvalue: invalid signer")

var (
	signerForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
	prefixForm = regexp.MustCompile(`^[A-Za-z0-9._/-]{0,256}$`)
)

// PutSignerTx registers who may sign documents.
func (r *Registry) PutSignerTx(tx store.Tx, s api.Signer) (api.Signer, error) {
	if !signerForm.MatchString(s.Name) {
		return s, fmt.Errorf("%w: its name must be 1 to 64 of letters, digits and . _ -", ErrSigner)
	}
	if len(s.Prefixes) == 0 || len(s.Prefixes) > maxPrefixes || slices.ContainsFunc(s.Prefixes, func(p string) bool { return !prefixForm.MatchString(p) }) {
		return s, fmt.Errorf("%w: it needs 1 to %d prefixes of names; one that is empty means every name", ErrSigner, maxPrefixes)
	}
	if _, err := parsePublicKey(s.PublicKey); err != nil {
		return s, err
	}
	all, err := tx.List(prefixSigner, "", maxSigners+1)
	if err != nil {
		return s, err
	}
	if len(all) >= maxSigners && !slices.ContainsFunc(all, func(rec store.Record) bool { return rec.Key == prefixSigner+s.Name }) {
		return s, fmt.Errorf("%w: there are %d already", ErrSigner, maxSigners)
	}
	want := store.Version(s.Version)
	s.Version, s.Time = 0, r.now().UTC()
	record, err := json.Marshal(s)
	if err != nil {
		return s, fmt.Errorf("refvalue: %w", err)
	}
	version, err := tx.Put(prefixSigner+s.Name, record, want)
	s.Version = int64(version)
	return s, err
}

// DeleteSignerTx forgets a signer. What it signed stays: withdraw the sets.
func (r *Registry) DeleteSignerTx(tx store.Tx, name string, want store.Version) error {
	if !signerForm.MatchString(name) {
		return store.ErrNotFound
	}
	return tx.Delete(prefixSigner+name, want)
}

// Signer returns a signer; store.ErrNotFound if there is none.
func (r *Registry) Signer(ctx context.Context, name string) (s api.Signer, err error) {
	if !signerForm.MatchString(name) {
		return s, store.ErrNotFound
	}
	err = r.st.View(ctx, func(tx store.Tx) error {
		rec, err := tx.Get(prefixSigner + name)
		if err != nil {
			return err
		}
		s, err = decodeSigner(rec)
		return err
	})
	return s, err
}

// Signers lists all signers by name.
func (r *Registry) Signers(ctx context.Context) ([]api.Signer, error) {
	return list(ctx, r.st, prefixSigner, "", maxSigners, decodeSigner)
}

func decodeSigner(rec store.Record) (s api.Signer, err error) {
	if err := json.Unmarshal(rec.Value, &s); err != nil {
		return s, fmt.Errorf("refvalue: the record of signer %s is damaged: %w", rec.Key[len(prefixSigner):], err)
	}
	s.Version = int64(rec.Version)
	return s, nil
}

// signerOf finds the signer whose key verifies a document. The key id of the
// document is where the search begins, and no more.
func (r *Registry) signerOf(ctx context.Context, e *refvalue.Envelope) (api.Signer, error) {
	all, err := r.Signers(ctx)
	if err != nil {
		return api.Signer{}, err
	}
	hint := e.KeyID()
	slices.SortStableFunc(all, func(a, b api.Signer) int {
		switch {
		case a.Name == hint && b.Name != hint:
			return -1
		case b.Name == hint && a.Name != hint:
			return 1
		}
		return 0
	})
	for _, s := range all {
		key, err := parsePublicKey(s.PublicKey)
		if err != nil {
			return api.Signer{}, fmt.Errorf("signer %s: %w", s.Name, err)
		}
		if e.Verify(key) == nil {
			return s, nil
		}
	}
	return api.Signer{}, fault.Newf(fault.SignatureRejected, "none of the %d registered signers made the signature (its key id is %.80q)", len(all), hint)
}

func mayName(s api.Signer, name string) bool {
	return slices.ContainsFunc(s.Prefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}

// parsePublicKey reads one PEM block: a public key, or a certificate for the
// sake of its key.
func parsePublicKey(text string) (crypto.PublicKey, error) {
	if len(text) > maxPublicKey {
		return nil, fmt.Errorf("%w: its key has more than %d bytes", ErrSigner, maxPublicKey)
	}
	block, rest := pem.Decode([]byte(text))
	if block == nil || strings.TrimSpace(string(rest)) != "" {
		return nil, fmt.Errorf("%w: its key is not one block of PEM", ErrSigner)
	}
	var key any
	var err error
	switch block.Type {
	case "PUBLIC KEY":
		key, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "CERTIFICATE":
		var cert *x509.Certificate
		if cert, err = x509.ParseCertificate(block.Bytes); err == nil {
			key = cert.PublicKey
		}
	default:
		err = fmt.Errorf("a block of type %.40q", block.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: its key: %w", ErrSigner, err)
	}
	switch k := key.(type) {
	case ed25519.PublicKey:
		return k, nil
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() || k.Curve == elliptic.P384() {
			return k, nil
		}
	}
	return nil, fmt.Errorf("%w: its key must be Ed25519, P-256 or P-384, is %T", ErrSigner, key)
}
