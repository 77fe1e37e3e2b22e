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
	// Source finds what the evidence and this configuration lack: revocation
	// lists, certificates of chips, chains. Nil means that there is none.
	Source Source
	// Grace is how long a revocation list counts after it was to be renewed.
	// The zero value is none; what is accepted by grace is noted in the check.
	Grace time.Duration
	// Require is what is demanded beyond genuine evidence.
	Require Requirements
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Verifier judges SNP evidence. What it trusts does not change after it was
// made. It remembers the chains that it found good.
type Verifier struct {
	roots    map[Generation][]*root
	noRevoke bool
	source   Source
	grace    time.Duration
	require  Requirements
	now      func() time.Time
	chains   chains
	lists    lists
}

// NewVerifier checks the configuration as a whole: names, bundles, and the
// signatures of the revocation lists.
func NewVerifier(c VerifierConfig) (*Verifier, error) {
	v := &Verifier{
		roots: map[Generation][]*root{}, noRevoke: c.UnsafeNoRevocation,
		source: c.Source, grace: c.Grace, require: c.Require, now: c.Now,
	}
	if v.source == nil {
		v.source = noSource{}
	}
	if c.Grace < 0 {
		return nil, errors.New("the grace is negative")
	}
	if err := c.Require.validate(); err != nil {
		return nil, err
	}
	if v.now == nil {
		v.now = time.Now
	}
	for g := range c.RevocationLists {
		if _, err := ParseGeneration(string(g)); err != nil {
			return nil, fmt.Errorf("revocation list: %w", err)
		}
	}
	all, err := allRoots(c.RevocationLists, c.UnsafeSimulatedRoots)
	if err != nil {
		return nil, err
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
	a, err := v.examine(ctx, ev)
	if err != nil {
		return verdict, err
	}
	verdict.Checks = []measure.Check{
		a.checkReport(),
		a.checkSignature(),
		a.checkChain(),
		a.checkRevocation(ctx),
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
		v.chains.remember(a.key, chain{certificates: a.certificates, leaf: a.leaf, root: a.root, signer: a.signer})
	}
	return verdict, err
}
