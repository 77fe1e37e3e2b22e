package snp

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure"
)

// CheckReport is a check of this platform beside those that all platforms
// have: whether the report is of a kind that may be judged at all, by its
// version, processor and privilege level.
const CheckReport measure.CheckName = "report"

// VerifierConfig says what a [Verifier] trusts. The zero value trusts AMD's
// roots and has no revocation lists, so it refuses everything: configure the
// lists, or waive them.
type VerifierConfig struct {
	// RevocationLists are AMD's CRLs in DER or PEM, as
	// https://kdsintf.amd.com/vcek/v1/{generation}/crl serves them.
	RevocationLists map[Generation][]byte
	// UnsafeSimulatedRoots are trusted beside AMD's roots. Evidence under one
	// carries no proof of hardware at all.
	UnsafeSimulatedRoots []SimulatedRoot
	// UnsafeNoRevocation accepts a chain without a current revocation list. A
	// key that a list at hand revokes is refused all the same.
	UnsafeNoRevocation bool
	// UnsafeReportVersion2 accepts reports of version 2, which do not name
	// their processor. The verifiers of the field refuse them.
	UnsafeReportVersion2 bool
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Verifier judges SNP evidence. What it trusts does not change after it was
// made, and it never uses the network. It remembers the chains that it found
// good.
type Verifier struct {
	roots     map[Generation][]*root
	noRevoke  bool
	acceptOld bool
	now       func() time.Time
	chains    chains
}

// NewVerifier checks the configuration as a whole: names, bundles, and the
// signatures of the revocation lists.
func NewVerifier(c VerifierConfig) (*Verifier, error) {
	v := &Verifier{
		roots: map[Generation][]*root{}, noRevoke: c.UnsafeNoRevocation,
		acceptOld: c.UnsafeReportVersion2, now: c.Now,
	}
	if v.now == nil {
		v.now = time.Now
	}
	for g := range c.RevocationLists {
		if _, err := ParseGeneration(string(g)); err != nil {
			return nil, fmt.Errorf("revocation list: %w", err)
		}
	}
	all, err := amdRoots(c.RevocationLists)
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, s := range c.UnsafeSimulatedRoots {
		r, err := simulatedRoot(s)
		if err != nil {
			return nil, err
		}
		if seen[r.name] {
			return nil, fmt.Errorf("two simulated roots are named %q", r.name)
		}
		seen[r.name] = true
		for _, amd := range all {
			if !amd.simulated && sameKey(amd.ark, r.ark) {
				return nil, fmt.Errorf("simulated root %q is the root of %s", r.name, amd.name)
			}
		}
		all = append(all, r)
	}
	for _, r := range all {
		v.roots[r.generation] = append(v.roots[r.generation], r)
	}
	return v, nil
}

// Platform returns [measure.SNP].
func (v *Verifier) Platform() measure.Platform { return measure.SNP }

// Verify judges evidence as [measure.Verifier] demands. All checks are made
// whatever the others found. Evidence that cannot be parsed gives a plain
// error; anything else gives a verdict, and if a check failed a
// *[measure.VerificationError], whose UntrustedRoot method singles out
// evidence that is whole but ends in a root that is not trusted here.
//
// Signature, chain and TCB are checked twice where a chain is seen for the
// first time: by this package, which can name each finding, and by
// go-sev-guest. Both must agree. Turin is the exception, because go-sev-guest
// does not know its certificates. From then on, what the chain's bytes alone
// decide is not computed again; all that the report and the time decide is,
// by this package.
func (v *Verifier) Verify(ctx context.Context, ev measure.Evidence, want measure.Expected) (measure.Verdict, error) {
	verdict := measure.Verdict{Platform: measure.SNP, Class: "cpu"}
	if err := ctx.Err(); err != nil {
		return verdict, err
	}
	if err := want.Validate(); err != nil {
		return verdict, err
	}
	a, err := v.examine(ev)
	if err != nil {
		return verdict, err
	}
	verdict.Checks = []measure.Check{
		a.checkReport(),
		a.checkSignature(),
		a.checkChain(),
		a.checkRevocation(),
		a.checkTCB(),
		checkBinding(a.report, want.ReportData),
		checkInitData(a.report, want.InitData),
		{Name: measure.CheckEventLog, Outcome: measure.NotApplicable, Reason: "SNP keeps no event log"},
	}
	if a.root != nil {
		verdict.Root = measure.Root{Name: a.root.name, Simulated: a.root.simulated}
	}
	verdict.Claims = a.claims()
	err = verdict.Err()
	if err == nil && !a.known && a.keyed {
		v.chains.remember(a.key, chain{certificates: a.certificates, leaf: a.leaf, root: a.root})
	}
	return verdict, err
}

// examination is one piece of evidence with what was found out about it
// before the checks.
type examination struct {
	v            *Verifier
	now          time.Time
	report       *Report
	raw          []byte
	certificates []Certificate
	leaf         *vcek // nil if there is none, and leafErr says why
	leafErr      error
	generation   Generation // empty if unknown, and genErr says why
	genErr       error
	root         *root // whose ASK signed the leaf; nil if none of the trusted
	key          chainKey
	keyed        bool  // the chain may be remembered under key
	known        bool  // and is: it was found good before
	signature    *bool // see signed
}

// examine parses evidence. An error is about its form.
func (v *Verifier) examine(ev measure.Evidence) (*examination, error) {
	r, certs, err := splitEvidence(ev)
	if err != nil {
		return nil, err
	}
	a := &examination{v: v, now: v.now(), report: r, raw: r.Marshal()}
	a.key, a.keyed = keyOf(certs, r)
	if a.keyed && r.SigningKey() == VCEK {
		var found chain
		if found, a.known = v.chains.find(a.key); a.known {
			a.certificates, a.leaf, a.root = found.certificates, found.leaf, found.root
			a.generation, a.genErr = r.Generation()
			return a, nil
		}
	}
	if a.certificates, err = parseCertificates(certs); err != nil {
		return nil, fmt.Errorf("SNP evidence: cert_chain: %w", err)
	}
	a.findLeaf()
	a.findRoot()
	return a, nil
}

func (a *examination) findLeaf() {
	switch der := certificate(a.certificates, CertVCEK); {
	case a.report.SigningKey() != VCEK:
		a.leafErr = fmt.Errorf("the report is signed by a key of kind %s, only VCEK is supported", a.report.SigningKey())
	case len(der) == 0:
		a.leafErr = errors.New("the evidence has no VCEK certificate, and this verifier does not fetch it from AMD")
	default:
		if a.leaf, a.leafErr = parseVCEK(der); a.leafErr != nil {
			a.leafErr = fmt.Errorf("the VCEK certificate is malformed: %w", a.leafErr)
		}
	}
}

func (a *examination) findRoot() {
	switch {
	case a.report.Version >= 3:
		a.generation, a.genErr = a.report.Generation()
	case a.leaf != nil:
		a.generation, a.genErr = a.leaf.generation()
	default:
		a.genErr = errors.New("neither the report nor a certificate names the processor")
	}
	if a.leaf == nil {
		return
	}
	for _, r := range a.v.roots[a.generation] {
		if a.leaf.cert.CheckSignatureFrom(r.ask) == nil {
			a.root = r
			return
		}
	}
}
