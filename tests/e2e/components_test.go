package e2e

import (
	"encoding/json"
	"net"
	"path/filepath"
	"testing"

	"github.com/containerd/ttrpc"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/attestation"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/datahub"
	"github.com/vouchsafe-cc/vouchsafe/tests/internal/world"
)

// A guest's other programs find the attestation-agent and the
// confidential-data-hub that they expect. What they fetch shares the agent's own
// attestation; a token that is handed out is another one, without its key.
func TestTheFieldsComponentsAreThere(t *testing.T) {
	before := len(entries(t))
	g := launch(t, "components")
	dial := func(name string) *ttrpc.Client {
		t.Helper()
		conn, err := net.Dial("unix", filepath.Join(g.Dir, name))
		if err != nil {
			t.Fatal(err)
		}
		c := ttrpc.NewClient(conn)
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	aa := attestation.NewAttestationAgentServiceClient(dial("aa.sock"))
	resources := datahub.NewGetResourceServiceClient(dial("cdh.sock"))
	for range 3 {
		r, err := resources.GetResource(t.Context(), &datahub.GetResourceRequest{ResourcePath: "kbs:///" + world.SecretResource})
		if err != nil || string(r.Resource) != stage.greeting {
			t.Fatalf("%q, %v", r.GetResource(), err)
		}
	}
	token, err := aa.GetToken(t.Context(), &attestation.GetTokenRequest{TokenType: "kbs"})
	if err != nil {
		t.Fatal(err)
	}
	var parts struct {
		Token string `json:"token"`
		Key   string `json:"tee_keypair"`
	}
	if err := json.Unmarshal(token.Token, &parts); err != nil || parts.Token == "" || parts.Key != "" {
		t.Errorf("no token, or its key with it: %v", err)
	}
	tee, err := aa.GetTeeType(t.Context(), &attestation.GetTeeTypeRequest{})
	if err != nil || tee.Tee != "snp" {
		t.Errorf("%v, %v", tee, err)
	}
	attestations := 0
	for _, e := range entries(t)[before:] {
		if e.Kind == "attest" {
			attestations++
		}
	}
	if attestations != 2 {
		t.Errorf("%d attestations for three resources and a token", attestations)
	}
}
