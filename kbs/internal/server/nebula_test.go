package server_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/slackhq/nebula/cert"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
)

const nebulaPolicy = `package policy

import rego.v1

default allow := false

allow if {
	data.plugin == "nebula-ca"
	data["resource-path"] == ["credential"]
	input.submods.cpu0["ear.status"] == "affirming"
	startswith(data.query.name, "pod")
}
`

// node is what a guest gets, read by Nebula's library.
type node struct {
	crt, ca cert.Certificate
	print   string // of the authority
}

// credential asks for one, and holds the answer against what every node of the
// network would.
func (s *stage) credential(c *client.Client, query url.Values) (n node, err error) {
	s.t.Helper()
	got, err := c.Resource(s.t.Context(), "kbs+nebula-ca:///credential?"+query.Encode())
	if err != nil {
		return n, err
	}
	if !bytes.HasPrefix(got.Reveal(), []byte(`{"node_crt":[45,45,45,45,45,66,69,71,73,78,32,`)) {
		s.t.Errorf("not the field's form: %.80s", got.Reveal())
	}
	var lists map[string][]int
	if err := json.Unmarshal(got.Reveal(), &lists); err != nil || len(lists) != 3 {
		s.t.Fatalf("%v: %d members", err, len(lists))
	}
	text := func(name string) []byte {
		out := make([]byte, len(lists[name]))
		for i, b := range lists[name] {
			out[i] = byte(b)
		}
		return out
	}
	must := func(err error) {
		s.t.Helper()
		if err != nil {
			s.t.Fatal(err)
		}
	}
	n.crt, _, err = cert.UnmarshalCertificateFromPEM(text("node_crt"))
	must(err)
	n.ca, _, err = cert.UnmarshalCertificateFromPEM(text("ca_crt"))
	must(err)
	key, _, curve, err := cert.UnmarshalPrivateKeyFromPEM(text("node_key"))
	must(err)
	must(n.crt.VerifyPrivateKey(curve, key))
	pool := cert.NewCAPool()
	if err := pool.AddCA(n.ca); !errors.Is(err, cert.ErrExpired) { // by the machine's clock, which the tests do not set
		must(err)
	}
	_, err = pool.VerifyCertificate(s.clock.now(), n.crt)
	must(err)
	n.print, err = n.ca.Fingerprint()
	must(err)
	return n, nil
}

func ask(pairs ...string) url.Values {
	q := url.Values{"name": {"podA"}, "ip": {"10.9.8.7/21"}}
	for i := 0; i < len(pairs); i += 2 {
		q.Set(pairs[i], pairs[i+1])
	}
	return q
}

func nebula(ca *config.NebulaCA) func(*config.Config) {
	return func(c *config.Config) { c.Plugins = []config.Plugin{{Name: config.PluginNebulaCA, CAConfig: ca}} }
}

// Attested guests get certificates of an overlay network, within what the
// policy, the configuration and the authority allow.
func TestNebulaCA(t *testing.T) {
	s := newStage(t)
	s.restartWith(nebula(&config.NebulaCA{Name: "lab net", Duration: "3h", Groups: "ssh,server", IPs: "10.9.0.0/16", Subnets: "192.168.0.0/16"}))
	s.know()
	s.acceptLab()
	c := s.client(guest(t, "lab", "agent 1"))
	if _, err := s.credential(c, ask()); fault.CodeOf(err) != fault.PolicyDenied {
		t.Errorf("without a policy that knows the plugin: %v", err)
	}
	s.putJSON(api.PathPolicies+"/resource/resource-policy", api.Policy{Version: -1, Rego: nebulaPolicy})

	n, err := s.credential(c, ask("groups", "ssh, server", "subnets", "192.168.5.0/24", "duration", "1h", "other", "x"))
	if err != nil {
		t.Fatal(err)
	}
	if n.crt.Name() != "podA" || len(n.crt.Networks()) != 1 || n.crt.Networks()[0].String() != "10.9.8.7/21" || strings.Join(n.crt.Groups(), " ") != "ssh server" ||
		len(n.crt.UnsafeNetworks()) != 1 || n.crt.UnsafeNetworks()[0].String() != "192.168.5.0/24" || n.crt.NotAfter().Sub(n.crt.NotBefore()) != time.Hour ||
		n.crt.IsCA() || n.crt.Version() != cert.Version1 {
		t.Errorf("%s", n.crt)
	}
	if n.ca.Name() != "lab net" || !n.ca.IsCA() || n.ca.NotAfter().Sub(n.ca.NotBefore()) != 3*time.Hour || len(n.ca.Groups()) != 2 || len(n.ca.Networks()) != 1 || len(n.ca.UnsafeNetworks()) != 1 {
		t.Errorf("%s", n.ca)
	}
	again, err := s.credential(c, ask())
	if err != nil || again.print != n.print || bytes.Equal(again.crt.PublicKey(), n.crt.PublicKey()) || !again.crt.NotAfter().Equal(n.ca.NotAfter().Add(-time.Second)) {
		t.Errorf("again: %v, %v", again, err)
	}

	for what, x := range map[string]struct {
		query url.Values
		want  fault.Code
		cause string
	}{
		"a name of another's":      {ask("name", "admin"), fault.PolicyDenied, "denied"},
		"an address outside":       {ask("ip", "10.8.0.1/16"), fault.Forbidden, "ip: 10.8.0.1/16"},
		"a network too large":      {ask("ip", "10.9.8.7/8"), fault.Forbidden, "ip: 10.9.8.7/8"},
		"another group":            {ask("groups", "ssh,root"), fault.Forbidden, `groups: "root"`},
		"another subnet":           {ask("subnets", "172.16.0.0/12"), fault.Forbidden, "subnets: 172.16.0.0/12"},
		"longer than all":          {ask("duration", "4h"), fault.Forbidden, "duration: 4h0m0s is longer"},
		"longer than what is left": {ask("duration", "3h"), fault.Forbidden, "the authority ends at"},
		"no address":               {ask("ip", ""), fault.InvalidRequest, "ip: "},
		"an address alone":         {ask("ip", "10.9.8.7"), fault.InvalidRequest, "ip: "},
		"version 6":                {ask("ip", "fd00::1/64"), fault.InvalidRequest, "ip: "},
		"everything":               {ask("ip", "10.9.8.7/0"), fault.InvalidRequest, "ip: "},
		"a group of hosts":         {ask("ip", "224.0.0.1/8"), fault.InvalidRequest, "ip: "},
		"a long name":              {ask("name", "pod"+strings.Repeat("a", 251)), fault.InvalidRequest, "name: "},
		"a name in two lines":      {ask("name", "pod\nroot"), fault.InvalidRequest, "name: "},
		"no time":                  {ask("duration", "0s"), fault.InvalidRequest, "duration: "},
		"no duration":              {ask("duration", "long"), fault.InvalidRequest, "duration: "},
		"too many groups":          {ask("groups", strings.Repeat("g,", 33)), fault.InvalidRequest, "groups: more than 32"},
		"no network":               {ask("subnets", "192.168.0.0"), fault.InvalidRequest, "subnets: "},
	} {
		_, err := s.credential(c, x.query)
		f := asFault(t, err)
		if f.Code != x.want {
			t.Errorf("%s: %v, want %s", what, err, x.want)
		}
		if e := s.explain(string(f.Ticket)); !strings.Contains(e.Cause, x.cause) || e.Object != "nebula-ca/credential" {
			t.Errorf("%s: %+v", what, e)
		}
	}
	if _, err := s.credential(s.client(guest(t, "lab", "agent 2")), ask()); fault.CodeOf(err) != fault.PolicyDenied {
		t.Errorf("a guest that nobody knows: %v", err)
	}
	at, admin := s.guestURL+api.PathPrefix+"/nebula-ca/", "Authorization: Bearer "+s.adminToken
	for what, x := range map[string]struct {
		method, path, who string
		status            int
	}{
		"nobody":           {http.MethodGet, "credential?name=podA&ip=10.9.8.7/21", "X: y", 401},
		"an administrator": {http.MethodGet, "credential?name=podA&ip=10.9.8.7/21", admin, 401},
		"another method":   {http.MethodPost, "credential", admin, 405},
		"another service":  {http.MethodGet, "ca", admin, 404},
		"more":             {http.MethodGet, "credential/x", admin, 404},
		"nothing":          {http.MethodGet, "", admin, 404},
	} {
		if got := s.send(x.method, at+x.path, nil, x.who); got.status != x.status {
			t.Errorf("%s: %d %s, want %d", what, got.status, got.body, x.status)
		}
	}

	s.logged("nebula-ca/", "nebula_ca.create change nebula-ca/"+n.print, "release allow nebula-ca/credential", "release deny nebula-ca/credential")
	mark, err := n.crt.Fingerprint()
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, e := range s.entries() {
		d := e.Details
		found = found || d["fingerprint"] == mark && d["name"] == "podA" && d["ip"] == "10.9.8.7/21" && d["groups"] == "ssh,server" &&
			d["subnets"] == "192.168.5.0/24" && d["expires"] == n.crt.NotAfter().UTC().Format(time.RFC3339) && strings.HasPrefix(d["policy"], "resource/")
	}
	if !found {
		t.Errorf("the log does not say what was given: %+v", s.entries())
	}
	s.nebulaRestarts(n)
}

// nebulaRestarts sees the same authority after a restart, a narrower
// configuration beside it, no trace of its key in any file, and another
// authority when it has ended.
func (s *stage) nebulaRestarts(n node) {
	s.t.Helper()
	s.restartWith(nebula(&config.NebulaCA{Duration: "3h", IPs: "10.9.16.0/20"}))
	c := s.client(guest(s.t, "lab", "agent 1"))
	if _, err := s.credential(c, ask()); fault.CodeOf(err) != fault.Forbidden {
		s.t.Errorf("beyond what the configuration allows now: %v", err)
	}
	inside := ask("ip", "10.9.17.1/24")
	if again, err := s.credential(c, inside); err != nil || again.print != n.print {
		s.t.Errorf("after a restart: %v", err)
	}
	inside.Set("groups", "root")
	if _, err := s.credential(c, inside); fault.CodeOf(err) != fault.Forbidden {
		s.t.Errorf("beyond what the authority may sign: %v", err)
	}
	inside.Del("groups")
	err := filepath.WalkDir(s.cfg.StateDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		raw, err := os.ReadFile(path)
		if bytes.Contains(raw, []byte("NEBULA ED25519")) {
			s.t.Errorf("the authority's key is in %s", path)
		}
		return err
	})
	if err != nil {
		s.t.Error(err)
	}
	s.clock.stop(n.ca.NotAfter().Add(-2 * time.Second))
	c = s.client(guest(s.t, "lab", "agent 1"))
	if again, err := s.credential(c, inside); err != nil || again.print != n.print || again.crt.NotAfter().Sub(again.crt.NotBefore()) != time.Second {
		s.t.Errorf("shortly before its end: %v", err)
	}
	s.clock.stop(n.ca.NotAfter().Add(-time.Second))
	if next, err := s.credential(c, inside); err != nil || next.print == n.print {
		s.t.Errorf("when nothing can be signed any more: %v", err)
	}
}

// An authority is its tenant's own.
func TestNebulaOfTenants(t *testing.T) {
	s := newStage(t)
	s.restartWith(nebula(nil))
	s.know()
	s.acceptLab()
	u := s.in("a")
	prints := map[string]bool{}
	for _, x := range []*stage{s, u} {
		x.putJSON(api.PathPolicies+"/resource/resource-policy", api.Policy{Version: -1, Rego: nebulaPolicy})
		n, err := x.credential(x.client(guest(t, "lab", "agent 1")), ask())
		if err != nil {
			t.Fatal(err)
		}
		prints[n.print] = true
	}
	if len(prints) != 2 {
		t.Error("two tenants share an authority")
	}
}
