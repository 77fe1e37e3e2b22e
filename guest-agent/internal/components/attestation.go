package components

import (
	"context"
	"errors"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/attestation"
	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/aael"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// Attester is what the attestation-agent's service needs of the hub.
type Attester interface {
	Evidence(ctx context.Context, runtimeData []byte) ([]byte, error)
	AdditionalEvidence(ctx context.Context, runtimeData []byte) ([]byte, error)
	AdditionalPlatforms() []measure.Platform
	Token(ctx context.Context, kind string) (secret.Bytes, error)
	Platform() measure.Platform
	Record(ctx context.Context, e eventlog.RuntimeEvent) error
	BindInitData(ctx context.Context, digest []byte) error
}

// attestationAgent implements attestation_agent.AttestationAgentService
// (guest-protocol 2.2).
type attestationAgent struct{ hub Attester }

func (a attestationAgent) GetEvidence(ctx context.Context, req *attestation.GetEvidenceRequest) (*attestation.GetEvidenceResponse, error) {
	evidence, err := a.hub.Evidence(ctx, req.RuntimeData)
	return &attestation.GetEvidenceResponse{Evidence: evidence}, err
}

// GetAdditionalEvidence is empty where there is no further device.
func (a attestationAgent) GetAdditionalEvidence(ctx context.Context, req *attestation.GetAdditionalEvidenceRequest) (*attestation.GetEvidenceResponse, error) {
	evidence, err := a.hub.AdditionalEvidence(ctx, req.RuntimeData)
	return &attestation.GetEvidenceResponse{Evidence: evidence}, err
}

// GetToken returns a token that is not the agent's own; the key pair comes with
// it only where the owner says so (see hub.Tokens).
func (a attestationAgent) GetToken(ctx context.Context, req *attestation.GetTokenRequest) (*attestation.GetTokenResponse, error) {
	token, err := a.hub.Token(ctx, req.TokenType)
	if err != nil {
		return nil, err
	}
	return &attestation.GetTokenResponse{Token: take(token)}, nil
}

// ExtendRuntimeMeasurement records an event in the register that the
// configuration names; a caller cannot choose another.
func (a attestationAgent) ExtendRuntimeMeasurement(ctx context.Context, req *attestation.ExtendRuntimeMeasurementRequest) (*attestation.ExtendRuntimeMeasurementResponse, error) {
	if req.RegisterIndex != nil {
		return nil, fault.Newf(fault.InvalidRequest, "the register of runtime events is that of the configuration")
	}
	answer := func(r attestation.RuntimeMeasurementResult) (*attestation.ExtendRuntimeMeasurementResponse, error) {
		return &attestation.ExtendRuntimeMeasurementResponse{Result: r}, nil
	}
	err := a.hub.Record(ctx, eventlog.RuntimeEvent{Domain: req.Domain, Operation: req.Operation, Content: req.Content})
	switch {
	case errors.Is(err, aael.ErrDisabled):
		return answer(attestation.RuntimeMeasurementResult_NOT_ENABLED)
	case errors.Is(err, aael.ErrNotSupported):
		return answer(attestation.RuntimeMeasurementResult_NOT_SUPPORTED)
	case err != nil:
		return nil, err
	}
	return answer(attestation.RuntimeMeasurementResult_OK)
}

// BindInitData answers whether evidence is bound to the digest; upstream's ttrpc
// server does not have it, its gRPC server does.
func (a attestationAgent) BindInitData(ctx context.Context, req *attestation.BindInitDataRequest) (*attestation.BindInitDataResponse, error) {
	return &attestation.BindInitDataResponse{}, a.hub.BindInitData(ctx, req.Digest)
}

func (a attestationAgent) GetTeeType(context.Context, *attestation.GetTeeTypeRequest) (*attestation.GetTeeTypeResponse, error) {
	p := a.hub.Platform()
	if p == "" {
		return nil, fault.Newf(fault.Unavailable, "this guest has no attester")
	}
	return &attestation.GetTeeTypeResponse{Tee: string(p)}, nil
}

func (a attestationAgent) GetAdditionalTees(context.Context, *attestation.GetAdditionalTeesRequest) (*attestation.GetAdditionalTeesResponse, error) {
	resp := &attestation.GetAdditionalTeesResponse{}
	for _, p := range a.hub.AdditionalPlatforms() {
		resp.AdditionalTees = append(resp.AdditionalTees, string(p))
	}
	return resp, nil
}

// take copies a secret into a message, which nobody wipes, and destroys it.
func take(s secret.Bytes) []byte {
	defer s.Destroy()
	return append([]byte(nil), s.Reveal()...)
}
