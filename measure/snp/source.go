package snp

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure"
)

// A Source finds what AMD publishes about its keys. Everything in it is signed,
// so it may come from anywhere. Package collateral implements it over the
// network, a cache, files and kits for machines without a network.
type Source interface {
	// RevocationList returns the list (DER or PEM) of a generation's root, as it
	// is published beside the certificates of a kind of keys.
	RevocationList(ctx context.Context, g Generation, k SigningKey) ([]byte, error)
	// Chain returns, in PEM, the certificate that signs leaves of a kind, and
	// the root above it.
	Chain(ctx context.Context, g Generation, k SigningKey) ([]byte, error)
	// VCEK returns the certificate (DER) of a chip's key for a TCB. The chip is
	// its hardware id: 64 bytes, or 8 on Turin.
	VCEK(ctx context.Context, g Generation, chip []byte, tcb TCB) ([]byte, error)
}

// noSource stands where nobody configured one.
type noSource struct{}

var errNoSource = errors.New("no source of collateral is configured")

func (noSource) RevocationList(context.Context, Generation, SigningKey) ([]byte, error) {
	return nil, errNoSource
}
func (noSource) Chain(context.Context, Generation, SigningKey) ([]byte, error) {
	return nil, errNoSource
}
func (noSource) VCEK(context.Context, Generation, []byte, TCB) ([]byte, error) {
	return nil, errNoSource
}

// parseSigner reads a chain as [Source] returns it, and gives the certificate
// that signs leaves if a root signed it for that.
func (r *root) parseSigner(chain []byte, k SigningKey) (*x509.Certificate, error) {
	block, _ := pem.Decode(chain)
	if block == nil || block.Type != pemCertificate {
		return nil, errors.New("the chain is not PEM")
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, err
	}
	return r.accept(c, k)
}

// lists remembers the revocation lists that were found to be signed by a root,
// since a source returns the same for days.
type lists struct {
	mu    sync.Mutex
	known map[listKey]*x509.RevocationList
}

type listKey struct {
	root *root
	sum  [sha256.Size]byte
}

// maxLists bounds the lists that are remembered. There are two for each root,
// and each is replaced a few times a year.
const maxLists = 64

// read returns a root's list. One that another root signed is an error.
func (l *lists) read(r *root, raw []byte) (*x509.RevocationList, error) {
	k := listKey{r, sha256.Sum256(raw)}
	l.mu.Lock()
	found, ok := l.known[k]
	l.mu.Unlock()
	if ok {
		return found, nil
	}
	crl, err := parseCRL(raw)
	if err != nil {
		return nil, err
	}
	if err := r.vouches(crl); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known == nil || len(l.known) >= maxLists {
		l.known = map[listKey]*x509.RevocationList{}
	}
	l.known[k] = crl
	return crl, nil
}

// errRevoked is a signing key that its root took back. No waiver covers it.
var errRevoked = errors.New("is revoked")

// checkRevocation looks the signer of the leaf up in the root's lists: the one
// that was configured, and the one that the source has. AMD revokes signing
// keys, never a leaf: those all have the serial number 0, and a newer TCB
// supersedes them.
func (a *examination) checkRevocation(ctx context.Context) measure.Check {
	var t measure.Tally
	if a.root == nil {
		t.Fail(errors.New("without a trusted root there is no list to look in"))
		return t.Check(measure.CheckRevocation)
	}
	newest, err := a.newestList(ctx)
	note := ""
	if err == nil {
		note, err = a.current(newest)
	}
	if err != nil && a.v.noRevoke && !errors.Is(err, errRevoked) {
		return measure.Check{
			Name: measure.CheckRevocation, Outcome: measure.Waived,
			Reason: fmt.Sprintf("%s; waived by configuration (UnsafeNoRevocation)", err),
		}
	}
	if err != nil {
		t.Fail(err)
	}
	c := t.Check(measure.CheckRevocation)
	if err == nil {
		c.Reason = note
	}
	return c
}

// newestList returns the newest of the root's lists, or an error if any of
// them revokes the signer, or there is none.
func (a *examination) newestList(ctx context.Context) (newest *x509.RevocationList, err error) {
	var why error
	all := []*x509.RevocationList{a.root.crl}
	raw, err := a.v.source.RevocationList(ctx, a.root.generation, a.leaf.kind)
	if err == nil {
		var crl *x509.RevocationList
		crl, err = a.v.lists.read(a.root, raw)
		all = append(all, crl)
	}
	if err != nil && !errors.Is(err, errNoSource) {
		why = err
	}
	for _, crl := range all {
		if crl == nil {
			continue
		}
		for _, entry := range crl.RevokedCertificateEntries {
			if entry.SerialNumber.Cmp(a.signer.SerialNumber) == 0 {
				return nil, fmt.Errorf("the signing key (%s) %w since %s", a.signer.Subject.CommonName, errRevoked, entry.RevocationTime.Format(time.RFC3339))
			}
		}
		if newest == nil || crl.ThisUpdate.After(newest.ThisUpdate) {
			newest = crl
		}
	}
	switch {
	case newest != nil:
		return newest, nil
	case why != nil:
		return nil, fmt.Errorf("no revocation list of %s is at hand: %w", a.root.name, why)
	}
	return nil, fmt.Errorf("no revocation list of %s is configured", a.root.name)
}

// current judges the dates of a list. What is accepted only by grace is noted.
func (a *examination) current(crl *x509.RevocationList) (note string, err error) {
	name, now := a.root.name, a.now
	switch {
	case now.Before(crl.ThisUpdate):
		return "", fmt.Errorf("the revocation list of %s is from %s, after the time of verification", name, crl.ThisUpdate.Format(time.RFC3339))
	case crl.NextUpdate.IsZero():
		return "", fmt.Errorf("the revocation list of %s does not say until when it holds", name)
	case now.After(crl.NextUpdate.Add(a.v.grace)):
		return "", fmt.Errorf("the revocation list of %s was to be renewed by %s", name, crl.NextUpdate.Format(time.RFC3339))
	case now.After(crl.NextUpdate):
		return fmt.Sprintf("the revocation list of %s was to be renewed by %s; accepted within the grace of %s", name, crl.NextUpdate.Format(time.RFC3339), a.v.grace), nil
	}
	return "", nil
}
