// Package remoteas asks another Attestation Service what evidence is worth,
// over gRPC (kbs-protocol 11.1; coco_as_grpc in the configuration).
//
// Its answers are only carried here. Whether a token is good decides the
// verifier of package token, as for any other issuer, and whether it speaks of
// the guest at hand decides package attestation.
package remoteas

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	pb "github.com/vouchsafe-cc/vouchsafe/kbs/api/proto/attestation"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api/proto/reference"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/attestation"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// maxAnswer limits what the service may answer, in bytes: a token with eight
// GPUs is 170 KiB.
const maxAnswer = 4 << 20

// Config says where the service is.
type Config struct {
	Addr    string        // http://host:port or https://host:port
	Calls   int           // at once; more wait
	Timeout time.Duration // of one call
	TLS     *tls.Config   // of https
	// Token returns an administrator's token of that service, for what changes
	// its state; nil if there is none.
	Token func() (secret.Bytes, error)
}

// Client is the service. It is safe for concurrent use; calls share one
// connection, which is made when it is first needed.
type Client struct {
	cfg        Config
	conn       *grpc.ClientConn
	attester   pb.AttestationServiceClient
	references reference.ReferenceValueProviderServiceClient
	busy       chan struct{}
}

// New returns a client. Nothing is dialled yet.
func New(cfg Config) (*Client, error) {
	u, err := url.Parse(cfg.Addr)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("attestation service: %q is not an address", cfg.Addr)
	}
	creds := insecure.NewCredentials()
	if u.Scheme == "https" {
		creds = credentials.NewTLS(cfg.TLS)
	}
	conn, err := grpc.NewClient("dns:///"+u.Host, grpc.WithTransportCredentials(creds),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)))
	if err != nil {
		return nil, fmt.Errorf("attestation service: %w", err)
	}
	return &Client{
		cfg: cfg, conn: conn, attester: pb.NewAttestationServiceClient(conn),
		references: reference.NewReferenceValueProviderServiceClient(conn), busy: make(chan struct{}, cfg.Calls),
	}, nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// call runs one call when it is its turn.
func (c *Client) call(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	select {
	case c.busy <- struct{}{}:
		defer func() { <-c.busy }()
	case <-ctx.Done():
		return fault.Newf(fault.Unavailable, "the attestation service has %d calls of ours: %w", c.cfg.Calls, ctx.Err())
	}
	return known(do(ctx))
}

// known gives the errors of the service their codes. It aborts for every
// reason (kbs-protocol 11.1): one of our own kind says which, and of any other
// the evidence is taken to be the cause.
func known(err error) error {
	if err == nil {
		return nil
	}
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	cause := errors.New("attestation service: " + s.Code().String() + ": " + clip(s.Message(), 1024))
	if s.Code() != codes.Aborted {
		return fault.New(fault.Unavailable, cause)
	}
	word, _, _ := strings.Cut(s.Message(), " ")
	if code := fault.Code(strings.TrimSuffix(word, ":")); code.Known() {
		return fault.New(code, cause)
	}
	return fault.New(fault.EvidenceInvalid, cause)
}

// Evaluate returns the service's token.
func (c *Client) Evaluate(ctx context.Context, e attestation.Evaluation) (string, error) {
	req := &pb.AttestationRequest{}
	if e.Policy != "" {
		req.PolicyIds = []string{e.Policy}
	}
	for _, one := range e.Evidence {
		req.VerificationRequests = append(req.VerificationRequests, encode(one))
	}
	var token string
	err := c.call(ctx, func(ctx context.Context) error {
		out, err := c.attester.AttestationEvaluate(ctx, req)
		token = out.GetAttestationToken()
		return err
	})
	return token, err
}

func encode(e attestation.Evidence) *pb.IndividualAttestationRequest {
	enc := base64.RawURLEncoding.EncodeToString
	out := &pb.IndividualAttestationRequest{Tee: e.Platform, Evidence: enc(e.Data), RuntimeDataHashAlgorithm: e.Hash}
	switch {
	case e.ReportData != nil:
		out.RuntimeData = &pb.IndividualAttestationRequest_RawRuntimeData{RawRuntimeData: enc(e.ReportData)}
	case e.RuntimeData != nil:
		out.RuntimeData = &pb.IndividualAttestationRequest_StructuredRuntimeData{StructuredRuntimeData: string(e.RuntimeData)}
	}
	switch {
	case e.InitDataDigest != nil:
		out.InitData = &pb.IndividualAttestationRequest_InitDataDigest{InitDataDigest: enc(e.InitDataDigest)}
	case e.InitData != "":
		out.InitData = &pb.IndividualAttestationRequest_InitDataToml{InitDataToml: e.InitData}
	}
	return out
}

// Challenge returns what a platform needs beside a nonce, "" for most.
func (c *Client) Challenge(ctx context.Context, platform, params string) (string, error) {
	var text string
	err := c.call(ctx, func(ctx context.Context) error {
		out, err := c.attester.GetAttestationChallenge(ctx, &pb.ChallengeRequest{Inner: map[string]string{"tee": platform, "tee_params": params}})
		text = out.GetAttestationChallenge()
		return err
	})
	return text, err
}

// SetPolicy stores an attestation policy there, whatever was there.
func (c *Client) SetPolicy(ctx context.Context, id, rego string) error {
	return c.change(ctx, func(ctx context.Context) error {
		_, err := c.attester.SetAttestationPolicy(ctx, &pb.SetPolicyRequest{
			PolicyId: id, Policy: base64.RawURLEncoding.EncodeToString([]byte(rego)),
		})
		return err
	})
}

// Register stores the values of an RVPS message there (kbs-protocol 12.1).
func (c *Client) Register(ctx context.Context, message []byte) error {
	return c.change(ctx, func(ctx context.Context) error {
		_, err := c.references.RegisterReferenceValue(ctx, &reference.ReferenceValueRegisterRequest{Message: string(message)})
		return err
	})
}

// Query returns a reference value of the service, nil if it has none.
func (c *Client) Query(ctx context.Context, name string) (json.RawMessage, error) {
	var raw json.RawMessage
	err := c.change(ctx, func(ctx context.Context) error {
		out, err := c.references.QueryReferenceValue(ctx, &reference.ReferenceValueQueryRequest{ReferenceValueId: name})
		if out != nil && out.ReferenceValueResults != nil {
			raw = json.RawMessage(out.GetReferenceValueResults())
		}
		return err
	})
	if err == nil && raw != nil && !json.Valid(raw) {
		return nil, fault.Newf(fault.Unavailable, "attestation service: its reference value is not JSON")
	}
	return raw, err
}

// change is a call that needs an administrator there.
func (c *Client) change(ctx context.Context, do func(context.Context) error) error {
	if c.cfg.Token != nil {
		token, err := c.cfg.Token()
		if err != nil {
			return fault.Newf(fault.Unavailable, "the token for the attestation service: %w", err)
		}
		defer token.Destroy()
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+strings.TrimSpace(string(token.Reveal())))
	}
	return c.call(ctx, do)
}

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}
