package tpm

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure"
)

// Values of the claim ak_trust: why the AK is trusted.
const (
	trustEnrolled  = "enrolled"
	trustCertified = "certified"
	trustSelf      = "self-declared"
	trustNone      = "none"
)

// examination is one piece of evidence with what was found out about its key.
type examination struct {
	v *Verifier
	e *Evidence
	*lasting
	now time.Time

	root      measure.Root
	how       string     // claim ak_trust: enrolled, certified, self-declared or none
	authority *authority // that certified the key
	chain     []*x509.Certificate
	chainErr  error // why a key that is not enrolled is not certified either
}

// findTrust finds out why the key may be trusted, if it may.
func (x *examination) findTrust() {
	x.how = trustNone
	if x.keyErr != nil {
		return
	}
	if root, ok := x.v.enrolled[x.spki]; ok {
		x.how, x.root = trustEnrolled, root
		return
	}
	x.findAuthority()
	if x.authority != nil {
		x.how, x.root = trustCertified, measure.Root{Name: x.authority.name, Simulated: x.authority.simulated}
		return
	}
	if x.v.selfDeclared {
		x.how, x.root = trustSelf, measure.Root{Name: RootSelfDeclared, Simulated: true}
	}
}

var errNoCertificate = errors.New("the evidence has no certificate of it")

// findAuthority looks for the authority that certified the key.
func (x *examination) findAuthority() {
	x.chainErr = errNoCertificate
	if len(x.e.AKCertificates) == 0 {
		return
	}
	if good, ok := x.v.chains.Find(x.chainID); ok && good.certifies(x.lasting, x.now) {
		x.authority, x.chain, x.chainErr = good.authority, good.chain, nil
		return
	}
	var certs []*x509.Certificate
	for _, der := range x.e.AKCertificates {
		c, err := parseCertificate(der)
		if err != nil {
			x.chainErr = fmt.Errorf("a certificate is malformed: %w", err)
			return
		}
		certs = append(certs, c)
	}
	leaf := certs[0]
	if k, ok := leaf.PublicKey.(publicKey); !ok || !k.Equal(x.key) {
		x.chainErr = errors.New("the certificate is of another key")
		return
	}
	x.chainErr = errors.New("its certificate is of no authority that is trusted")
	for _, a := range x.v.authorities {
		chain, err := a.chain(leaf, certs[1:], oidAKCertificate, x.now)
		if err == nil {
			x.authority, x.chain, x.chainErr = a, chain, nil
			x.v.chains.Remember(x.chainID, certified{a, chain, x.lasting})
			return
		}
		x.chainErr = fmt.Errorf("its certificate is not valid under %s: %w", a.name, err)
	}
}

// maxChains bounds the chains that a verifier remembers: one for each TPM.
const maxChains = 4096

// certified is a chain that was found to lead from an AK to an authority, in
// all that the time does not decide.
type certified struct {
	authority *authority
	chain     []*x509.Certificate
	of        *lasting
}

// certifies reports whether this is a chain of the machine's key, and valid now.
func (c certified) certifies(l *lasting, now time.Time) bool {
	if c.of != l { // may have the same key all the same
		if k, ok := c.of.key.(publicKey); !ok || !k.Equal(l.key) {
			return false
		}
	}
	return !slices.ContainsFunc(c.chain, func(c *x509.Certificate) bool {
		return now.Before(c.NotBefore) || now.After(c.NotAfter)
	})
}

func (x *examination) checkSignature() measure.Check {
	var t measure.Tally
	if err := x.e.signedBy(x.lasting); err != nil {
		t.Fail(err)
	}
	return t.Check(measure.CheckSignature)
}

func (x *examination) checkChain() measure.Check {
	switch x.how {
	case trustEnrolled, trustCertified:
		return measure.Check{Name: measure.CheckChain, Outcome: measure.Passed, Reason: "the AK is " + x.how + ": " + x.root.Name}
	case trustSelf:
		return measure.Check{
			Name: measure.CheckChain, Outcome: measure.Waived,
			Reason: "any AK is accepted by configuration (UnsafeSelfDeclaredKeys): nobody vouches for this one",
		}
	}
	var t measure.Tally
	if x.keyErr != nil {
		t.Fail(x.keyErr)
		return t.Check(measure.CheckChain)
	}
	seen := fmt.Sprintf("an AK that is not enrolled, SHA-256 %x", sha256.Sum256(x.e.AKPublic))
	if len(x.e.AKCertificates) > 0 {
		if c, err := x509.ParseCertificate(x.e.AKCertificates[len(x.e.AKCertificates)-1]); err == nil {
			seen = fingerprint(c)
		}
	}
	t.Find(fmt.Sprintf("nobody who is trusted vouches for the AK: it is not enrolled, and %s", x.chainErr), measure.FieldRoot, seen, x.v.trusted...)
	return t.Check(measure.CheckChain)
}

func (x *examination) checkRevocation() measure.Check {
	if x.authority == nil {
		reason := "no certificate vouches for the AK"
		if x.how == trustEnrolled {
			reason = "an enrolled AK is taken back by removing it from the configuration"
		}
		return measure.Check{Name: measure.CheckRevocation, Outcome: measure.NotApplicable, Reason: reason}
	}
	var t measure.Tally
	err := x.authority.revocation(x.chain, x.now)
	if err != nil && x.v.noRevoke && !errors.Is(err, errRevoked) {
		return measure.Check{
			Name: measure.CheckRevocation, Outcome: measure.Waived,
			Reason: fmt.Sprintf("%s; waived by configuration (UnsafeNoRevocation)", err),
		}
	}
	if err != nil {
		t.Fail(err)
	}
	return t.Check(measure.CheckRevocation)
}
