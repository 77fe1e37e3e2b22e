package attestation

import (
	"errors"
	"fmt"
	"maps"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/challenge"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/rcar"
	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/initdata"
)

// claimSimulatedRoot is the claim that policies read (see measure/snp).
const claimSimulatedRoot = "simulated_root"

// Annotated builds the object that is both the policy's input and the token's
// annotated evidence (kbs-protocol 9.2), of a verdict that holds. runtime is what
// the evidence is bound to, doc the init-data, nil for none. A device may have no report_data
// among its claims; then the runtime data is left out with it.
func Annotated(runtime any, doc *initdata.Document, v measure.Verdict) (map[string]any, error) {
	tee := maps.Clone(v.Claims)
	if tee == nil {
		tee = measure.Claims{}
	}
	delete(tee, claimSimulatedRoot)
	if v.Root.Simulated {
		tee[claimSimulatedRoot] = v.Root.Name
	}
	out := map[string]any{string(v.Platform): tee}
	if d, ok := tee["report_data"]; ok {
		delete(tee, "report_data")
		out["report_data"] = d
		out["runtime_data_claims"] = runtime
	} else if v.Class == classCPU {
		return nil, errors.New("the verifier gave no report_data")
	}
	if d, ok := tee["init_data"]; ok {
		delete(tee, "init_data")
		out["init_data"] = d
		out["init_data_claims"] = nil
		if doc != nil {
			out["init_data_claims"] = initDataClaims(doc)
		}
	}
	return out, nil
}

// memberDevices is the member of the runtime data that has the evidence of all
// devices once more. It may be megabytes, and a bearer token has to fit into a
// request head: tokens have it on demand only (kbs-protocol 10, verbose_token).
const memberDevices = "additional-evidence"

// runtimeClaims is the runtime data of a handshake as policies and tokens have
// it.
func (s *Service) runtimeClaims(att api.Attestation) (map[string]any, error) {
	key, err := rcar.ReduceJWK(att.RuntimeData.TEEPubKey)
	if err != nil {
		return nil, fmt.Errorf("guest key: %w", err)
	}
	out := map[string]any{"nonce": att.RuntimeData.Nonce, "tee-pubkey": key}
	if s.cfg.VerboseTokens {
		out[memberDevices] = att.TEEEvidence.AdditionalEvidence
	}
	return out, nil
}

// classCPU is the class of the attester that the guest runs on.
const classCPU = "cpu"

// entry is the audit entry of a successful attestation. A token that is not
// affirming opens nothing under the default policies; the entry tells. What it
// says of a device begins with the name of its submod.
func (j judgement) entry(c challenge.Challenge) api.AuditEntry {
	details := map[string]string{"platform": c.Platform, "protocol": c.Version}
	for i, a := range j {
		prefix := ""
		if i > 0 {
			prefix = a.name + "_"
			details[prefix+"platform"] = string(a.verdict.Platform)
		}
		details[prefix+"status"] = string(a.submod.Vector.Status())
		details[prefix+"policy"] = a.policy
		details[prefix+"root"] = a.verdict.Root.Name
		if a.verdict.Root.Simulated {
			details[prefix+"simulated_root"] = a.verdict.Root.Name
		}
		for _, k := range a.verdict.Checks {
			if k.Outcome == measure.Waived {
				details[prefix+"waived_"+string(k.Name)] = k.Reason
			}
		}
	}
	return api.AuditEntry{Kind: api.AuditAttest, Decision: "allow", Subject: subject(c), Object: "token/" + c.Ceremony, Details: details}
}
