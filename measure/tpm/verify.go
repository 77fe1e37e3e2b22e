package tpm

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
)

// nonceSize is the length to which the field's attester brings the report data
// (kbs-protocol 3.5).
const nonceSize = 32

// EnrolledKey is an attestation key that the configuration trusts: someone saw
// to it that it lives in a TPM and is restricted to signing what the TPM made
// (see docs/adr/0018).
type EnrolledKey struct {
	Name string // appears in verdicts and claims; names must differ
	Key  []byte // PEM: a public key or a certificate of it, or the SubjectPublicKeyInfo in DER
}

// VerifierConfig says whose keys a [Verifier] trusts. The zero value trusts
// none and refuses everything. The AK in the evidence is only ever looked up.
type VerifierConfig struct {
	Enrolled []EnrolledKey
	// Authorities may certify AKs; the certificate comes with the evidence.
	Authorities []Authority
	// UnsafeSimulatedRoots are authorities of simulated TPMs. Evidence under
	// one carries no proof of hardware at all.
	UnsafeSimulatedRoots []Authority
	// UnsafeSelfDeclaredKeys accepts the AK that the evidence brings along, that
	// is, any key of anyone. Verdicts say so as for a simulated root.
	UnsafeSelfDeclaredKeys bool
	// UnsafeNoRevocation accepts a certified AK without current revocation
	// lists. What a list at hand revokes is refused all the same.
	UnsafeNoRevocation bool
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// RootSelfDeclared is the root in the verdict for a key that only its own
// evidence vouches for.
const RootSelfDeclared = "self-declared key"

// Verifier judges evidence of a TPM. What it trusts does not change after it
// was made, and it never uses the network.
type Verifier struct {
	enrolled     []enrolledKey
	authorities  []*authority
	selfDeclared bool
	noRevoke     bool
	now          func() time.Time
}

type enrolledKey struct {
	name string
	key  publicKey
}

// publicKey is what all keys of the standard library can do.
type publicKey interface{ Equal(x crypto.PublicKey) bool }

// NewVerifier checks the configuration as a whole.
func NewVerifier(c VerifierConfig) (*Verifier, error) {
	v := &Verifier{selfDeclared: c.UnsafeSelfDeclaredKeys, noRevoke: c.UnsafeNoRevocation, now: c.Now}
	if v.now == nil {
		v.now = time.Now
	}
	seen := map[string]bool{RootSelfDeclared: true, "": true}
	for _, k := range c.Enrolled {
		if seen[k.Name] {
			return nil, fmt.Errorf("the name %q of an enrolled key is empty or taken", k.Name)
		}
		seen[k.Name] = true
		key, err := parseKey(k.Key)
		if err != nil {
			return nil, fmt.Errorf("enrolled key %q: %w", k.Name, err)
		}
		v.enrolled = append(v.enrolled, enrolledKey{k.Name, key})
	}
	for i, a := range append(c.Authorities[:len(c.Authorities):len(c.Authorities)], c.UnsafeSimulatedRoots...) {
		if seen[a.Name] {
			return nil, fmt.Errorf("the name %q of an authority is empty or taken", a.Name)
		}
		seen[a.Name] = true
		checked, err := newAuthority(a, i >= len(c.Authorities))
		if err != nil {
			return nil, err
		}
		if !checked.simulated && checked.saysSimulated() {
			return nil, fmt.Errorf("authority %q is a simulated one", a.Name)
		}
		v.authorities = append(v.authorities, checked)
	}
	return v, nil
}

// parseKey reads a key in any of the forms that [EnrolledKey] allows.
func parseKey(raw []byte) (publicKey, error) {
	der := raw
	if blocks, err := pemBlocks(raw); err == nil && len(blocks) == 1 {
		der = blocks[0].Bytes
		if blocks[0].Type == pemCertificate {
			c, err := x509.ParseCertificate(der)
			if err != nil {
				return nil, err
			}
			der = c.RawSubjectPublicKeyInfo
		} else if blocks[0].Type != pemPublicKey {
			return nil, fmt.Errorf("a PEM block %q, want %q or %q", blocks[0].Type, pemPublicKey, pemCertificate)
		}
	}
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, err
	}
	k, ok := key.(publicKey)
	if !ok {
		return nil, fmt.Errorf("a key of type %T", key)
	}
	return k, nil
}

// Platform returns [measure.TPM].
func (v *Verifier) Platform() measure.Platform { return measure.TPM }

// Verify judges evidence as [measure.Verifier] demands. All checks are made
// whatever the others found. Evidence that cannot be parsed gives a plain
// error.
func (v *Verifier) Verify(ctx context.Context, ev measure.Evidence, want measure.Expected) (measure.Verdict, error) {
	verdict := measure.Verdict{Platform: measure.TPM, Class: "cpu"}
	if err := ctx.Err(); err != nil {
		return verdict, err
	}
	if err := want.Validate(); err != nil {
		return verdict, err
	}
	e, err := ParseEvidence(ev)
	if err != nil {
		return verdict, err
	}
	x := &examination{v: v, e: e, now: v.now()}
	x.key, x.keyErr = e.key()
	x.findTrust()
	log, logCheck := CheckEventLog(e.EventLog, e.PCRs)
	verdict.Checks = []measure.Check{
		x.checkSignature(),
		x.checkChain(),
		x.checkRevocation(),
		{Name: measure.CheckTCB, Outcome: measure.NotApplicable, Reason: "a quote names the version of the TPM's firmware, and nobody publishes what it is worth"},
		CheckValues(e.Quote, e.Signature.Hash, e.PCRs),
		checkBinding(e.Quote, want.ReportData),
		CheckInitData(e.PCRs, want.InitData),
		logCheck,
	}
	verdict.Root = x.root
	verdict.Claims = e.Claims()
	verdict.Claims["ak_trust"] = x.how
	if x.root.Simulated {
		verdict.Claims[ClaimSimulatedRoot] = x.root.Name
	}
	if log != nil {
		verdict.Claims[eventlog.ClaimEvents] = log.Claims()
	}
	return verdict, verdict.Err()
}

// checkBinding compares what the quote is bound to with the digest that was
// asked for: cut or filled up with zeros to 32 bytes, as the field's attester
// does (kbs-protocol 3.5), or filled up to 64 bytes, as older ones did.
func checkBinding(q *Quote, want measure.Binding) measure.Check {
	if why, ok := want.Waived(); ok {
		return measure.Check{Name: measure.CheckBinding, Outcome: measure.Waived, Reason: why}
	}
	var t measure.Tally
	digest, ok := want.Value()
	long, err := measure.NewReportData(digest)
	short := long[:nonceSize]
	switch {
	case !ok || len(digest) == 0:
		t.Fail(errors.New("nothing was given that the quote could be bound to"))
	case err != nil:
		t.Fail(err)
	case !bytes.Equal(q.ExtraData, short) && !bytes.Equal(q.ExtraData, long[:]):
		t.Find("the quote is not bound to this challenge and key", "report_data", hex.EncodeToString(q.ExtraData), hex.EncodeToString(short), hex.EncodeToString(long[:]))
	}
	return t.Check(measure.CheckBinding)
}
