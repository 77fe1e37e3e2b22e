package attestation

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/challenge"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/rcar"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// maxDevices bounds the additional evidence of one guest.
const maxDevices = 16

// errForm says that an answer is written in the form of another version than
// the challenge. The two forms bind different texts, so none is taken for the
// other.
var errForm = errors.New("the answer has the form of another protocol version")

// parseAnswer reads the body of /attest in the form of the challenge's version
// (kbs-protocol 3.3 and 3.7).
func parseAnswer(c challenge.Challenge, body []byte) (api.Attestation, error) {
	a, err := split(body)
	if err != nil {
		return api.Attestation{}, err
	}
	if rcar.Version(c.Version).Devices() {
		return current(a)
	}
	return old(c, a)
}

// split reads the members of a body and leaves the evidence, which is nearly
// all of it, as it is: every other reading would look at each byte twice.
func split(body []byte) (a api.AnyAttestation, err error) {
	members, err := strictjson.CheckedMembers(body)
	if err != nil {
		return a, err
	}
	for _, m := range []struct {
		name string
		to   any
	}{{"init-data", &a.InitData}, {"runtime-data", &a.RuntimeData}, {"tee-pubkey", &a.TEEPubKey}} {
		raw, ok := members[m.name]
		if !ok {
			continue
		}
		if err := json.Unmarshal(raw, m.to); err != nil {
			return a, fmt.Errorf("%w: %s: %w", strictjson.ErrSyntax, m.name, err)
		}
	}
	a.TEEEvidence = members["tee-evidence"]
	return a, nil
}

func current(a api.AnyAttestation) (api.Attestation, error) {
	if a.TEEPubKey != nil {
		return api.Attestation{}, errForm
	}
	if a.RuntimeData == nil || a.TEEEvidence == nil {
		return api.Attestation{}, errors.New("runtime-data or tee-evidence is missing")
	}
	out := api.Attestation{InitData: a.InitData, RuntimeData: *a.RuntimeData}
	evidence, err := strictjson.Inner(a.TEEEvidence)
	if err != nil {
		return api.Attestation{}, fmt.Errorf("tee-evidence: %w", err)
	}
	out.TEEEvidence.PrimaryEvidence = evidence["primary_evidence"]
	if raw, ok := evidence["additional_evidence"]; ok {
		if err := json.Unmarshal(raw, &out.TEEEvidence.AdditionalEvidence); err != nil {
			return api.Attestation{}, fmt.Errorf("tee-evidence: additional_evidence: %w", err)
		}
	}
	return out, nil
}

// old reads what has no nonce in it: the cookie tells. The evidence is JSON in a
// string in 0.1.0, and a value since.
func old(c challenge.Challenge, a api.AnyAttestation) (api.Attestation, error) {
	if a.RuntimeData != nil || a.InitData != nil {
		return api.Attestation{}, errForm
	}
	if a.TEEPubKey == nil || a.TEEEvidence == nil {
		return api.Attestation{}, errors.New("tee-pubkey or tee-evidence is missing")
	}
	evidence := a.TEEEvidence
	if rcar.Version(c.Version) == rcar.V010 {
		var text string
		if err := json.Unmarshal(evidence, &text); err != nil {
			return api.Attestation{}, fmt.Errorf("tee-evidence: %w", err)
		}
		evidence = json.RawMessage(text)
		if err := strictjson.Check(evidence); err != nil {
			return api.Attestation{}, fmt.Errorf("tee-evidence: %w", err)
		}
	}
	return api.Attestation{
		RuntimeData: api.RuntimeData{Nonce: c.Nonce, TEEPubKey: *a.TEEPubKey},
		TEEEvidence: api.TEEEvidence{PrimaryEvidence: evidence},
	}, nil
}

// device is one piece of additional evidence.
type device struct {
	platform string
	evidence json.RawMessage
}

// parseDevices reads the text of additional_evidence: "" or an object from
// names of platforms to evidence. The order is that of the names.
func parseDevices(text, primary string) ([]device, error) {
	if text == "" {
		return nil, nil
	}
	if err := strictjson.Check([]byte(text)); err != nil {
		return nil, fmt.Errorf("additional_evidence: %w", err)
	}
	members, err := strictjson.Members([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("additional_evidence: %w", err)
	}
	if len(members) == 0 || len(members) > maxDevices {
		return nil, fmt.Errorf("additional_evidence: %d devices, want 1 to %d", len(members), maxDevices)
	}
	seen := map[string]bool{primary: true}
	var out []device
	for name, evidence := range members {
		platform := canonicalTEE(name)
		if platform == "" {
			return nil, fmt.Errorf("additional_evidence: %q is not the name of a platform", clip(name, 32))
		}
		if seen[platform] {
			return nil, fmt.Errorf("additional_evidence: platform %s comes twice", platform)
		}
		seen[platform] = true
		out = append(out, device{platform, evidence})
	}
	slices.SortFunc(out, func(a, b device) int { return strings.Compare(a.platform, b.platform) })
	return out, nil
}
