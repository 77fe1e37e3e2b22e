package snp

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/initdata"
)

func (a *examination) checkReport() measure.Check {
	var t measure.Tally
	if a.genErr != nil {
		t.Fail(a.genErr)
	}
	if a.report.VMPL != 0 {
		t.Find("the report was not requested by the guest's most privileged level", "vmpl", fmt.Sprint(a.report.VMPL), "0")
	}
	old := a.report.Version < 3
	if old && a.generation == Turin {
		t.Find("no Turin writes reports of version 2", "report_version", fmt.Sprint(a.report.Version), "3", "4", "5")
	}
	a.v.require.check(a.report, &t)
	c := t.Check(CheckReport)
	if old && c.Outcome == measure.Passed {
		c.Reason = "version 2 does not name the processor; the certificate of its key does"
	}
	return c
}

// signed reports, once computed, whether the leaf's key signed the report.
func (a *examination) signed() bool {
	if a.signature == nil {
		ok := a.leaf.signed(a.raw, a.report, a.known)
		a.signature = &ok
	}
	return *a.signature
}

func (a *examination) checkSignature() measure.Check {
	var t measure.Tally
	switch {
	case a.report.SignatureAlgorithm != 1:
		t.Find("the signature algorithm is not ECDSA P-384 with SHA-384", "sig_algo", fmt.Sprint(a.report.SignatureAlgorithm), "1")
	case a.leaf == nil:
		t.Fail(a.leafErr)
	case !a.signed():
		t.Fail(fmt.Errorf("the key of the %s certificate did not sign this report", a.leaf.kind))
	}
	return t.Check(measure.CheckSignature)
}

func (a *examination) checkChain() measure.Check {
	var t measure.Tally
	switch {
	case a.leaf == nil:
		t.Fail(a.leafErr)
	case a.genErr != nil:
		t.Fail(fmt.Errorf("no root can be chosen: %w", a.genErr))
	case a.root == nil:
		a.reportRoot(&t)
	default:
		if !a.known {
			a.checkSupplied(&t)
		}
		for _, c := range []*x509.Certificate{a.leaf.cert, a.signer, a.root.ark} {
			if a.now.Before(c.NotBefore) || a.now.After(c.NotAfter) {
				t.Find(fmt.Sprintf("the certificate %s is not valid at this time", c.Subject.CommonName), "time", a.now.UTC().Format(time.RFC3339),
					fmt.Sprintf("%s to %s", c.NotBefore.Format(time.RFC3339), c.NotAfter.Format(time.RFC3339)))
			}
		}
	}
	if t.Clean() && !a.known && a.generation != Turin && a.signed() {
		if err := a.libraryVerify(); err != nil {
			t.Fail(fmt.Errorf("go-sev-guest disagrees: %w", err))
		}
	}
	return t.Check(measure.CheckChain)
}

// signerTitle is what AMD calls the key that signs leaves of a kind.
func signerTitle(k SigningKey) string {
	if k == VLEK {
		return "ASVK"
	}
	return "ASK"
}

// reportRoot tells apart a chain that ends in a stranger and one that is
// broken under a root that is trusted.
func (a *examination) reportRoot(t *measure.Tally) {
	var names []string
	ark, err := x509.ParseCertificate(certificate(a.certificates, CertARK))
	for _, r := range a.v.roots[a.generation] {
		names = append(names, r.name)
		if err == nil && sameKey(ark, r.ark) {
			t.Find(fmt.Sprintf("the %s certificate is not signed by the %s of %s", a.leaf.kind, signerTitle(a.leaf.kind), r.name),
				strings.ToLower(a.leaf.kind.String())+"_issuer", a.leaf.cert.Issuer.String(), signerName(a.leaf.kind, r.generation))
			return
		}
	}
	seen := "not in the evidence"
	if err == nil {
		seen = fmt.Sprintf("%s, SHA-256 %x", ark.Subject, sha256.Sum256(ark.Raw))
	}
	t.Find("the chain does not end in a trusted root", measure.FieldRoot, seen, names...)
}

// checkSupplied demands that the certificates that came along are those of the
// root. They are not used otherwise.
func (a *examination) checkSupplied(t *measure.Tally) {
	for _, s := range []struct {
		kind CertType
		want *x509.Certificate
	}{{CertASK, a.signer}, {CertARK, a.root.ark}} {
		der := certificate(a.certificates, s.kind)
		if len(der) == 0 {
			continue
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fail(fmt.Errorf("the %s certificate in the evidence is malformed: %w", s.kind, err))
		} else if !sameKey(c, s.want) {
			t.Find(fmt.Sprintf("the %s certificate in the evidence is not that of %s", s.kind, a.root.name), strings.ToLower(string(s.kind)),
				fmt.Sprintf("SHA-256 %x", sha256.Sum256(c.Raw)), fmt.Sprintf("SHA-256 %x", sha256.Sum256(s.want.Raw)))
		}
	}
}

// checkTCB ties the report to its certificate: the key was issued for this
// firmware and this chip. How new the firmware must be is for the configured
// minimum and for policies to say.
func (a *examination) checkTCB() measure.Check {
	var t measure.Tally
	if a.leaf == nil {
		t.Fail(a.leafErr)
		return t.Check(measure.CheckTCB)
	}
	if a.genErr != nil {
		t.Fail(fmt.Errorf("the TCB cannot be read: %w", a.genErr))
		return t.Check(measure.CheckTCB)
	}
	r, turin := a.report, a.report.turinLayout()
	reported, current, committed := r.ReportedTCB.split(turin), r.CurrentTCB.split(turin), r.CommittedTCB.split(turin)
	if certified := a.leaf.svns; reported.String() != certified.String() {
		t.Find(fmt.Sprintf("the %s certificate is for another TCB", a.leaf.kind), "reported_tcb", reported.String(), certified.String())
	}
	if !reported.atMost(current) {
		t.Find("the reported TCB is newer than the current one", "reported_tcb", reported.String(), "at most "+current.String())
	}
	if !committed.atMost(current) {
		t.Find("the committed TCB is newer than the current one", "committed_tcb", committed.String(), "at most "+current.String())
	}
	a.v.require.checkTCB(a.generation, reported, &t)
	// A host may hide the chip id; then only the key tells chips apart. A lent
	// key (VLEK) belongs to no chip.
	hidden := r.chipMasked() && r.ChipID == [64]byte{}
	if a.leaf.kind == VCEK && !hidden && !a.leaf.ofChip(r.ChipID) {
		t.Find("the VCEK certificate is for another chip", "chip_id", hex.EncodeToString(r.ChipID[:]), hex.EncodeToString(a.leaf.hwid))
	}
	if t.Clean() && !a.known && a.generation != Turin {
		if err := a.libraryValidate(); err != nil {
			t.Fail(fmt.Errorf("go-sev-guest disagrees: %w", err))
		}
	}
	return t.Check(measure.CheckTCB)
}

// checkBinding compares REPORT_DATA, all 64 bytes, with the digest that was
// asked for, filled up with zeros (kbs-protocol 3.5).
func checkBinding(r *Report, want measure.Binding) measure.Check {
	if why, ok := want.Waived(); ok {
		return measure.Check{Name: measure.CheckBinding, Outcome: measure.Waived, Reason: why}
	}
	var t measure.Tally
	digest, ok := want.Value()
	data, err := measure.NewReportData(digest)
	switch {
	case !ok || len(digest) == 0:
		t.Fail(errors.New("nothing was given that the report could be bound to"))
	case err != nil:
		t.Fail(err)
	case r.ReportData != [64]byte(data):
		t.Find("the report is not bound to this challenge and key", "report_data", hex.EncodeToString(r.ReportData[:]), hex.EncodeToString(data[:]))
	}
	return t.Check(measure.CheckBinding)
}

// checkInitData compares HOST_DATA with the digest of the init-data document,
// cut or filled up to 32 bytes (kbs-protocol 9.4).
func checkInitData(r *Report, want measure.Binding) measure.Check {
	if why, ok := want.Waived(); ok {
		return measure.Check{Name: measure.CheckInitData, Outcome: measure.Waived, Reason: why}
	}
	digest, ok := want.Value()
	if !ok {
		return measure.Check{Name: measure.CheckInitData, Outcome: measure.NotApplicable, Reason: "the guest presented no init-data"}
	}
	var t measure.Tally
	field := [initdata.SNPHostData]byte(initdata.Fit(digest, initdata.SNPHostData))
	switch {
	case len(digest) == 0:
		t.Fail(errors.New("nothing was given that the report could be bound to"))
	case r.HostData != field:
		t.Find("the report is not bound to this init-data", "init_data", hex.EncodeToString(r.HostData[:]), hex.EncodeToString(field[:]))
	}
	return t.Check(measure.CheckInitData)
}
