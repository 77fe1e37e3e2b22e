package server_test

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	pb "github.com/vouchsafe-cc/vouchsafe/kbs/api/proto/plugin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
)

// moody is a program that answers for the broker, well or not. The first
// segment of the path is its mood.
type moody struct {
	pb.UnimplementedKbsPluginServer
	seen chan *pb.PluginRequest
	wait chan struct{} // for the mood of that name
}

func (m *moody) ValidateAuth(_ context.Context, r *pb.PluginRequest) (*pb.ValidateAuthResponse, error) {
	return &pb.ValidateAuthResponse{RequiresAdminAuth: r.GetMethod() != http.MethodGet}, nil
}

func (m *moody) NeedsEncryption(_ context.Context, r *pb.PluginRequest) (*pb.NeedsEncryptionResponse, error) {
	return &pb.NeedsEncryptionResponse{RequiresPayloadEncryption: r.GetPath()[0] != "open" && r.GetPath()[0] != "wait"}, nil
}

func (m *moody) Handle(ctx context.Context, r *pb.PluginRequest) (*pb.PluginResponse, error) {
	select {
	case m.seen <- r:
	default:
	}
	switch r.GetPath()[0] {
	case "wait":
		select {
		case <-m.wait:
		case <-ctx.Done():
		}
	case "slow":
		<-ctx.Done()
		return nil, ctx.Err()
	case "large":
		return &pb.PluginResponse{Body: bytes.Repeat([]byte{'x'}, 2<<20)}, nil
	case "no":
		return &pb.PluginResponse{StatusCode: 403, Body: []byte("private words")}, nil
	case "absent":
		return nil, status.Error(codes.NotFound, "private words")
	case "panics":
		panic("the back end's own trouble") //nolint:gocritic // grpc ends the process unless somebody recovers
	}
	return &pb.PluginResponse{Body: append([]byte("echo "), r.GetBody()...)}, nil
}

// recovers lets a back end that panics go on, as gRPC servers are set up.
func recovers(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (out any, err error) {
	defer func() {
		if recover() != nil {
			err = status.Error(codes.Internal, "panic")
		}
	}()
	return handle(ctx, req)
}

func startMoody(t *testing.T) (*moody, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &moody{seen: make(chan *pb.PluginRequest, 16), wait: make(chan struct{})}
	srv := grpc.NewServer(grpc.UnaryInterceptor(recovers))
	pb.RegisterKbsPluginServer(srv, m)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	t.Cleanup(func() {
		srv.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return m, "http://" + l.Addr().String()
}

const pluginPolicy = `package policy

import rego.v1

default allow := false

allow if {
	data.plugin == "external"
	data["resource-path"][0] == "moody"
	data["resource-path"][1] != "forbidden"
	input.submods.cpu0["ear.status"] == "affirming"
}
`

// A program of the operator's answers administrators and attested guests; who
// may ask and what leaves is still the broker's to say.
func TestExternalPlugin(t *testing.T) {
	back, endpoint := startMoody(t)
	s := newStage(t)
	s.stop()
	s.cfg.Plugins = []config.Plugin{{Name: "external", Backends: []config.PluginBackend{{Name: "moody", Endpoint: endpoint, TimeoutMS: 300}}}}
	s.start()
	s.know()
	s.acceptLab()
	s.putJSON(api.PathPolicies+"/resource/resource-policy", api.Policy{Version: -1, Rego: pluginPolicy})
	at := func(path string) string { return s.guestURL + api.PathPrefix + "/external/moody/" + path }
	c := s.client(guest(t, "lab", "agent 1"))
	tok, err := c.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	as := "Authorization: Bearer " + string(tok.JWT.Reveal())

	a := s.send(http.MethodGet, at("open?k=v"), []byte("hello"), as)
	if a.status != http.StatusOK || string(a.body) != "echo hello" {
		t.Errorf("open: %d %s", a.status, a.body)
	}
	r := <-back.seen
	if r.GetQuery()["k"] != "v" || r.GetTenant() != "default" || !bytes.Contains(r.GetAttestationClaims(), []byte("ear.status")) {
		t.Errorf("the back end got %v", r)
	}
	value, err := c.Resource(t.Context(), "kbs+external:///moody/sealed/1")
	if err != nil || string(value.Reveal()) != "echo " {
		t.Errorf("sealed: %q, %v", value.Reveal(), err)
	}
	for path, want := range map[string]struct {
		status int
		code   fault.Code
	}{
		"forbidden": {http.StatusForbidden, fault.PolicyDenied},
		"slow":      {http.StatusServiceUnavailable, fault.Unavailable},
		"large":     {http.StatusServiceUnavailable, fault.Unavailable},
		"panics":    {http.StatusServiceUnavailable, fault.Unavailable},
		"no":        {http.StatusForbidden, fault.Forbidden},
		"absent":    {http.StatusNotFound, fault.NotFound},
	} {
		a := s.send(http.MethodGet, at(path), nil, as)
		if a.status != want.status || !bytes.Contains(a.body, []byte(want.code)) || bytes.Contains(a.body, []byte("private")) {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	if a := s.send(http.MethodGet, at("open"), nil); a.status != http.StatusUnauthorized {
		t.Errorf("nobody: %d %s", a.status, a.body)
	}
	if a := s.send(http.MethodPost, at("open"), []byte("x"), as); a.status != http.StatusUnauthorized {
		t.Errorf("a guest in an administrator's place: %d %s", a.status, a.body)
	}
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete} {
		if a := s.send(method, at("open"), []byte("x"), "Authorization: Bearer "+s.adminToken); a.status != http.StatusOK || string(a.body) != "echo x" {
			t.Errorf("administrator, %s: %d %s", method, a.status, a.body)
		}
	}
	if a := s.send(http.MethodGet, s.guestURL+api.PathPrefix+"/external/other/x", nil, as); a.status != http.StatusNotFound {
		t.Errorf("no such back end: %d %s", a.status, a.body)
	}
	var kinds []string
	for _, e := range s.entries() {
		if strings.HasPrefix(e.Object, "external/") {
			kinds = append(kinds, string(e.Kind)+" "+e.Decision)
		}
	}
	text := strings.Join(kinds, ", ")
	for _, want := range []string{"release allow", "release deny", "release error", "plugin.call change"} {
		if !strings.Contains(text, want) {
			t.Errorf("the log has %s, and no %s", text, want)
		}
	}
}

// A guest that is cut off while a back end takes its time gets nothing of what
// comes of it.
func TestRevokedWhileItWaits(t *testing.T) {
	back, endpoint := startMoody(t)
	s := newStage(t)
	s.restartWith(func(c *config.Config) {
		c.Plugins = []config.Plugin{{Name: "external", Backends: []config.PluginBackend{{Name: "moody", Endpoint: endpoint, TimeoutMS: 60_000}}}}
	})
	s.know()
	s.acceptLab()
	s.putJSON(api.PathPolicies+"/resource/resource-policy", api.Policy{Version: -1, Rego: pluginPolicy})
	at := s.guestURL + api.PathPrefix + "/external/moody/wait"
	sim := guest(t, "lab", "agent 1")
	var bearer, id string
	attest := func() {
		t.Helper()
		bearer = "Authorization: Bearer " + s.auth(sim).token()
		for _, e := range s.entries() {
			if e.Kind == api.AuditAttest {
				id = strings.TrimPrefix(e.Object, "token/")
			}
		}
	}
	during := func(what func()) answer {
		t.Helper()
		got := make(chan answer, 1)
		go func() { got <- s.send(http.MethodGet, at, []byte("hello"), bearer) }()
		<-back.seen
		what()
		back.wait <- struct{}{}
		return <-got
	}
	attest()
	if a := during(func() {}); a.status != http.StatusOK || string(a.body) != "echo hello" {
		t.Fatalf("nobody is revoked: %d %s", a.status, a.body)
	}
	var leases api.LeasePage
	s.get(api.PathLeases, &leases)
	if len(leases.Items) != 1 {
		t.Fatalf("%+v", leases)
	}
	chip, _ := claimsOf(t, sim)["chip_id"].(string)
	for what, x := range map[string]struct{ body, code string }{
		"its token":         {`{"token_id":"ID","reason":"test"}`, "token_invalid"},
		"its chip":          {`{"claim":"snp.chip_id","value":"` + chip + `","reason":"test"}`, "guest_revoked"},
		"its lease on this": {`{"lease":"` + leases.Items[0].ID + `","reason":"test"}`, "guest_revoked"},
	} {
		attest()
		var r api.GuestRevocation
		a := during(func() { r = s.cutOff(strings.Replace(x.body, "ID", id, 1)) })
		if e := a.info(t); e.Code != x.code || s.explain(e.Ticket).Object != "external/moody/wait" {
			t.Errorf("%s: %d %s", what, a.status, a.body)
		}
		s.must(http.MethodDelete, api.PathGuestRevocations+"/"+r.ID, nil)
	}
	allowed := 0
	for _, e := range s.entries() {
		if e.Object == "external/moody/wait" && e.Decision == "allow" {
			allowed++
		}
	}
	if allowed != 1 {
		t.Errorf("the log has %d releases", allowed)
	}
}
