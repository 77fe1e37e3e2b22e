package server_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vouchsafe-cc/vouchsafe/fault"

	pb "github.com/vouchsafe-cc/vouchsafe/kbs/api/proto/attestation"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api/proto/reference"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
)

// evaluates has one piece of good evidence judged.
func (s *stage) evaluates(as pb.AttestationServiceClient, evidence *pb.IndividualAttestationRequest) error {
	_, err := as.AttestationEvaluate(s.t.Context(), &pb.AttestationRequest{VerificationRequests: []*pb.IndividualAttestationRequest{evidence}})
	return err
}

// What other brokers ask is counted, traced and logged as what guests ask is.
func TestServicesAreWatched(t *testing.T) {
	var mu sync.Mutex
	var spans strings.Builder
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		_, _ = io.Copy(&spans, r.Body)
	}))
	defer collector.Close()
	s := newService(t)
	s.restartWith(func(c *config.Config) { c.Tracing.Endpoint, c.Tracing.SampleRatio = collector.URL, 1 })
	as := pb.NewAttestationServiceClient(dial(t, s.listeners.AS[0]))
	rvps := reference.NewReferenceValueProviderServiceClient(dial(t, s.listeners.RVPS[0]))
	good := bound(t, guest(t, "lab", "agent 1"), runtimeData(t, "n1"))
	if err := s.evaluates(as, good); err != nil {
		t.Fatal(err)
	}
	if err := s.evaluates(as, bound(t, guest(t, "stranger", "agent 1"), runtimeData(t, "n2"))); err == nil {
		t.Fatal("a stranger was believed")
	}
	if _, err := rvps.QueryReferenceValue(t.Context(), &reference.ReferenceValueQueryRequest{ReferenceValueId: "snp_launch_measurement"}); status.Code(err) != codes.Unauthenticated {
		t.Fatal(err)
	}
	rest := "http://" + s.listeners.REST[0].Addr().String()
	s.send(http.MethodPost, rest+"/attestation", []byte(`{`))
	s.send(http.MethodGet, rest+"/some/path", nil)
	const evaluate = "/attestation.AttestationService/AttestationEvaluate"
	got := s.scrape()
	for series, want := range map[string]string{
		`kbs_http_requests_total{code="200",listener="attestation_service.grpc",route="` + evaluate + `"}`:                              "1",
		`kbs_http_requests_total{code="401",listener="attestation_service.grpc",route="` + evaluate + `"}`:                              "1",
		`kbs_http_request_duration_seconds_count{listener="attestation_service.grpc",route="` + evaluate + `"}`:                         "2",
		`kbs_http_requests_total{code="401",listener="rvps.grpc",route="/reference.ReferenceValueProviderService/QueryReferenceValue"}`: "1",
		`kbs_http_requests_total{code="400",listener="attestation_service.rest",route="POST /attestation"}`:                             "1",
		`kbs_http_requests_total{code="404",listener="attestation_service.rest",route="none"}`:                                          "1",
		`kbs_attestation_requests_total`: "0", // those are handshakes
	} {
		if got[series] != want {
			t.Errorf("%s is %q, want %s", series, got[series], want)
		}
	}
	for name := range got {
		if strings.Contains(name, "some/path") || strings.HasPrefix(name, "kbs_http_request_size_bytes_sum") && strings.Contains(name, "service.grpc") && got[name] == "0" {
			t.Errorf("%s %s", name, got[name])
		}
	}
	s.stop() // and so everything is delivered
	mu.Lock()
	defer mu.Unlock()
	for _, want := range []string{evaluate, "POST /attestation", "evidence", "root_untrusted"} {
		if !strings.Contains(spans.String(), want) {
			t.Errorf("no span %s", want)
		}
	}
	s.discreet([]byte(spans.String()))
	if text := s.log.String(); !strings.Contains(text, `"listener":"attestation_service.grpc","route":"`+evaluate+`","status":401`) || !strings.Contains(text, `"code":"root_untrusted","ticket":"`) {
		t.Error("the log does not tell what was refused")
	}
}

// One caller's rate is its own, and the guests' is another.
func TestServicesAreLimited(t *testing.T) {
	s := newService(t)
	s.restartWith(func(c *config.Config) {
		c.AttestationService.GRPC.CallsPerSecond, c.AttestationService.REST.CallsPerSecond = 1, 1
		c.Limits.Burst, c.Limits.FailuresPerSecond = 3, 1
	})
	s.clock.stop(time.Now())
	as := pb.NewAttestationServiceClient(dial(t, s.listeners.AS[0]))
	good := bound(t, guest(t, "lab", "agent 1"), runtimeData(t, "n1"))
	for range 3 {
		if err := s.evaluates(as, good); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.evaluates(as, good); !strings.Contains(status.Convert(err).Message(), string(fault.TooMany)) {
		t.Errorf("the fourth: %v", err)
	}
	rest := "http://" + s.listeners.REST[0].Addr().String()
	var last answer
	for range 4 { // failures of administrators are counted for the caller, beside
		last = s.send(http.MethodGet, rest+"/policy", nil)
	}
	if last.status != http.StatusTooManyRequests {
		t.Errorf("%d %s", last.status, last.body)
	}
	if n, err := strconv.Atoi(last.header.Get("Retry-After")); err != nil || n < 1 {
		t.Errorf("Retry-After %q", last.header.Get("Retry-After"))
	}
	if got := s.scrape()[`kbs_shed_requests_total{reason="rate_attest"}`]; got != "2" {
		t.Errorf("%q calls were counted as shed", got)
	}
	s.auth(guest(t, "lab", "agent 1")).token() // a guest of the same address is not in the way
	s.clock.stop(s.clock.now().Add(2 * time.Second))
	if err := s.evaluates(as, good); err != nil {
		t.Errorf("later: %v", err)
	}
}
