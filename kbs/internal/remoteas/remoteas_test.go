package remoteas

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	pb "github.com/vouchsafe-cc/vouchsafe/kbs/api/proto/attestation"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/attestation"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// service answers as a test wants it.
type service struct {
	pb.UnimplementedAttestationServiceServer
	answer func(context.Context) (string, error)
}

func (s *service) AttestationEvaluate(ctx context.Context, _ *pb.AttestationRequest) (*pb.AttestationResponse, error) {
	text, err := s.answer(ctx)
	return &pb.AttestationResponse{AttestationToken: text}, err
}

func serve(t *testing.T, s *service) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	pb.RegisterAttestationServiceServer(srv, s)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	t.Cleanup(func() {
		srv.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return "http://" + ln.Addr().String()
}

func open(t *testing.T, c Config) *Client {
	t.Helper()
	client, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// The field's services abort for every reason; ours says which.
func TestErrorsGetCodes(t *testing.T) {
	s := &service{}
	c := open(t, Config{Addr: serve(t, s), Calls: 1, Timeout: 10 * time.Second})
	for name, x := range map[string]struct {
		err  error
		want fault.Code
	}{
		"ours":              {status.Error(codes.Aborted, "root_untrusted (ticket 7QK2-M9TD)"), fault.RootUntrusted},
		"ours, with detail": {status.Error(codes.Aborted, "invalid_request: evidence: no"), fault.InvalidRequest},
		"the field's":       {status.Error(codes.Aborted, "verifier evaluate failed: bad quote"), fault.EvidenceInvalid},
		"no credential":     {status.Error(codes.Unauthenticated, "root_untrusted"), fault.Unavailable},
		"overloaded":        {status.Error(codes.ResourceExhausted, "x"), fault.Unavailable},
		"broken":            {errors.New("x"), fault.Unavailable},
	} {
		s.answer = func(context.Context) (string, error) { return "", x.err }
		_, err := c.Evaluate(t.Context(), attestation.Evaluation{})
		if f, ok := errors.AsType[*fault.Fault](err); !ok || f.Code != x.want {
			t.Errorf("%s: %v, want %s", name, err, x.want)
		}
	}
	s.answer = func(context.Context) (string, error) { return strings.Repeat("x", maxAnswer+1), nil }
	if _, err := c.Evaluate(t.Context(), attestation.Evaluation{}); err == nil {
		t.Error("an endless token was taken")
	}
	if _, err := New(Config{Addr: "nowhere"}); err == nil {
		t.Error("an address without a host")
	}
}

// No more calls than configured, and none for longer than configured.
func TestCallsAreBounded(t *testing.T) {
	arrived := make(chan struct{}, 1)
	s := &service{answer: func(ctx context.Context) (string, error) {
		arrived <- struct{}{}
		<-ctx.Done()
		return "", ctx.Err()
	}}
	addr := serve(t, s)
	c := open(t, Config{Addr: addr, Calls: 1, Timeout: time.Minute})
	ctx, leave := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := c.Evaluate(ctx, attestation.Evaluation{})
		first <- err
	}()
	<-arrived
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := c.Evaluate(gone, attestation.Evaluation{})
	if f, ok := errors.AsType[*fault.Fault](err); !ok || f.Code != fault.Unavailable || !strings.Contains(f.Cause().Error(), "1 calls of ours") {
		t.Errorf("a second call at once: %v", err)
	}
	leave()
	if err := <-first; err == nil {
		t.Error("the service did not answer, and the call did")
	}

	c = open(t, Config{Addr: addr, Calls: 1, Timeout: 50 * time.Millisecond})
	_, err = c.Evaluate(t.Context(), attestation.Evaluation{})
	if f, ok := errors.AsType[*fault.Fault](err); !ok || f.Code != fault.Unavailable {
		t.Errorf("a call that takes longer than it may: %v", err)
	}
}

// A token that cannot be read stops a change before anything is sent.
func TestTokenFile(t *testing.T) {
	c := open(t, Config{Addr: "http://127.0.0.1:1", Calls: 1, Timeout: time.Second, Token: func() (secret.Bytes, error) { return secret.Bytes{}, os.ErrNotExist }})
	if err := c.SetPolicy(t.Context(), "a_cpu", "package policy"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
