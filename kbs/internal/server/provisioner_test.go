package server_test

import (
	"errors"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/measure/initdata"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
)

// forPlugin is a policy that allows a plugin to every good guest.
func forPlugin(name string) string {
	return `package policy

import rego.v1

default allow := false

allow if {
	data.plugin == "` + name + `"
	input.submods.cpu0["ear.status"] == "affirming"
}
`
}

// asFault is the refusal that a client was told.
func asFault(t *testing.T, err error) *fault.Fault {
	t.Helper()
	f, ok := errors.AsType[*fault.Fault](err)
	if !ok {
		t.Fatalf("%v is no refusal", err)
	}
	return f
}

// boundTo is a client of a good guest that was launched with this init-data.
func (s *stage) boundTo(text string) *client.Client {
	s.t.Helper()
	doc, err := initdata.Parse([]byte(text))
	if err != nil {
		s.t.Fatal(err)
	}
	sim := guestOf(s.t, "lab", snp.Launch{Image: []byte("agent 1"), CommandLine: "console=hvc0", InitDataDigest: doc.Digest()})
	c, err := client.New(client.Config{
		URL: s.guestURL, RootCAs: s.roots, Attester: sim, Now: s.clock.now, InitData: &api.InitData{Format: "toml", Body: text},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(c.Close)
	return c
}

func machineInitData(resource string) string {
	return "version = \"0.1.0\"\nalgorithm = \"sha256\"\n\n[data]\n\"trustee.kbs.url\" = \"https://kbs\"\n\"trustee.kbs.resource\" = \"" + resource + "\"\n"
}

// A disk's key for each machine, which no other machine gets.
func TestProvisioner(t *testing.T) {
	s := newStage(t)
	s.restartWith(func(c *config.Config) { c.Plugins = []config.Plugin{{Name: config.PluginProvisioner, KeyLength: 40}} })
	s.know()
	s.acceptLab()
	s.putJSON(api.PathPolicies+"/resource/resource-policy", api.Policy{Version: -1, Rego: forPlugin("provisioner")})
	admin := "Authorization: Bearer " + s.adminToken
	at := s.guestURL + api.PathPrefix + "/provisioner/"
	provision := func(body string) answer { return s.send(http.MethodPost, at+"provision", []byte(body), admin) }

	const a, b = "default/41206b97-30ae-5560-820e-cd4df1c0e1ef/root", "default/7ce93b08-746d-5aca-a8db-1013e4c8afdf/root"
	for range 2 { // twice is once
		if got := provision(`{"vm_name":"a","namespace":"ns"}`); got.status != http.StatusOK ||
			string(got.body) != `{"uuid":"41206b97-30ae-5560-820e-cd4df1c0e1ef","resource_path":"`+a+`"}` {
			t.Fatalf("%d %s", got.status, got.body)
		}
	}
	if got := provision(`{"vm_name":"db-1"}`); got.status != http.StatusOK || !strings.Contains(string(got.body), b) {
		t.Fatalf("%d %s", got.status, got.body)
	}

	first, second := s.boundTo(machineInitData("kbs+provisioner:///"+a)), s.boundTo(machineInitData("kbs+provisioner:///"+b))
	form := regexp.MustCompile("^version = \"0\\.1\\.0\"\n\n\\[data\\]\n\"io\\.cryptsetup\\.key\\.text\\.root\" = \"[A-Za-z0-9]{40}\"\n$")
	has := func(c *client.Client, path string) string {
		t.Helper()
		got, err := c.Resource(t.Context(), "kbs+provisioner:///"+path)
		if err != nil || !form.Match(got.Reveal()) {
			t.Fatalf("%v, %d bytes", err, got.Len())
		}
		return string(got.Reveal())
	}
	key := has(first, a)
	if key == has(second, b) || key != has(first, a) {
		t.Error("two machines have one key, or one has two")
	}
	refused := func(c *client.Client, path string, want fault.Code, cause string) {
		t.Helper()
		_, err := c.Resource(t.Context(), "kbs+provisioner:///"+path)
		f := asFault(t, err)
		if f.Code != want {
			t.Errorf("%s: %v, want %s", path, err, want)
		}
		if x := s.explain(string(f.Ticket)); !strings.Contains(x.Cause, cause) || x.Object != "provisioner/"+path {
			t.Errorf("%s: %+v", path, x)
		}
	}
	const absent = "default/00000000-0000-5000-8000-000000000000/root"
	refused(first, b, fault.PolicyDenied, "binds the guest to")
	refused(first, absent, fault.PolicyDenied, "binds the guest to") // and so not whether it exists
	refused(s.client(guest(t, "lab", "agent 1")), a, fault.PolicyDenied, "trustee.kbs.resource is absent")
	refused(s.boundTo(machineInitData("kbs:///"+a)), a, fault.PolicyDenied, "binds the guest to")
	refused(s.boundTo(machineInitData("kbs+provisioner:///"+absent)), absent, fault.NotFound, "")

	for what, c := range map[string]struct {
		method, path, body, who string
		status                  int
	}{
		"no JSON":            {http.MethodPost, "provision", "vm", admin, 400},
		"no name":            {http.MethodPost, "provision", `{}`, admin, 400},
		"a path as a name":   {http.MethodPost, "provision", `{"vm_name":"b/c","namespace":"a"}`, admin, 400},
		"a path as a space":  {http.MethodPost, "provision", `{"vm_name":"c","namespace":"a/b"}`, admin, 400},
		"a long name":        {http.MethodPost, "provision", `{"vm_name":"` + strings.Repeat("a", 254) + `"}`, admin, 400},
		"nobody":             {http.MethodPost, "provision", `{"vm_name":"x"}`, "X: y", 401},
		"nobody, reading":    {http.MethodGet, a, "", "X: y", 401},
		"an administrator":   {http.MethodGet, a, "", admin, 401},
		"another method":     {http.MethodPut, "provision", `{"vm_name":"x"}`, admin, 405},
		"writing a key":      {http.MethodPost, a, "x", admin, 405},
		"another disk":       {http.MethodGet, strings.Replace(a, "root", "data", 1), "", admin, 404},
		"no UUID":            {http.MethodDelete, "provision/x", "", admin, 404},
		"UUID of other make": {http.MethodDelete, "provision/41206b97-30ae-4560-820e-cd4df1c0e1ef", "", admin, 404},
	} {
		if got := s.send(c.method, at+c.path, []byte(c.body), c.who); got.status != c.status {
			t.Errorf("%s: %d %s, want %d", what, got.status, got.body, c.status)
		}
	}

	for range 2 {
		if got := s.send(http.MethodDelete, at+"provision/41206b97-30ae-5560-820e-cd4df1c0e1ef", nil, admin); got.status != http.StatusOK || string(got.body) != `{"status":"deleted"}` {
			t.Errorf("%d %s", got.status, got.body)
		}
	}
	refused(first, a, fault.NotFound, "")
	if got := provision(`{"vm_name":"a","namespace":"ns"}`); got.status != http.StatusOK || has(first, a) == key {
		t.Errorf("a machine that came again has its old key: %d", got.status)
	}
	s.logged("provisioner/", "plugin.call change provisioner/provision", "release allow provisioner/"+a, "release deny provisioner/"+b,
		"plugin.call change provisioner/provision/41206b97-30ae-5560-820e-cd4df1c0e1ef")
	for _, e := range s.entries() {
		if e.Kind == api.AuditPluginCall && e.Object == "provisioner/provision" && e.Decision == "change" && e.Details["vm_name"] == "a" &&
			e.Details["namespace"] == "ns" && e.Details["uuid"] == "41206b97-30ae-5560-820e-cd4df1c0e1ef" && e.Details["method"] == "POST" {
			return
		}
	}
	t.Error("the log does not name the machine")
}

// Keys of machines are a tenant's own, and count as its resources.
func TestProvisionerOfTenants(t *testing.T) {
	s := newStage(t)
	s.restartWith(func(c *config.Config) { c.Plugins = []config.Plugin{{Name: config.PluginProvisioner}} })
	s.know()
	s.acceptLab()
	u := s.in("a")
	s.putJSON(api.PathTenants+"/a", api.Tenant{Version: 1, Quotas: api.TenantQuotas{Resources: 2}}) // of which one is there
	const path = "default/7ce93b08-746d-5aca-a8db-1013e4c8afdf/root"
	values := map[string]bool{}
	for _, x := range []*stage{s, u} {
		x.putJSON(api.PathPolicies+"/resource/resource-policy", api.Policy{Version: -1, Rego: forPlugin("provisioner")})
		if got := x.send(http.MethodPost, x.guestURL+api.PathPrefix+"/provisioner/provision", []byte(`{"vm_name":"db-1"}`), "Authorization: Bearer "+x.adminToken); got.status != http.StatusOK {
			t.Fatalf("%d %s", got.status, got.body)
		}
		got, err := x.boundTo(machineInitData("kbs+provisioner:///"+path)).Resource(t.Context(), "kbs+provisioner:///"+path)
		if err != nil {
			t.Fatal(err)
		}
		values[string(got.Reveal())] = true
	}
	if len(values) != 2 {
		t.Error("two tenants have one key")
	}
	admin := "Authorization: Bearer " + u.adminToken
	at := u.guestURL + api.PathPrefix + "/provisioner/provision"
	if got := u.send(http.MethodPost, at, []byte(`{"vm_name":"db-2"}`), admin); !strings.Contains(string(got.body), string(fault.QuotaExceeded)) {
		t.Errorf("beyond the quota: %d %s", got.status, got.body)
	}
	if got := u.send(http.MethodDelete, at+"/7ce93b08-746d-5aca-a8db-1013e4c8afdf", nil, admin); got.status != http.StatusOK {
		t.Errorf("%d %s", got.status, got.body)
	}
	if got := u.send(http.MethodPost, at, []byte(`{"vm_name":"db-2"}`), admin); got.status != http.StatusOK {
		t.Errorf("after one was deleted: %d %s", got.status, got.body)
	}
}
