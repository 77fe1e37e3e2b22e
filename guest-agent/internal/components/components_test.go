package components

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/attestation"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/datahub"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/hub"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/rpc"
	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/aael"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// fakeHub answers what it was asked, or its error.
type fakeHub struct {
	err      error
	platform measure.Platform
	panics   bool
	mounted  string
}

func (f *fakeHub) answer(text string) (secret.Bytes, error) {
	if f.panics {
		panic("a bug")
	}
	if f.err != nil {
		return secret.Bytes{}, f.err
	}
	return secret.New([]byte(text)), nil
}

func (f *fakeHub) Evidence(_ context.Context, data []byte) ([]byte, error) {
	return append([]byte("evidence of "), data...), f.err
}
func (f *fakeHub) AdditionalEvidence(_ context.Context, data []byte) ([]byte, error) {
	return append([]byte("devices over "), data...), f.err
}
func (f *fakeHub) BindInitData(_ context.Context, digest []byte) error {
	if f.err == nil && string(digest) != "the digest" {
		return fault.New(fault.InitDataMismatch, errors.New("private"))
	}
	return f.err
}
func (f *fakeHub) AdditionalPlatforms() []measure.Platform { return []measure.Platform{measure.NVIDIA} }
func (f *fakeHub) Token(_ context.Context, kind string) (secret.Bytes, error) {
	return f.answer("token " + kind)
}
func (f *fakeHub) Platform() measure.Platform                          { return f.platform }
func (f *fakeHub) Record(context.Context, eventlog.RuntimeEvent) error { return f.err }
func (f *fakeHub) Resource(_ context.Context, uri string) (secret.Bytes, error) {
	return f.answer("resource " + uri)
}
func (f *fakeHub) Unseal(_ context.Context, text string) (secret.Bytes, error) {
	return f.answer("value of " + text)
}
func (f *fakeHub) PullImage(_ context.Context, ref, bundle string) (hub.PulledImage, error) {
	return hub.PulledImage{Digest: ref + " in " + bundle}, f.err
}
func (f *fakeHub) SecureMount(_ context.Context, volumeType string, options map[string]string, flags []string, mountPoint string) error {
	f.mounted = fmt.Sprintf("%s %v %v %s", volumeType, options, flags, mountPoint)
	return f.err
}
func (f *fakeHub) UnwrapKey(_ context.Context, packet []byte) (secret.Bytes, error) {
	return f.answer("key of " + string(packet))
}

func serve(t *testing.T, s *rpc.Server) *ttrpc.Client {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(context.Background(), l) }()
	conn, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := ttrpc.NewClient(conn)
	t.Cleanup(func() {
		_ = c.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, rpc.ErrClosed) {
			t.Error(err)
		}
	})
	return c
}

func open(t *testing.T, f *fakeHub, log *slog.Logger) (attestation.AttestationAgentServiceService, *ttrpc.Client) {
	t.Helper()
	return attestation.NewAttestationAgentServiceClient(serve(t, NewAttestation(f, log))), serve(t, NewDataHub(f, log))
}

func TestAnswers(t *testing.T) {
	f := &fakeHub{platform: measure.SNP}
	aa, cdh := open(t, f, slog.New(slog.DiscardHandler))
	ctx := t.Context()
	for name, c := range map[string]struct {
		call func() (string, error)
		want string
	}{
		"GetEvidence": {func() (string, error) {
			r, err := aa.GetEvidence(ctx, &attestation.GetEvidenceRequest{RuntimeData: []byte("data")})
			return string(r.GetEvidence()), err
		}, "evidence of data"},
		"GetAdditionalEvidence": {func() (string, error) {
			r, err := aa.GetAdditionalEvidence(ctx, &attestation.GetAdditionalEvidenceRequest{RuntimeData: []byte("data")})
			return string(r.GetEvidence()), err
		}, "devices over data"},
		"GetToken": {func() (string, error) {
			r, err := aa.GetToken(ctx, &attestation.GetTokenRequest{TokenType: "kbs"})
			return string(r.GetToken()), err
		}, "token kbs"},
		"BindInitData": {func() (string, error) {
			_, err := aa.BindInitData(ctx, &attestation.BindInitDataRequest{Digest: []byte("the digest")})
			return "", err
		}, ""},
		"GetTeeType": {func() (string, error) {
			r, err := aa.GetTeeType(ctx, &attestation.GetTeeTypeRequest{})
			return r.GetTee(), err
		}, "snp"},
		"GetAdditionalTees": {func() (string, error) {
			r, err := aa.GetAdditionalTees(ctx, &attestation.GetAdditionalTeesRequest{})
			return strings.Join(r.GetAdditionalTees(), ","), err
		}, "nvidia"},
		"GetResource": {func() (string, error) {
			r, err := datahub.NewGetResourceServiceClient(cdh).GetResource(ctx, &datahub.GetResourceRequest{ResourcePath: "kbs:///a/b/c"})
			return string(r.GetResource()), err
		}, "resource kbs:///a/b/c"},
		"UnsealSecret": {func() (string, error) {
			r, err := datahub.NewSealedSecretServiceClient(cdh).UnsealSecret(ctx, &datahub.UnsealSecretInput{Secret: []byte("sealed.x")})
			return string(r.GetPlaintext()), err
		}, "value of sealed.x"},
		"PullImage": {func() (string, error) {
			r, err := datahub.NewImagePullServiceClient(cdh).PullImage(ctx, &datahub.ImagePullRequest{ImageUrl: "app", BundlePath: "/b"})
			return r.GetManifestDigest(), err
		}, "app in /b"},
		"SecureMount": {func() (string, error) {
			_, err := datahub.NewSecureMountServiceClient(cdh).SecureMount(ctx, &datahub.SecureMountRequest{
				VolumeType: "block-device", Options: map[string]string{"deviceId": "8:16"}, Flags: []string{"ro"}, MountPoint: "/m"})
			return f.mounted, err
		}, "block-device map[deviceId:8:16] [ro] /m"},
		"UnWrapKey": {func() (string, error) {
			r, err := datahub.NewKeyProviderServiceClient(cdh).UnWrapKey(ctx, &datahub.KeyProviderKeyWrapProtocolInput{
				KeyProviderKeyWrapProtocolInput: []byte(`{"op":"keyunwrap","keyunwrapparams":{"dc":null,"annotation":[123,125]}}`),
			})
			return string(r.GetKeyProviderKeyWrapProtocolOutput()), err
		}, `{"keyunwrapresults":{"optsdata":[107,101,121,32,111,102,32,123,125]}}`},
	} {
		if got, err := c.call(); err != nil || got != c.want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, c.want)
		}
	}
	for err, want := range map[error]attestation.RuntimeMeasurementResult{
		nil:                  attestation.RuntimeMeasurementResult_OK,
		aael.ErrDisabled:     attestation.RuntimeMeasurementResult_NOT_ENABLED,
		aael.ErrNotSupported: attestation.RuntimeMeasurementResult_NOT_SUPPORTED,
	} {
		aa, _ := open(t, &fakeHub{err: err}, slog.New(slog.DiscardHandler))
		r, err := aa.ExtendRuntimeMeasurement(ctx, &attestation.ExtendRuntimeMeasurementRequest{Domain: "d", Operation: "o", Content: "c"})
		if err != nil || r.Result != want {
			t.Errorf("%v, %v; want %v", r, err, want)
		}
	}
}

// A caller learns upstream's text, the code and the ticket, and no cause; so
// does the log.
func TestRefusals(t *testing.T) {
	var log bytes.Buffer
	refusal := fault.New(fault.PolicyDenied, errors.New("a private cause")).With("T-1")
	aa, cdh := open(t, &fakeHub{err: refusal}, slog.New(slog.NewTextHandler(&log, nil)))
	ctx := t.Context()
	register := uint64(3)
	for name, c := range map[string]struct {
		call func() error
		want string
	}{
		"token": {func() error { _, err := aa.GetToken(ctx, &attestation.GetTokenRequest{}); return err }, "[ERROR:attestation-agent] AA-KBC get token failed: policy_denied (ticket T-1)"},
		"init-data": {func() error { _, err := aa.BindInitData(ctx, &attestation.BindInitDataRequest{}); return err },
			"[ERROR:attestation-agent] BindInitData failed: policy_denied (ticket T-1)"},
		"tee": {func() error { _, err := aa.GetTeeType(ctx, &attestation.GetTeeTypeRequest{}); return err }, "AA-KBC get tee type failed"},
		"a register of one's choice": {func() error {
			_, err := aa.ExtendRuntimeMeasurement(ctx, &attestation.ExtendRuntimeMeasurementRequest{RegisterIndex: &register})
			return err
		}, "AA extend runtime measurement failed"},
		"resource": {func() error {
			_, err := datahub.NewGetResourceServiceClient(cdh).GetResource(ctx, &datahub.GetResourceRequest{})
			return err
		}, "[CDH] [ERROR]: Get Resource failed: policy_denied (ticket T-1)"},
		"image": {func() error {
			_, err := datahub.NewImagePullServiceClient(cdh).PullImage(ctx, &datahub.ImagePullRequest{})
			return err
		}, "[CDH] [ERROR]: Image Pull error: policy_denied"},
		"volume": {func() error {
			_, err := datahub.NewSecureMountServiceClient(cdh).SecureMount(ctx, &datahub.SecureMountRequest{})
			return err
		}, "Secure Mount failed: policy_denied (ticket T-1)"},
		"a malformed question": {func() error {
			_, err := datahub.NewKeyProviderServiceClient(cdh).UnWrapKey(ctx, &datahub.KeyProviderKeyWrapProtocolInput{KeyProviderKeyWrapProtocolInput: []byte("{")})
			return err
		}, "[ERROR] UnwrapKey Parse request failed"},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.call()
			if status.Code(err) != codes.Internal || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
	for name, err := range map[string]error{
		"WrapKey": func() error {
			_, err := datahub.NewKeyProviderServiceClient(cdh).WrapKey(ctx, &datahub.KeyProviderKeyWrapProtocolInput{})
			return err
		}(),
	} {
		if status.Code(err) != codes.Unimplemented {
			t.Errorf("%s: %v", name, err)
		}
	}
	if strings.Contains(log.String(), "private") {
		t.Errorf("the log tells %s", log.String())
	}
}

func TestABugEndsACallAlone(t *testing.T) {
	aa, _ := open(t, &fakeHub{panics: true, platform: measure.TPM}, slog.New(slog.DiscardHandler))
	if _, err := aa.GetToken(t.Context(), &attestation.GetTokenRequest{}); status.Code(err) != codes.Internal {
		t.Errorf("%v", err)
	}
	if r, err := aa.GetTeeType(t.Context(), &attestation.GetTeeTypeRequest{}); err != nil || r.Tee != "tpm" {
		t.Errorf("%v, %v", r, err)
	}
}
