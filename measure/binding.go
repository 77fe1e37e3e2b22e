package measure

import (
	"bytes"
	"encoding/hex"
	"errors"
)

var errNothingToBind = errors.New("nothing was given that the evidence could be bound to")

// CheckReportData compares the report data of evidence, all of it, with the
// digest that was asked for, filled up with zeros (kbs-protocol 3.5).
func CheckReportData(seen [64]byte, want Binding) Check {
	if why, ok := want.Waived(); ok {
		return Check{Name: CheckBinding, Outcome: Waived, Reason: why}
	}
	var t Tally
	digest, ok := want.Value()
	data, err := NewReportData(digest)
	switch {
	case !ok || len(digest) == 0:
		t.Fail(errNothingToBind)
	case err != nil:
		t.Fail(err)
	case data != seen:
		t.Find("the evidence is not bound to this challenge and key", "report_data", hex.EncodeToString(seen[:]), hex.EncodeToString(data[:]))
	}
	return t.Check(CheckBinding)
}

// CheckInitDataField compares a launch field that the host sets with the
// digest of the init-data document, cut or filled up with zeros to the field's
// length (kbs-protocol 9.4).
func CheckInitDataField(seen []byte, want Binding) Check {
	if why, ok := want.Waived(); ok {
		return Check{Name: CheckInitData, Outcome: Waived, Reason: why}
	}
	digest, ok := want.Value()
	if !ok && want.Set() {
		return Check{Name: CheckInitData, Outcome: NotApplicable, Reason: "the guest presented no init-data"}
	}
	var t Tally
	field := make([]byte, len(seen))
	copy(field, digest)
	switch {
	case len(digest) == 0:
		t.Fail(errNothingToBind)
	case len(seen) == 0:
		t.Fail(errors.New("the evidence has no field for init-data"))
	case !bytes.Equal(seen, field):
		t.Find("the evidence is not bound to this init-data", "init_data", hex.EncodeToString(seen), hex.EncodeToString(field))
	}
	return t.Check(CheckInitData)
}
