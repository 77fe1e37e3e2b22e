package snp

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure"
)

// examination is one piece of evidence with what was found out about it
// before the checks.
type examination struct {
	v            *Verifier
	now          time.Time
	report       *Report
	raw          []byte
	certificates []Certificate
	leaf         *leaf // nil if there is none, and leafErr says why
	leafErr      error
	generation   Generation // empty if unknown, and genErr says why
	genErr       error
	root         *root             // above the leaf; nil if none of the trusted
	signer       *x509.Certificate // of the leaf, signed by the root
	key          chainKey
	keyed        bool  // the chain may be remembered under key
	known        bool  // and is: it was found good before
	signature    *bool // see signed
}

// examine parses evidence. An error is about its form.
func (v *Verifier) examine(ctx context.Context, ev measure.Evidence) (*examination, error) {
	r, certs, err := splitEvidence(ev)
	if err != nil {
		return nil, err
	}
	a := &examination{v: v, now: v.now(), report: r, raw: r.Marshal()}
	a.key, a.keyed = keyOf(certs, r)
	if a.recall() {
		return a, nil
	}
	if a.certificates, err = parseCertificates(certs); err != nil {
		return nil, fmt.Errorf("SNP evidence: cert_chain: %w", err)
	}
	a.nameGeneration()
	if a.fetchLeaf(ctx); a.recall() {
		return a, nil
	}
	a.findLeaf()
	if r.Version < 3 && a.leaf != nil {
		a.generation, a.genErr = a.leaf.generation()
	}
	a.findRoot(ctx)
	return a, nil
}

// recall takes over what was found out about the chain before.
func (a *examination) recall() bool {
	if !a.keyed {
		return false
	}
	found, known := a.v.chains.find(a.key)
	if !known || found.leaf.kind != a.report.SigningKey() {
		return false
	}
	a.known = true
	a.certificates, a.leaf, a.root, a.signer = found.certificates, found.leaf, found.root, found.signer
	a.generation, a.genErr = a.report.Generation()
	return true
}

func (a *examination) nameGeneration() {
	if a.report.Version >= 3 {
		a.generation, a.genErr = a.report.Generation()
		return
	}
	a.genErr = errors.New("neither the report nor a certificate names the processor")
}

// leafType is the entry of the certificate table that must hold the leaf.
func leafType(k SigningKey) (CertType, bool) {
	switch k {
	case VCEK:
		return CertVCEK, true
	case VLEK:
		return CertVLEK, true
	case Unsigned:
	}
	return "", false
}

// fetchLeaf asks the source for the certificate of the chip where the evidence
// came without. The source keeps it, so this costs a lookup from then on.
func (a *examination) fetchLeaf(ctx context.Context) {
	r := a.report
	if r.SigningKey() != VCEK || a.generation == "" || len(certificate(a.certificates, CertVCEK)) > 0 || r.ChipID == [64]byte{} {
		return
	}
	der, err := a.v.source.VCEK(ctx, a.generation, a.generation.HardwareID(r.ChipID), r.ReportedTCB)
	if err != nil {
		if !errors.Is(err, errNoSource) {
			a.leafErr = fmt.Errorf("the evidence has no VCEK certificate, and it was not to be had: %w", err)
		}
		return
	}
	a.certificates = append(a.certificates, Certificate{Type: CertVCEK, Data: der})
	a.key.sum = sha256.Sum256(der)
	a.keyed = a.keyed && len(a.certificates) == 1 // others that came along are not in the sum
}

func (a *examination) findLeaf() {
	kind := a.report.SigningKey()
	entry, ok := leafType(kind)
	if !ok {
		a.leafErr = fmt.Errorf("the report is signed by a key of kind %s, want VCEK or VLEK", kind)
		return
	}
	der := certificate(a.certificates, entry)
	if len(der) == 0 {
		if a.leafErr == nil {
			a.leafErr = fmt.Errorf("the evidence has no %s certificate, and no source to fetch it from is configured", kind)
		}
		return
	}
	l, err := parseLeaf(der)
	if err == nil && l.kind != kind {
		err = fmt.Errorf("it is one of a %s", l.kind)
	}
	if err != nil {
		a.leafErr = fmt.Errorf("the %s certificate is malformed: %w", kind, err)
		return
	}
	a.leaf = l
}

// findRoot looks for the root above the leaf: under the signing certificates
// that are built in, and then under the one that the source has, for a vendor
// may replace it under the same root.
func (a *examination) findRoot(ctx context.Context) {
	if a.leaf == nil {
		return
	}
	for _, r := range a.v.roots[a.generation] {
		if s := r.signer(a.leaf.kind); s != nil && issued(a.leaf.cert, s) == nil {
			a.root, a.signer = r, s
			return
		}
	}
	if a.generation == "" {
		return
	}
	chain, err := a.v.source.Chain(ctx, a.generation, a.leaf.kind)
	if err != nil {
		return // reportRoot says which roots there are
	}
	for _, r := range a.v.roots[a.generation] {
		if s, err := r.parseSigner(chain, a.leaf.kind); err == nil && issued(a.leaf.cert, s) == nil {
			a.root, a.signer = r, s
			return
		}
	}
}
