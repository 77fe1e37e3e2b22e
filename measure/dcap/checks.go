package dcap

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure"
)

// intelVendor is the QE vendor id of Intel's quoting enclaves.
var intelVendor = [16]byte{0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07}

// checkSignature follows the signatures: the attestation key's over the quote,
// the quoting enclave's word for that key, the PCK's for the enclave.
func (e *examination) checkSignature() measure.Check {
	var t measure.Tally
	q := e.quote
	switch sum := sha256.Sum256(q.signed); {
	case e.key == nil:
		t.Fail(errors.New("the attestation key is not a point on P-256"))
	case !verify(e.key, sum[:], q.Signature):
		t.Fail(errors.New("the attestation key did not sign this quote"))
	}
	if e.known {
		return t.Check(measure.CheckSignature)
	}
	if want := q.keyBinding(); q.QEReport.ReportData != want {
		t.Find("the quoting enclave did not make this attestation key", "qe_report_data", hex.EncodeToString(q.QEReport.ReportData[:]), hex.EncodeToString(want[:]))
	}
	if e.chain == nil {
		t.Fail(e.chainErr)
	} else if sum := sha256.Sum256(q.signedByQE); !verify(e.chain.key, sum[:], q.QESignature) {
		t.Fail(errors.New("the PCK did not sign the quoting enclave's report"))
	}
	return t.Check(measure.CheckSignature)
}

// checkChain follows the PCK certificate to its root, and tells whether the
// enclave that it vouches for is a quoting enclave of Intel's at all.
func (e *examination) checkChain() measure.Check {
	var t measure.Tally
	if e.chain == nil {
		t.Fail(e.chainErr)
		return t.Check(measure.CheckChain)
	}
	if !e.known {
		e.chain.check(e.j.roots, &t)
		e.checkQuotingEnclave(&t)
	}
	if e.quote.Header.VendorID != intelVendor {
		t.Find("the quoting enclave is of another vendor", "vendor_id", hex.EncodeToString(e.quote.Header.VendorID[:]), hex.EncodeToString(intelVendor[:]))
	}
	checkDates(&t, e.now, e.chain.certificates()...)
	return t.Check(measure.CheckChain)
}

func (e *examination) checkQuotingEnclave(t *measure.Tally) {
	q, want := e.quote.QEReport, e.j.config.TEE.quotingEnclave()
	if q.Attributes.Debug() || q.Attributes.Flags&FlagInit == 0 {
		t.Find("the quoting enclave is a debug enclave, or was not initialised", "qe_attributes", fmt.Sprintf("%016x", q.Attributes.Flags))
	}
	if q.MRSigner != want.signer {
		t.Find("the quoting enclave is not signed by Intel", "qe_mr_signer", hex.EncodeToString(q.MRSigner[:]), hex.EncodeToString(want.signer[:]))
	}
	if q.ISVProdID != want.prodID {
		t.Find("the quoting enclave is another product", "qe_isv_prod_id", fmt.Sprint(q.ISVProdID), fmt.Sprint(want.prodID))
	}
}

// checkRevocation looks every certificate up in the list of its issuer.
func (e *examination) checkRevocation() measure.Check {
	if c, ok := e.withoutCollateral(measure.CheckRevocation); ok {
		return c
	}
	var t measure.Tally
	d := e.endorsements
	stale := e.stale(&t)
	if d.pckCRL == nil {
		t.Fail(d.pckCRLErr)
	} else {
		if err := d.pckCRL.revoked(e.chain.pck.Certificate); err != nil {
			t.Fail(err)
		}
		stale.check("the revocation list of PCK certificates", d.pckCRL.list.ThisUpdate, d.pckCRL.list.NextUpdate)
	}
	if d.rootCRL == nil {
		t.Fail(d.rootCRLErr)
	} else {
		for _, c := range append([]*x509.Certificate{e.chain.ca}, d.signers...) {
			if err := d.rootCRL.revoked(c); err != nil {
				t.Fail(err)
			}
		}
		stale.check("the revocation list of the root", d.rootCRL.list.ThisUpdate, d.rootCRL.list.NextUpdate)
	}
	return stale.result(measure.CheckRevocation)
}

// checkTCB asks what Intel says about this platform, its TDX module and its
// quoting enclave.
func (e *examination) checkTCB() measure.Check {
	if c, ok := e.withoutCollateral(measure.CheckTCB); ok {
		return c
	}
	var t measure.Tally
	d := e.endorsements
	stale := e.stale(&t)
	if d.info == nil {
		t.Fail(d.infoErr)
	} else {
		e.checkInfo(&t)
		stale.check("the TCB info", d.info.IssueDate, d.info.NextUpdate)
	}
	if d.identity == nil {
		t.Fail(d.idErr)
	} else {
		e.checkEvaluationNumber(&t, "QE identity", d.identity.EvaluationNumber)
		stale.check("the QE identity", d.identity.IssueDate, d.identity.NextUpdate)
	}
	for _, s := range d.signers {
		stale.check("the certificate "+s.Subject.CommonName, s.NotBefore, s.NotAfter)
	}
	if d.info != nil && d.identity != nil {
		e.evaluation = evaluate(d.info, d.identity, e.chain.pck, e.quote.QEReport, e.module, &t)
	}
	if v := e.evaluation; v != nil && !slices.Contains(e.j.config.Accepted, v.Status) {
		reason := fmt.Sprintf("the TCB is %s", v.Status)
		if len(v.Advisories) > 0 {
			reason += fmt.Sprintf(" %v", v.Advisories)
		}
		t.Find(reason, "tcb_status", string(v.Status), names(e.j.config.Accepted)...)
	}
	return stale.result(measure.CheckTCB)
}

// checkInfo tells whether the TCB info is about this kind of platform.
func (e *examination) checkInfo(t *measure.Tally) {
	info, pck := e.endorsements.info, e.chain.pck
	if string(info.FMSPC) != string(pck.FMSPC[:]) {
		t.Find("the TCB info is for another kind of platform", "fmspc", hex.EncodeToString(pck.FMSPC[:]), hex.EncodeToString(info.FMSPC))
	}
	if string(info.PCEID) != string(pck.PCEID[:]) {
		t.Find("the TCB info is for another provisioning enclave", "pce_id", hex.EncodeToString(pck.PCEID[:]), hex.EncodeToString(info.PCEID))
	}
	e.checkEvaluationNumber(t, "TCB info", info.EvaluationNumber)
}

func (e *examination) checkEvaluationNumber(t *measure.Tally, what string, n uint32) {
	if least := e.j.config.MinEvaluation; n < least {
		t.Find("the "+what+" is of an older evaluation than wanted", "tcb_eval_num", fmt.Sprint(n), fmt.Sprintf("at least %d", least))
	}
}

// withoutCollateral returns the check of evidence for which there is no
// collateral.
func (e *examination) withoutCollateral(name measure.CheckName) (measure.Check, bool) {
	if e.endorsements != nil {
		return measure.Check{}, false
	}
	if e.j.config.UnsafeNoCollateral && e.chain != nil && e.chain.sound() {
		return measure.Check{
			Name: name, Outcome: measure.Waived,
			Reason: fmt.Sprintf("%s; waived by configuration (UnsafeNoCollateral)", e.collateralErr),
		}, true
	}
	var t measure.Tally
	t.Fail(e.collateralErr)
	return t.Check(name), true
}

// staleness collects what has ended but is within its grace.
type staleness struct {
	t      *measure.Tally
	now    time.Time
	grace  time.Duration
	waived string
}

func (e *examination) stale(t *measure.Tally) *staleness {
	return &staleness{t: t, now: e.now, grace: e.j.config.Grace}
}

// check looks at the dates of one part. One without an end is never current.
func (s *staleness) check(what string, from, until time.Time) {
	switch {
	case s.now.Before(from):
		s.t.Fail(fmt.Errorf("%s is from %s, after the time of verification", what, from.UTC().Format(time.RFC3339)))
	case !s.now.After(until):
	case !until.IsZero() && !s.now.After(until.Add(s.grace)):
		s.waived = fmt.Sprintf("%s was to be renewed by %s; waived within the configured grace of %s", what, until.UTC().Format(time.RFC3339), s.grace)
	default:
		s.t.Fail(fmt.Errorf("%s was to be renewed by %s", what, until.UTC().Format(time.RFC3339)))
	}
}

// result is the check with all that the tally found, waived if nothing is
// wrong but an end within its grace.
func (s *staleness) result(name measure.CheckName) measure.Check {
	c := s.t.Check(name)
	if c.Outcome == measure.Passed && s.waived != "" {
		c.Outcome, c.Reason = measure.Waived, s.waived
	}
	return c
}
