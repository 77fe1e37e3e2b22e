package asapi

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	pb "github.com/vouchsafe-cc/vouchsafe/kbs/api/proto/attestation"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/attestation"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// maxEvidence limits the attesters of one request: eight GPUs with their
// switches and a CPU are fewer.
const maxEvidence = 32

var errTooMany = fmt.Errorf("more than %d attesters", maxEvidence)

// fromProto reads a request as it comes over gRPC.
func fromProto(r *pb.AttestationRequest) (attestation.Evaluation, error) {
	var e attestation.Evaluation
	if len(r.GetVerificationRequests()) > maxEvidence {
		return e, errTooMany
	}
	e.Policy = first(r.GetPolicyIds())
	for i, v := range r.GetVerificationRequests() {
		one := wire{TEE: v.GetTee(), Evidence: v.GetEvidence(), Hash: v.GetRuntimeDataHashAlgorithm()}
		switch d := v.GetRuntimeData().(type) {
		case *pb.IndividualAttestationRequest_RawRuntimeData:
			one.RuntimeData = &runtimeData{Raw: &d.RawRuntimeData}
		case *pb.IndividualAttestationRequest_StructuredRuntimeData:
			one.RuntimeData = &runtimeData{Structured: json.RawMessage(d.StructuredRuntimeData)}
		}
		switch d := v.GetInitData().(type) {
		case *pb.IndividualAttestationRequest_InitDataDigest:
			one.InitData = &initData{Digest: &d.InitDataDigest}
		case *pb.IndividualAttestationRequest_InitDataToml:
			one.InitData = &initData{TOML: &d.InitDataToml}
		}
		ev, err := one.evidence()
		if err != nil {
			return e, fmt.Errorf("verification_requests[%d]: %w", i, err)
		}
		e.Evidence = append(e.Evidence, ev)
	}
	return e, nil
}

// request is the body of POST /attestation (kbs-protocol 11.2).
type request struct {
	Requests  []wire    `json:"verification_requests"`
	PolicyIDs *[]string `json:"policy_ids"` // the key is required
}

// wire is one attester's evidence, in the shape that gRPC and REST share.
type wire struct {
	TEE         string       `json:"tee"`
	Evidence    string       `json:"evidence"` // base64url of JSON
	RuntimeData *runtimeData `json:"runtime_data"`
	InitData    *initData    `json:"init_data"`
	Hash        string       `json:"runtime_data_hash_algorithm"`
}

type runtimeData struct {
	Raw        *string         `json:"raw"` // base64url
	Structured json.RawMessage `json:"structured"`
}

type initData struct {
	Digest *string `json:"init_data_digest"` // base64url
	TOML   *string `json:"init_data_toml"`
}

// fromJSON reads a request as it comes over REST.
func fromJSON(raw []byte) (attestation.Evaluation, error) {
	var (
		e attestation.Evaluation
		r request
	)
	if err := strictjson.Decode(raw, &r); err != nil {
		return e, err
	}
	if r.PolicyIDs == nil {
		return e, errors.New("policy_ids is missing")
	}
	if len(r.Requests) > maxEvidence {
		return e, errTooMany
	}
	e.Policy = first(*r.PolicyIDs)
	for i, v := range r.Requests {
		ev, err := v.evidence()
		if err != nil {
			return e, fmt.Errorf("verification_requests[%d]: %w", i, err)
		}
		e.Evidence = append(e.Evidence, ev)
	}
	return e, nil
}

func (w wire) evidence() (attestation.Evidence, error) {
	out := attestation.Evidence{Platform: w.TEE, Hash: w.Hash}
	raw, err := decode(w.Evidence)
	if err != nil {
		return out, fmt.Errorf("evidence: %w", err)
	}
	if err := strictjson.Check(raw); err != nil {
		return out, fmt.Errorf("evidence: %w", err)
	}
	out.Data = raw
	if d := w.RuntimeData; d != nil {
		switch {
		case (d.Raw == nil) == (len(d.Structured) == 0):
			return out, errors.New("runtime_data: want either raw or structured")
		case d.Raw != nil:
			if out.ReportData, err = decode(*d.Raw); err == nil && len(out.ReportData) == 0 {
				err = errors.New("it is empty")
			}
		default:
			out.RuntimeData, err = d.Structured, strictjson.Check(d.Structured)
		}
		if err != nil {
			return out, fmt.Errorf("runtime_data: %w", err)
		}
	}
	if d := w.InitData; d != nil {
		switch {
		case (d.Digest == nil) == (d.TOML == nil):
			return out, errors.New("init_data: want either init_data_digest or init_data_toml")
		case d.TOML != nil:
			out.InitData = *d.TOML
		default:
			if out.InitDataDigest, err = decode(*d.Digest); err == nil && len(out.InitDataDigest) == 0 {
				err = errors.New("it is empty")
			}
		}
		if err != nil {
			return out, fmt.Errorf("init_data: %w", err)
		}
	}
	return out, nil
}

// decode reads base64url. Padding is not written, and is put up with.
func decode(text string) ([]byte, error) {
	return base64.RawURLEncoding.Strict().DecodeString(strings.TrimRight(text, "="))
}

// first of the policy ids is the only one that is used (kbs-protocol 11.1).
func first(ids []string) string {
	if len(ids) == 0 {
		return ""
	}
	return ids[0]
}
