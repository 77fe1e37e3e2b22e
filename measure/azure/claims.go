package azure

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strconv"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
	"github.com/vouchsafe-cc/vouchsafe/measure/tdx"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpm"
)

// Claims returns what the evidence claims, whether or not it is true.
func (e *Evidence) Claims() (measure.Claims, error) {
	r, err := ParseRuntimeData(e.HCL.RuntimeData)
	if err != nil {
		return nil, err
	}
	if e.EventLog != nil {
		if _, err := eventlog.Parse(e.EventLog); err != nil {
			return nil, err
		}
	}
	registers := tpm.Explain(e.PCRs, e.EventLog)
	if e.Platform == measure.AzTDXvTPM {
		quote := tdx.Evidence{Quote: e.TDQuote}
		hardware, err := quote.Claims()
		return e.claims(hardware, r, registers, true), err
	}
	report, err := snp.ParseReport(e.HCL.Hardware[:])
	if err != nil {
		return nil, err
	}
	return e.claims(report.Claims(), r, registers, true), nil
}

// claims are those of the hardware with the vTPM's on top (kbs-protocol 16.5).
// report_data and init_data are the vTPM's, since the hardware's speak of the
// paravisor. What the field leaves out has names of our own. good says that nothing
// is wrong with the evidence.
func (e *Evidence) claims(hardware measure.Claims, r *RuntimeData, registers *tpm.Explained, good bool) measure.Claims {
	c := measure.Claims{}
	for name, v := range hardware {
		if e.Platform == measure.AzSNPvTPM {
			v = asText(name, v)
		}
		c[name] = v
	}
	c["hardware_report_data"], c["hardware_init_data"] = hardware["report_data"], hardware["init_data"]
	c["tpm"] = registers.Claims
	tpm.QuoteClaims(c, e.Quote, e.PCRs)
	c["evidence_version"] = json.Number(strconv.Itoa(e.Version))
	c["hcl_version"] = json.Number(strconv.FormatUint(uint64(e.HCL.Version), 10))
	r.AddClaims(c)
	registers.AddEvents(c, good)
	return c
}

// AddClaims adds what the runtime data say beside the key.
func (r *RuntimeData) AddClaims(c measure.Claims) {
	if r.Configuration != nil {
		c["vm_configuration"] = r.Configuration
	}
	if r.UserData != nil {
		c["hcl_user_data"] = hex.EncodeToString(r.UserData)
	}
}

// asText spells a claim as the field's az-snp-vtpm does: everything is a
// string, and the measurement is in base64.
func asText(name string, v any) any {
	switch v := v.(type) {
	case bool:
		return strconv.FormatBool(v)
	case json.Number:
		return v.String()
	case string:
		if b, err := hex.DecodeString(v); err == nil && name == "measurement" {
			return base64.StdEncoding.EncodeToString(b)
		}
	}
	return v
}
