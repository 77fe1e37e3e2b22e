package dcap

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/internal/known"
)

// Config says what a [Judge] trusts. The zero value trusts Intel's root and
// has no collateral, so it refuses everything: give a source, or waive it.
type Config struct {
	// TEE is whose quotes are judged; it must be set.
	TEE TEE
	// Source finds collateral. Without one, revocation and TCB fail.
	Source Source
	// Accepted are the TCB statuses that pass; none means UpToDate alone.
	// Revoked cannot be accepted.
	Accepted []Status
	// MinEvaluation is the lowest tcbEvaluationDataNumber that TCB info and QE
	// identity may have. It stops who would serve an old, still valid judgement
	// after a TCB recovery.
	MinEvaluation uint32
	// Grace is for how long collateral is used after it was to be renewed. The
	// check is then waived, not passed, and the claims say that it has expired.
	Grace time.Duration
	// UnsafeNoCollateral accepts a platform whose collateral cannot be had:
	// nobody then knows whether its keys leaked or its firmware is broken.
	// Collateral that is at hand counts all the same.
	UnsafeNoCollateral bool
	// UnsafeSimulatedRoots are trusted beside Intel's root. Evidence under one
	// carries no proof of hardware at all.
	UnsafeSimulatedRoots []SimulatedRoot
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// How much a judge remembers. A platform has one chain and one quoting enclave
// for months, and all platforms of a kind share their collateral.
const (
	maxCertified = 4096
	maxEndorsed  = 512
)

// Judge tells what a quote is worth up to its body: that Intel's hardware
// signed it, and in which state that was. The body is for the package of the
// TEE to judge. It remembers what it found good, within bounds, and is safe
// for concurrent use.
type Judge struct {
	config    Config
	roots     []*root
	certified *known.Set[known.Key, certified]
	endorsed  *known.Set[endorsedKey, endorsedValue]
}

// certified is an attestation key that was found to be that of an Intel
// quoting enclave, in all that the time does not decide.
type certified struct {
	chain *chain
	key   *ecdsa.PublicKey
}

type endorsedKey struct {
	root  *root
	ca    string // the raw certificate of the PCK CA
	fmspc [6]byte
}

// endorsedValue is collateral of which every part was found good. Its bytes
// are the judge's own.
type endorsedValue struct {
	collateral   Collateral
	endorsements *endorsements
}

// NewJudge checks the configuration as a whole.
func NewJudge(c Config) (*Judge, error) {
	if c.TEE != TDX && c.TEE != SGX {
		return nil, fmt.Errorf("a TEE %q has no quotes", c.TEE)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if len(c.Accepted) == 0 {
		c.Accepted = []Status{UpToDate}
	}
	for _, s := range c.Accepted {
		if _, err := ParseStatus(string(s)); err != nil {
			return nil, err
		}
	}
	if c.Grace < 0 {
		return nil, errors.New("a grace must not be negative")
	}
	roots, err := trustedRoots(c.UnsafeSimulatedRoots)
	if err != nil {
		return nil, err
	}
	return &Judge{
		config: c, roots: roots,
		certified: known.New[known.Key, certified](maxCertified),
		endorsed:  known.New[endorsedKey, endorsedValue](maxEndorsed),
	}, nil
}

// Opinion is what a judge found out about a quote.
type Opinion struct {
	Root measure.Root
	// Checks are signature, chain, revocation and tcb, in this order.
	Checks []measure.Check
	// Claims are those of the collateral and of the PCK certificate
	// (kbs-protocol 16.3), with what they leave out.
	Claims measure.Claims
}

// Judge judges a quote. The module is what a TD's report says of its TDX
// module; nil for SGX. All checks are made whatever the others found.
func (j *Judge) Judge(ctx context.Context, q *Quote, module *Module) Opinion {
	e := j.examine(ctx, q, module)
	var o Opinion
	signature := e.checkSignature()
	chain := e.checkChain()
	o.Checks = []measure.Check{signature, chain, e.checkRevocation(), e.checkTCB()}
	if e.chain != nil && e.chain.root != nil {
		o.Root = measure.Root{Name: e.chain.root.name, Simulated: e.chain.root.simulated}
	}
	o.Claims = e.claims()
	if !e.known && signature.Outcome == measure.Passed && chain.Outcome == measure.Passed {
		j.certified.Remember(e.id, certified{chain: e.chain, key: e.key})
	}
	return o
}

// examination is one quote with what was found out about it before the checks.
type examination struct {
	j      *Judge
	now    time.Time
	quote  *Quote
	module *Module

	id    [sha256.Size]byte // of all that ties the attestation key to the root
	known bool              // that was found good before
	key   *ecdsa.PublicKey  // the attestation key; nil if it is no point on the curve
	chain *chain            // nil if it cannot be read, and chainErr says why

	chainErr error

	endorsements  *endorsements // nil if there are none, and collateralErr says why
	collateralErr error
	evaluation    *Evaluation // set by checkTCB
}

func (j *Judge) examine(ctx context.Context, q *Quote, module *Module) *examination {
	e := &examination{j: j, now: j.config.Now(), quote: q, module: module}
	h := sha256.New()
	h.Write(q.Key[:])
	h.Write(q.certified)
	h.Sum(e.id[:0])
	var good certified
	if good, e.known = j.certified.Find(e.id); e.known {
		e.chain, e.key = good.chain, good.key
	} else {
		e.chain, e.chainErr = readChain(q.Chain, j.roots)
		e.key, _ = ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append([]byte{4}, q.Key[:]...))
	}
	e.findCollateral(ctx)
	return e
}

// findCollateral asks the source, and checks the signatures of what it gives.
func (e *examination) findCollateral(ctx context.Context) {
	switch {
	case e.chain == nil:
		e.collateralErr = errors.New("without a PCK certificate no collateral can be looked for")
		return
	case !e.chain.sound():
		// The source may have to ask a service, and a stranger's certificate must
		// not decide what for.
		e.collateralErr = errors.New("without a chain to a trusted root no collateral is looked for")
		return
	case e.j.config.Source == nil:
		e.collateralErr = errNoSource
		return
	}
	pck := e.chain.pck
	c, err := e.j.config.Source.Collateral(ctx, Request{TEE: e.j.config.TEE, FMSPC: pck.FMSPC, CA: pck.CA})
	if err != nil {
		e.collateralErr = fmt.Errorf("collateral: %w", err)
		return
	}
	key := endorsedKey{root: e.chain.root, ca: string(e.chain.ca.Raw), fmspc: pck.FMSPC}
	if good, ok := e.j.endorsed.Find(key); ok && good.collateral.equal(c) {
		e.endorsements = good.endorsements
		return
	}
	e.endorsements = endorse(c, e.j.config.TEE, e.chain.root, e.chain.ca)
	if e.endorsements.whole() {
		e.j.endorsed.Remember(key, endorsedValue{collateral: c.clone(), endorsements: e.endorsements})
	}
}

var errNoSource = errors.New("no collateral is configured")

func (c *Collateral) parts() []*[]byte {
	return []*[]byte{&c.TCBInfo, &c.TCBInfoChain, &c.QEIdentity, &c.QEIdentityChain, &c.PCKCRL, &c.PCKCRLChain, &c.RootCRL}
}

func (c Collateral) equal(o Collateral) bool {
	return slices.EqualFunc(c.parts(), o.parts(), func(a, b *[]byte) bool { return string(*a) == string(*b) })
}

func (c Collateral) clone() Collateral {
	for _, p := range c.parts() {
		*p = slices.Clone(*p)
	}
	return c
}
