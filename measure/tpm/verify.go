package tpm

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/internal/known"
)

// nonceSize is the length to which the field's attester brings the report data
// (kbs-protocol 3.5).
const nonceSize = 32

// EnrolledKeys are attestation keys that the configuration trusts: someone saw
// to it that each lives in a TPM and is restricted to signing what the TPM made
// (see docs/adr/0018).
type EnrolledKeys struct {
	Name string // appears in verdicts and claims; names must differ
	// Keys is PEM: any number of public keys or of certificates of them, where
	// nothing but the key counts. Or one SubjectPublicKeyInfo in DER.
	Keys []byte
}

// VerifierConfig says whose keys a [Verifier] trusts. The zero value trusts
// none and refuses everything. The AK in the evidence is only ever looked up.
type VerifierConfig struct {
	Enrolled []EnrolledKeys
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
	enrolled     map[string]measure.Root // by SubjectPublicKeyInfo in DER
	authorities  []*authority
	trusted      []string // names of all whom this verifier believes
	selfDeclared bool
	noRevoke     bool
	now          func() time.Time
	chains       *known.Set[known.Key, certified]
	machines     *known.Set[lastingText, *lasting] // whose evidence was good
}

// publicKey is what all keys of the standard library can do.
type publicKey interface{ Equal(x crypto.PublicKey) bool }

// NewVerifier checks the configuration as a whole.
func NewVerifier(c VerifierConfig) (*Verifier, error) {
	v := &Verifier{enrolled: map[string]measure.Root{}, selfDeclared: c.UnsafeSelfDeclaredKeys, noRevoke: c.UnsafeNoRevocation, now: c.Now}
	v.chains, v.machines = known.New[known.Key, certified](maxChains), known.New[lastingText, *lasting](known.MaxMachines)
	if v.now == nil {
		v.now = time.Now
	}
	for _, k := range c.Enrolled {
		if err := v.name(k.Name, "enrolled keys"); err != nil {
			return nil, err
		}
		if err := v.enrol(k); err != nil {
			return nil, fmt.Errorf("enrolled keys %q: %w", k.Name, err)
		}
	}
	for i, a := range append(c.Authorities[:len(c.Authorities):len(c.Authorities)], c.UnsafeSimulatedRoots...) {
		if err := v.name(a.Name, "an authority"); err != nil {
			return nil, err
		}
		checked, err := newAuthority(a, i >= len(c.Authorities))
		if err != nil {
			return nil, err
		}
		if !checked.simulated && saysSimulated(checked.certificates...) {
			return nil, fmt.Errorf("authority %q is a simulated one", a.Name)
		}
		v.authorities = append(v.authorities, checked)
	}
	return v, nil
}

func (v *Verifier) name(name, of string) error {
	if name == "" || name == RootSelfDeclared || slices.Contains(v.trusted, name) {
		return fmt.Errorf("the name %q of %s is empty or taken", name, of)
	}
	v.trusted = append(v.trusted, name)
	return nil
}

// enrol reads keys in any of the forms that [EnrolledKeys] allows. A key that
// the simulator wrote says so, and so will its verdicts.
func (v *Verifier) enrol(k EnrolledKeys) error {
	blocks, err := pemBlocks(k.Keys)
	if err != nil || len(blocks) == 0 {
		blocks = []*pem.Block{{Type: pemPublicKey, Bytes: k.Keys}}
	}
	for _, b := range blocks {
		der, simulated := b.Bytes, b.Headers[headerSimulated] != ""
		if b.Type == pemCertificate {
			c, err := x509.ParseCertificate(der)
			if err != nil {
				return err
			}
			der, simulated = c.RawSubjectPublicKeyInfo, simulated || saysSimulated(c)
		} else if b.Type != pemPublicKey {
			return fmt.Errorf("a PEM block %q, want %q or %q", b.Type, pemPublicKey, pemCertificate)
		}
		key, err := x509.ParsePKIXPublicKey(der)
		if err != nil {
			return err
		}
		id, err := x509.MarshalPKIXPublicKey(key) // as all spell it
		if err != nil {
			return err
		}
		if _, dup := v.enrolled[string(id)]; dup {
			return errors.New("a key is enrolled twice")
		}
		v.enrolled[string(id)] = measure.Root{Name: k.Name, Simulated: simulated}
	}
	return nil
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
	m, err := splitEvidence(ev)
	if err != nil {
		return verdict, err
	}
	e, l, remembered, err := v.read(m)
	if err != nil {
		return verdict, fmt.Errorf("TPM evidence: %w", err)
	}
	x := &examination{v: v, e: e, lasting: l, now: v.now()}
	x.findTrust()
	verdict.Checks = []measure.Check{
		x.checkSignature(),
		x.checkChain(),
		x.checkRevocation(),
		{Name: measure.CheckTCB, Outcome: measure.NotApplicable, Reason: "a quote names the version of the TPM's firmware, and nobody publishes what it is worth"},
		CheckValues(e.Quote, e.Signature.Hash, e.PCRs),
		checkBinding(e.Quote, want.ReportData),
		CheckInitData(e.PCRs, want.InitData),
		l.registers.Check,
	}
	verdict.Root = x.root
	err = verdict.Err()
	verdict.Claims = e.claims(l, err == nil)
	verdict.Claims["ak_trust"] = x.how
	if x.root.Simulated {
		verdict.Claims[ClaimSimulatedRoot] = x.root.Name
	}
	if err == nil && !remembered && m.lastingSize() <= known.MaxEvidenceSize {
		l.prepare()
		v.machines.Remember(m.lasting(), l)
	}
	return verdict, err
}

// read reads the evidence, and of what lasts only what this verifier does not
// remember of the machine.
func (v *Verifier) read(m *members) (e *Evidence, l *lasting, remembered bool, err error) {
	e = new(Evidence)
	if err := m.readQuote(e); err != nil {
		return nil, nil, false, err
	}
	if m.lastingSize() <= known.MaxEvidenceSize {
		if l, ok := v.machines.Look(m.among); ok {
			l.putInto(e)
			return e, l, true, nil
		}
	}
	if err := m.readLasting(e); err != nil {
		return nil, nil, false, err
	}
	return e, newLasting(e), false, nil
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
