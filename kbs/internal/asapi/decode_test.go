package asapi

import (
	"encoding/json"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "github.com/vouchsafe-cc/vouchsafe/kbs/api/proto/attestation"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/attestation"
)

// sound fails if what was decoded is not what an evaluation may be.
func sound(t *testing.T, e attestation.Evaluation) {
	t.Helper()
	if len(e.Evidence) > maxEvidence {
		t.Fatalf("%d attesters", len(e.Evidence))
	}
	for _, one := range e.Evidence {
		if !json.Valid(one.Data) || (one.RuntimeData != nil && !json.Valid(one.RuntimeData)) {
			t.Fatalf("not JSON: %q, %q", one.Data, one.RuntimeData)
		}
		if (one.RuntimeData != nil && one.ReportData != nil) || (one.InitData != "" && one.InitDataDigest != nil) {
			t.Fatalf("two answers to one question: %+v", one)
		}
		if (one.ReportData != nil && len(one.ReportData) == 0) || (one.InitDataDigest != nil && len(one.InitDataDigest) == 0) {
			t.Fatalf("an empty answer is none: %+v", one)
		}
	}
}

func FuzzFromJSON(f *testing.F) {
	f.Add([]byte(`{"verification_requests":[{"tee":"snp","evidence":"e30","runtime_data":{"structured":{"a":1}},"init_data":{"init_data_digest":"AA"}}],"policy_ids":["default"]}`))
	f.Add([]byte(`{"verification_requests":[{"tee":"snp","evidence":"e30=","runtime_data":{"raw":"AA"},"init_data":{"init_data_toml":"x"}}],"policy_ids":[]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if e, err := fromJSON(raw); err == nil {
			sound(t, e)
		}
	})
}

func FuzzFromProto(f *testing.F) {
	seed, err := proto.Marshal(&pb.AttestationRequest{PolicyIds: []string{"default"}, VerificationRequests: []*pb.IndividualAttestationRequest{{
		Tee: "snp", Evidence: "e30", RuntimeData: &pb.IndividualAttestationRequest_StructuredRuntimeData{StructuredRuntimeData: `{"a":1}`},
		InitData: &pb.IndividualAttestationRequest_InitDataDigest{InitDataDigest: "AA"},
	}, {
		Tee: "snp", Evidence: "e30", RuntimeData: &pb.IndividualAttestationRequest_RawRuntimeData{RawRuntimeData: "AA"},
		InitData: &pb.IndividualAttestationRequest_InitDataToml{InitDataToml: "x"},
	}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, raw []byte) {
		var r pb.AttestationRequest
		if proto.Unmarshal(raw, &r) != nil {
			return
		}
		if e, err := fromProto(&r); err == nil {
			sound(t, e)
		}
	})
}
