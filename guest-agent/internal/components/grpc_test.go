package components

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/attestation"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/datahub"
	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

type taggedKey struct{}

func tagged(ctx context.Context, i *stats.ConnTagInfo) context.Context {
	return context.WithValue(ctx, taggedKey{}, i.RemoteAddr.String())
}

func dial(t *testing.T, s *grpc.Server) *grpc.ClientConn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	c, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Close()
		s.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return c
}

// Over gRPC every method has the name, the messages and the answer that it has
// over ttrpc.
func TestGRPCAnswers(t *testing.T) {
	f := &fakeHub{platform: measure.SNP}
	log := slog.New(slog.DiscardHandler)
	aa, cdh := dial(t, NewAttestationGRPC(f, tagged, log)), dial(t, NewDataHubGRPC(f, tagged, log))
	const agent, keys = "/attestation_agent.AttestationAgentService/", "/keyprovider.KeyProviderService/"
	for method, c := range map[string]struct {
		conn      *grpc.ClientConn
		req, resp proto.Message
		want      proto.Message // nil: unimplemented
	}{
		agent + "GetEvidence":              {aa, &attestation.GetEvidenceRequest{RuntimeData: []byte("data")}, &attestation.GetEvidenceResponse{}, &attestation.GetEvidenceResponse{Evidence: []byte("evidence of data")}},
		agent + "GetAdditionalEvidence":    {aa, &attestation.GetAdditionalEvidenceRequest{}, &attestation.GetEvidenceResponse{}, &attestation.GetEvidenceResponse{Evidence: []byte("devices over ")}},
		agent + "GetToken":                 {aa, &attestation.GetTokenRequest{TokenType: "kbs"}, &attestation.GetTokenResponse{}, &attestation.GetTokenResponse{Token: []byte("token kbs")}},
		agent + "ExtendRuntimeMeasurement": {aa, &attestation.ExtendRuntimeMeasurementRequest{Domain: "d"}, &attestation.ExtendRuntimeMeasurementResponse{}, &attestation.ExtendRuntimeMeasurementResponse{}},
		agent + "BindInitData":             {aa, &attestation.BindInitDataRequest{Digest: []byte("the digest")}, &attestation.BindInitDataResponse{}, &attestation.BindInitDataResponse{}},
		agent + "GetTeeType":               {aa, &attestation.GetTeeTypeRequest{}, &attestation.GetTeeTypeResponse{}, &attestation.GetTeeTypeResponse{Tee: "snp"}},
		agent + "GetAdditionalTees":        {aa, &attestation.GetAdditionalTeesRequest{}, &attestation.GetAdditionalTeesResponse{}, &attestation.GetAdditionalTeesResponse{AdditionalTees: []string{"nvidia"}}},
		"/api.SealedSecretService/UnsealSecret": {cdh, &datahub.UnsealSecretInput{Secret: []byte("sealed.x")}, &datahub.UnsealSecretOutput{},
			&datahub.UnsealSecretOutput{Plaintext: []byte("value of sealed.x")}},
		"/api.GetResourceService/GetResource": {cdh, &datahub.GetResourceRequest{ResourcePath: "kbs:///a/b/c"}, &datahub.GetResourceResponse{},
			&datahub.GetResourceResponse{Resource: []byte("resource kbs:///a/b/c")}},
		"/api.ImagePullService/PullImage": {cdh, &datahub.ImagePullRequest{ImageUrl: "app", BundlePath: "/b"}, &datahub.ImagePullResponse{},
			&datahub.ImagePullResponse{ManifestDigest: "app in /b"}},
		"/api.SecureMountService/SecureMount": {cdh, &datahub.SecureMountRequest{}, &datahub.SecureMountResponse{}, &datahub.SecureMountResponse{}},
		keys + "WrapKey":                      {cdh, &datahub.KeyProviderKeyWrapProtocolInput{}, &datahub.KeyProviderKeyWrapProtocolOutput{}, nil},
		keys + "UnWrapKey": {cdh, &datahub.KeyProviderKeyWrapProtocolInput{KeyProviderKeyWrapProtocolInput: []byte(`{"op":"keyunwrap","keyunwrapparams":{"dc":null,"annotation":[123,125]}}`)},
			&datahub.KeyProviderKeyWrapProtocolOutput{}, &datahub.KeyProviderKeyWrapProtocolOutput{KeyProviderKeyWrapProtocolOutput: []byte(`{"keyunwrapresults":{"optsdata":[107,101,121,32,111,102,32,123,125]}}`)}},
	} {
		err := c.conn.Invoke(t.Context(), method, c.req, c.resp)
		if c.want == nil {
			if status.Code(err) != codes.Unimplemented {
				t.Errorf("%s: %v", method, err)
			}
			continue
		}
		if err != nil || !proto.Equal(c.resp, c.want) {
			t.Errorf("%s: %v, %v; want %v", method, c.resp, err, c.want)
		}
	}
}

// Calls know their connection; refusals and bugs are told as over ttrpc, without
// the word that the gRPC builds do not have.
func TestGRPCRefusals(t *testing.T) {
	f := &fakeHub{err: fault.New(fault.PolicyDenied, errors.New("a private cause")).With("T-1")}
	seen := &seeing{fakeHub: f}
	conn := dial(t, NewAttestationGRPC(seen, tagged, slog.New(slog.DiscardHandler)))
	const method = "/attestation_agent.AttestationAgentService/GetToken"
	err := conn.Invoke(t.Context(), method, &attestation.GetTokenRequest{}, &attestation.GetTokenResponse{})
	if s := status.Convert(err); s.Code() != codes.Internal || s.Message() != "[ERROR:attestation-agent] AA get token failed: policy_denied (ticket T-1)" {
		t.Errorf("%v", err)
	}
	f.panics = true
	if err := conn.Invoke(t.Context(), method, &attestation.GetTokenRequest{}, &attestation.GetTokenResponse{}); status.Code(err) != codes.Internal {
		t.Errorf("%v", err)
	}
	if seen.remote == "" {
		t.Error("a call does not know its connection")
	}
}

// seeing notes the tag of a call.
type seeing struct {
	*fakeHub
	remote string
}

func (s *seeing) Token(ctx context.Context, kind string) (secret.Bytes, error) {
	s.remote, _ = ctx.Value(taggedKey{}).(string)
	return s.fakeHub.Token(ctx, kind)
}
