// Package collateral keeps what vendors publish about their platforms and what
// verifiers need to judge evidence: Intel's TCB info, identities and revocation
// lists, AMD's revocation lists, chains and certificates of chips. A [Store]
// finds it for packages dcap and snp, which know nothing of networks.
//
// All of it is signed by the vendors, so it may come from anywhere: Intel's
// PCS, a PCCS, AMD's KDS, files, or a kit that was carried to a machine without
// a network. What comes in is checked all the same, for name, signature and
// dates, before it takes the place of anything: a service that misbehaves must
// not spoil what is there. An edition older than the one at hand is refused.
//
// A verifier asks for collateral with every piece of evidence, and a vendor's
// service takes a second and allows few requests. So what was fetched once is
// kept, on disk too, until its own end; [Store.Run] renews it in the
// background well before. Only what was never asked for is fetched while
// somebody waits, once for all who wait.
package collateral

import (
	"context"
	"crypto/x509"
	"errors"

	"github.com/vouchsafe-cc/vouchsafe/measure/dcap"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
)

// Both answer the verifiers of both vendors.
var (
	_ dcap.Source = (*Store)(nil)
	_ snp.Source  = (*Store)(nil)
	_ dcap.Source = (*Shelf)(nil)
	_ snp.Source  = (*Shelf)(nil)
)

// Authorities returns those who may have signed collateral: AMD's and Intel's
// certificates, and those of simulated vendors that a configuration names.
func Authorities(amd []snp.SimulatedRoot, intel []dcap.SimulatedRoot) ([]*x509.Certificate, error) {
	a, errAMD := snp.Authorities(amd)
	i, errIntel := dcap.Authorities(intel)
	return append(a, i...), errors.Join(errAMD, errIntel)
}

// Names lists the collateral that a request is for.
func Names(r dcap.Request) []Name {
	return []Name{TCBInfo(r.TEE, r.FMSPC), QEIdentity(r.TEE), PCKCRL(r.CA), RootCRL}
}

// source answers verifiers out of items.
type source struct {
	// items returns the items of names, all or an error. Those that have to be
	// fetched are wanted at once, so that a cold request waits for the slowest
	// and not for the sum.
	items func(ctx context.Context, names ...Name) ([]Item, error)
}

// Collateral implements [dcap.Source].
func (s source) Collateral(ctx context.Context, r dcap.Request) (dcap.Collateral, error) {
	items, err := s.items(ctx, Names(r)...)
	if err != nil {
		return dcap.Collateral{}, err
	}
	info, identity, pck, root := items[0], items[1], items[2], items[3]
	return dcap.Collateral{
		TCBInfo: info.Body, TCBInfoChain: info.Chain,
		QEIdentity: identity.Body, QEIdentityChain: identity.Chain,
		PCKCRL: pck.Body, PCKCRLChain: pck.Chain,
		RootCRL: root.Body,
	}, nil
}

// RevocationList implements [snp.Source].
func (s source) RevocationList(ctx context.Context, g snp.Generation, k snp.SigningKey) ([]byte, error) {
	return s.body(ctx, AMDList(g, k))
}

// Chain implements [snp.Source].
func (s source) Chain(ctx context.Context, g snp.Generation, k snp.SigningKey) ([]byte, error) {
	return s.body(ctx, AMDChain(g, k))
}

// VCEK implements [snp.Source].
func (s source) VCEK(ctx context.Context, g snp.Generation, chip []byte, tcb snp.TCB) ([]byte, error) {
	return s.body(ctx, VCEK(g, chip, tcb))
}

func (s source) body(ctx context.Context, n Name) ([]byte, error) {
	items, err := s.items(ctx, n)
	if err != nil {
		return nil, err
	}
	return items[0].Body, nil
}
