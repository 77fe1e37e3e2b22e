package tpm

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"strconv"

	"github.com/vouchsafe-cc/vouchsafe/measure"
)

// ClaimSimulatedRoot is the claim that names the root of evidence that no
// hardware vouches for. It is absent where a real authority or an enrolled key
// does.
const ClaimSimulatedRoot = "simulated_root"

// ClaimIMA is the claim about the files that the guest's kernel measured: entries,
// violations, and files with path and digest. It is there only if a list came along
// that leads to PCR 10, and something was measured; without it that register is a
// value that nothing explains.
const ClaimIMA = "ima"

// Claims returns what the evidence claims, whether or not it is true: the
// claims of kbs-protocol 16.6 under their names there, and what the quote says
// besides.
func (e *Evidence) Claims() measure.Claims {
	return e.claims(newLasting(e), true)
}

func (e *Evidence) claims(l *lasting, good bool) measure.Claims {
	c := maps.Clone(l.claims)
	l.registers.AddEvents(c, good)
	e.addClaims(c)
	return c
}

// addClaims adds the claims about the quote.
func (e *Evidence) addClaims(c measure.Claims) {
	QuoteClaims(c, e.Quote, e.PCRs)
	c["signature_scheme"] = e.Signature.Scheme.String() + " " + e.Signature.Hash.String()
}

// QuoteClaims adds the claims that every quote makes: report_data and
// init_data as the field has them, and clock, counters, firmware and the
// signer's name, which it leaves out.
func QuoteClaims(c measure.Claims, q *Quote, values [][]byte) {
	c["report_data"] = hex.EncodeToString(q.ExtraData)
	if len(values) > InitDataPCR {
		c["init_data"] = hex.EncodeToString(values[InitDataPCR])
	}
	c["pcr_selection"] = describeSelection(q.Selection)
	c["tpm_clock"] = json.Number(strconv.FormatUint(q.Clock.Milliseconds, 10))
	c["tpm_reset_count"] = json.Number(strconv.FormatUint(uint64(q.Clock.Resets), 10))
	c["tpm_restart_count"] = json.Number(strconv.FormatUint(uint64(q.Clock.Restarts), 10))
	c["tpm_clock_safe"] = q.Clock.Safe
	c["tpm_firmware_version"] = fmt.Sprintf("%016x", q.Firmware)
	c["tpm_qualified_signer"] = hex.EncodeToString(q.Signer)
}
