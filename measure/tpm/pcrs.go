package tpm

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
)

// CheckPCRs is a check of the platforms with a TPM beside those that all have:
// whether the PCR values in the evidence are the quoted ones, each under its
// own number.
const CheckPCRs measure.CheckName = "pcrs"

// Bank is the one bank that evidence of the field quotes.
const Bank = eventlog.SHA256

// InitDataPCR is the PCR that holds the digest of the init-data document
// (kbs-protocol 9.4).
const InitDataPCR = 8

// KernelPCR is the PCR in which the parts of a unified kernel image are, and
// which policies of the field compare.
const KernelPCR = 11

// CheckValues compares a list of PCR values with what the quote says of them.
//
// The quote signs which PCRs it is about and one digest over all their values.
// The digest alone does not say which value belongs to which PCR: whoever
// selects PCRs 0 to 7 and the resettable PCR 16 can make a value of their
// choice appear where PCR 8 belongs. So the selection must be exactly PCRs 0 to
// 23 of the SHA-256 bank, and the list must have 24 values. The digest is made
// with the hash of the signature.
func CheckValues(q *Quote, signed eventlog.Algorithm, values [][]byte) measure.Check {
	var t measure.Tally
	if !isWhole(q.Selection) {
		t.Find("the quote is not about exactly the PCRs that the evidence lists", "pcr_selection", describeSelection(q.Selection), whole.text)
	}
	if len(values) != PCRs {
		t.Find("the evidence does not list every PCR", "pcrs", fmt.Sprintf("%d values", len(values)), strconv.Itoa(PCRs))
	}
	for i, v := range values {
		if len(v) != Bank.Size() {
			t.Find("a PCR value has the wrong length", pcrName(i), hex.EncodeToString(v), fmt.Sprintf("%d bytes", Bank.Size()))
		}
	}
	digest := signed.Sum(values...)
	if digest == nil || !bytes.Equal(digest, q.Digest) {
		t.Find("the PCR values are not those that were quoted", "pcr_digest", hex.EncodeToString(q.Digest), hex.EncodeToString(digest))
	}
	return t.Check(CheckPCRs)
}

// CheckInitData compares PCR 8 with the one value that it has if the digest of
// the init-data document was extended into it once, and nothing else
// (kbs-protocol 9.4). The digest must have 32 bytes.
func CheckInitData(values [][]byte, want measure.Binding) measure.Check {
	if why, ok := want.Waived(); ok {
		return measure.Check{Name: measure.CheckInitData, Outcome: measure.Waived, Reason: why}
	}
	digest, ok := want.Value()
	if !ok && want.Set() {
		return measure.Check{Name: measure.CheckInitData, Outcome: measure.NotApplicable, Reason: "the guest presented no init-data"}
	}
	var t measure.Tally
	var seen []byte
	if len(values) > InitDataPCR {
		seen = values[InitDataPCR]
	}
	if len(digest) != Bank.Size() {
		t.Find("a PCR holds init-data digests of sha256 only", "init_data_digest", fmt.Sprintf("%d bytes", len(digest)), fmt.Sprintf("%d bytes", Bank.Size()))
	} else if wanted := InitDataValue(digest); !bytes.Equal(seen, wanted) {
		t.Find("the evidence is not bound to this init-data", "init_data", hex.EncodeToString(seen), hex.EncodeToString(wanted))
	}
	return t.Check(measure.CheckInitData)
}

// InitDataValue returns PCR 8 after an init-data digest was extended into it.
func InitDataValue(digest []byte) []byte {
	return eventlog.Extend(Bank, make([]byte, Bank.Size()), digest)
}

func pcrName(i int) string { return fmt.Sprintf("pcr%02d", i) }

// parseValues reads the hex of PCR values.
func parseValues(list []string) ([][]byte, error) {
	if len(list) > PCRs {
		return nil, fmt.Errorf("%d PCR values, at most %d are allowed", len(list), PCRs)
	}
	values := make([][]byte, len(list))
	for i, text := range list {
		v, err := hex.DecodeString(text)
		if err != nil || len(v) == 0 || len(v) > 64 {
			return nil, errors.New(pcrName(i) + " is not the hex of a digest")
		}
		values[i] = v
	}
	return values, nil
}
