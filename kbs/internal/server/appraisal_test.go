package server_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/admin"
	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
)

// appraisalOf asks what evidence of a guest over some bytes is worth.
func appraisalOf(t *testing.T, sim *snp.Simulator, bound, claimed string) []byte {
	t.Helper()
	data, err := measure.NewReportData([]byte(bound))
	if err != nil {
		t.Fatal(err)
	}
	ev, err := sim.Evidence(t.Context(), data)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(api.AppraisalRequest{Evidence: []api.AppraisalEvidence{{
		Platform: "snp", Data: ev.Data, ReportData: []byte(claimed), InitData: initDataText,
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func (s *stage) last() api.AuditEntry {
	s.t.Helper()
	all := s.entries()
	return all[len(all)-1]
}

// What an administrator is told is what a guest with that evidence would get, and
// nothing can be had for it.
func TestAppraisals(t *testing.T) {
	s := newStage(t)
	sim := guest(t, "lab", "agent 1")
	ask := func(body []byte) (out api.Appraisal) {
		t.Helper()
		if err := json.Unmarshal(s.must(http.MethodPost, api.PathAppraisals, body), &out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	first := ask(appraisalOf(t, sim, "bound", "bound"))
	if a := first.Attesters[0]; a.Status == "affirming" || a.Name != "cpu0" || a.Platform != "snp" || !a.Simulated || a.Root != "lab" || len(a.Findings) == 0 || a.Rule == "" {
		t.Errorf("%+v", a)
	}
	s.know()
	s.acceptLab()
	second := ask(appraisalOf(t, sim, "bound", "bound"))
	if a := second.Attesters[0]; a.Status != "affirming" || len(a.Findings) != 0 || !strings.HasPrefix(a.Policy, "attestation/default_cpu@") {
		t.Errorf("%+v", a)
	}
	if e := s.last(); e.Kind != api.AuditAppraise || e.Decision != "allow" || e.Subject != "admin:bootstrap" || e.Details["cpu0_status"] != "affirming" {
		t.Errorf("%+v", e)
	}
	// As the guest itself learns it.
	var claims struct {
		Submods map[string]struct {
			Status   string                     `json:"ear.status"`
			Evidence map[string]json.RawMessage `json:"ear.veraison.annotated-evidence"`
		} `json:"submods"`
	}
	if err := json.Unmarshal(second.Claims, &claims); err != nil || claims.Submods["cpu0"].Status != "affirming" || !strings.Contains(string(claims.Submods["cpu0"].Evidence["snp"]), s.known) {
		t.Errorf("%s, %v", second.Claims, err)
	}
	if a := s.send(http.MethodGet, s.guestURL+api.PathResource+"/"+resourcePath, nil, "Authorization: Bearer "+string(second.Claims)); a.status != http.StatusUnauthorized {
		t.Errorf("the answer opened something: %d", a.status)
	}

	refused := func(what string, body []byte, code string) {
		t.Helper()
		a := s.admin(http.MethodPost, api.PathAppraisals, body)
		var p struct {
			Code string `json:"code"`
		}
		if err := json.Unmarshal(a.body, &p); err != nil || a.status < 400 || p.Code != code {
			t.Errorf("%s: %d %s", what, a.status, a.body)
		}
	}
	refused("bound to something else", appraisalOf(t, sim, "bound", "other"), "binding_mismatch")
	if e := s.last(); e.Kind != api.AuditAppraise || e.Decision != "deny" || e.Code != "binding_mismatch" {
		t.Errorf("%+v", e)
	}
	refused("a strange root", appraisalOf(t, guest(t, "stranger", "agent 1"), "bound", "bound"), "root_untrusted")
	refused("bound to nothing", appraisalOf(t, sim, "bound", ""), "invalid_request")
	refused("no evidence", []byte(`{"evidence":[]}`), "invalid_request")
	refused("too much", fmt.Appendf(nil, `{"evidence":[%s{"platform":"snp"}]}`, strings.Repeat(`{"platform":"snp"},`, 16)), "invalid_request")
	refused("an unknown member", []byte(`{"evidence":[{"platform":"snp"}],"token":true}`), "invalid_request")
	refused("another platform", []byte(`{"evidence":[{"platform":"csv","data":{},"report_data":"AA=="}]}`), "platform_not_enabled")

	// What is revoked is revoked here too.
	s.cutOff(fmt.Sprintf(`{"claim":"snp.measurement","value":%q,"reason":"incident 7"}`, s.known))
	refused("revoked", appraisalOf(t, sim, "bound", "bound"), "guest_revoked")
}

// An image policy is shown to operators, and nothing else that lies at the
// broker is, whatever it is called.
func TestImagePolicies(t *testing.T) {
	s := newStage(t)
	const policy = `{"default":[{"type":"reject"}],"transports":{"docker":{"":[{"type":"sigstoreSigned","keyPath":"kbs:///a/b/c"}]}}}`
	s.must(http.MethodPut, api.PathResources+"/default/security-policy/test", []byte(policy))
	if got := s.must(http.MethodGet, api.PathImagePolicies+"/default/security-policy/test", nil); string(got) != policy {
		t.Errorf("%s", got)
	}
	if e := s.last(); e.Kind != api.AuditImagePolicyRead || e.Decision != "allow" || e.Object != "resource/default/security-policy/test" || e.Subject != "admin:bootstrap" {
		t.Errorf("%+v", e)
	}
	s.must(http.MethodPut, api.PathResources+"/default/security-policy/secret", []byte("hunter2 "+s.value))
	for path, status := range map[string]int{"/default/security-policy/secret": http.StatusBadRequest, "/" + resourcePath: http.StatusBadRequest, "/default/security-policy/none": http.StatusNotFound} {
		a := s.admin(http.MethodGet, api.PathImagePolicies+path, nil)
		if a.status != status || strings.Contains(string(a.body), "hunter2") {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
		s.discreet(a.body)
	}
	denied := 0
	for _, e := range s.entries() {
		if e.Kind == api.AuditImagePolicyRead && e.Decision == "deny" && e.Code == "invalid_request" {
			denied++
		}
	}
	if denied != 2 {
		t.Errorf("%d refusals are on record", denied)
	}
	for path, method := range map[string]string{api.PathImagePolicies + "/default/security-policy/test": http.MethodGet, api.PathAppraisals: http.MethodPost} {
		if a := s.send(method, s.adminURL+path, []byte(`{"evidence":[]}`), s.role(admin.Viewer)); a.status != http.StatusForbidden {
			t.Errorf("a viewer: %d %s", a.status, a.body)
		}
	}
}
