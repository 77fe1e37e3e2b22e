package azure

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strconv"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpm"
)

// claims are those of the hardware with the vTPM's on top (kbs-protocol 16.5).
// report_data and init_data are the vTPM's, since the hardware's speak of the
// paravisor. What the field leaves out has names of our own.
func (e *Evidence) claims(hardware measure.Claims, r *RuntimeData, log *eventlog.Log) measure.Claims {
	c := measure.Claims{}
	for name, v := range hardware {
		if e.Platform == measure.AzSNPvTPM {
			v = asText(name, v)
		}
		c[name] = v
	}
	c["hardware_report_data"], c["hardware_init_data"] = hardware["report_data"], hardware["init_data"]
	c["tpm"] = tpm.PCRClaims(e.PCRs)
	tpm.QuoteClaims(c, e.Quote, e.PCRs)
	c["evidence_version"] = json.Number(strconv.Itoa(e.Version))
	c["hcl_version"] = json.Number(strconv.FormatUint(uint64(e.HCL.Version), 10))
	if r.Configuration != nil {
		c["vm_configuration"] = r.Configuration
	}
	if r.UserData != nil {
		c["hcl_user_data"] = hex.EncodeToString(r.UserData)
	}
	if log != nil {
		c[eventlog.ClaimEvents] = log.Claims()
	}
	return c
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
