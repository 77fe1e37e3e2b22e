package genpolicy

import (
	"slices"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

// settings stand beside a pod.
const settings = `---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: ns1}
data: {LEVEL: info, colour: blue, 1st: "1", note: "a $(LEVEL) b"}
binaryData: {RAW: AAAA}
---
apiVersion: v1
kind: Secret
metadata: {name: login}
data: {user: YWRhbQ==, password: aHVudGVyMg==}
stringData: {password: swordfish, sealed: sealed.a.b.c}
`

func withSettings(spec string) string { return podOf(spec) + settings }

// What config maps hold is bound, what secrets hold is not in the policy; later
// words count, and single variables more than whole maps.
func TestEnvironment(t *testing.T) {
	find := func(spec string) *containerData {
		t.Helper()
		p, err := parsePod([]byte(withSettings(spec)), "")
		if err != nil {
			t.Fatal(err)
		}
		c, err := p.container(t.Context(), p.Containers[0], registries()["registry.example/app:1"], Options{})
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(c.Env)
		slices.Sort(c.EnvAny)
		return c
	}
	image := []string{"MODE=image", "PATH=/bin"}
	for spec, want := range map[string]struct{ env, also, names []string }{
		"    envFrom: [{configMapRef: {name: settings}}]\n":                                         {env: []string{"LEVEL=info", "colour=blue", "note=a $(LEVEL) b"}, also: []string{"1st=1"}},
		"    envFrom: [{prefix: X_, configMapRef: {name: settings, optional: true}}]\n":             {env: []string{"X_1st=1", "X_LEVEL=info", "X_colour=blue", "X_note=a $(LEVEL) b"}},
		"    envFrom: [{secretRef: {name: login}}]\n":                                               {env: []string{"sealed=sealed.a.b.c"}, names: []string{"password", "user"}},
		"    env: [{name: A, valueFrom: {secretKeyRef: {name: login, key: user}}}]\n":               {names: []string{"A"}},
		"    env: [{name: A, valueFrom: {configMapKeyRef: {name: settings, key: LEVEL}}}]\n":        {env: []string{"A=info"}},
		"    env: [{name: A, valueFrom: {configMapKeyRef: {name: elsewhere, key: LEVEL}}}]\n":       {names: []string{"A"}},
		"    env: [{name: A, valueFrom: {secretKeyRef: {name: login, key: no, optional: true}}}]\n": {},
		"    envFrom: [{configMapRef: {name: settings}}]\n    env: [{name: LEVEL, value: \"$(LEVEL)2\"}]\n": {
			env: []string{"LEVEL=info2", "colour=blue", "note=a $(LEVEL) b"}, also: []string{"1st=1"}},
		"    envFrom: [{configMapRef: {name: settings}}, {prefix: \"\", secretRef: {name: login}}]\n    env: [{name: A, value: $(user)}]\n": {
			env: []string{"LEVEL=info", "colour=blue", "note=a $(LEVEL) b", "sealed=sealed.a.b.c"}, also: []string{"1st=1"}, names: []string{"A", "password", "user"}},
	} {
		c := find(spec)
		env := slices.Sorted(slices.Values(append(slices.Clone(image), want.env...)))
		if !slices.Equal(c.Env, env) || !slices.Equal(c.EnvAlso, want.also) && len(c.EnvAlso)+len(want.also) > 0 || !slices.Equal(c.EnvAny, want.names) && len(c.EnvAny)+len(want.names) > 0 {
			t.Errorf("%q:\nmust be %q\nwant    %q\nmay be %q, named %q", spec, c.Env, env, c.EnvAlso, c.EnvAny)
		}
	}
	text := generate(t, withSettings("    envFrom: [{secretRef: {name: login}}]\n"), Options{})
	for _, secret := range []string{"adam", "swordfish", "hunter2", "YWRhbQ"} {
		if strings.Contains(text, secret) {
			t.Errorf("a secret is in the policy: %s", secret)
		}
	}
}

// A pod whose variables come from a config map runs with these values, and with no
// others.
func TestEnvironmentIsBound(t *testing.T) {
	const pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: pod1, namespace: ns1}\nspec:\n  automountServiceAccountToken: false\n  containers:\n" +
		"  - {name: side, image: registry.example/side:1, envFrom: [{configMapRef: {name: settings}}, {prefix: DB_, secretRef: {name: login}}]}\n" + settings
	e := engine(t, generate(t, pod, Options{}))
	with := func(variables ...string) *agent.CreateContainerRequest {
		m := sideRequest()
		m.OCI.Process.Env = append(m.OCI.Process.Env, variables...)
		return m
	}
	all := []string{"LEVEL=info", "colour=blue", "note=a $(LEVEL) b", "DB_user=adam", "DB_password=swordfish", "DB_sealed=sealed.a.b.c"}
	for name, m := range map[string]*agent.CreateContainerRequest{
		"another value":      with(append(slices.Clone(all[1:]), "LEVEL=debug")...),
		"one left out":       with(all[1:]...),
		"one more":           with(append(slices.Clone(all), "LD_PRELOAD=/x")...),
		"without its prefix": with(append(slices.Clone(all), "user=adam")...),
		"another sealed one": with(append(slices.Clone(all[:5]), "DB_sealed=sealed.x.y.z")...),
	} {
		if judge(t, e, m) == nil {
			t.Errorf("%s was allowed", name)
		}
	}
	if err := judge(t, e, with(all...)); err != nil {
		t.Error(why(err))
	}
}

// Without service links the variables of services are no variables of the pod; those
// of Kubernetes' own interface are there all the same.
func TestServiceLinks(t *testing.T) {
	kubernetes := []string{"KUBERNETES_SERVICE_HOST=10.96.0.1", "KUBERNETES_SERVICE_PORT=443", "KUBERNETES_SERVICE_PORT_HTTPS=443", "KUBERNETES_PORT=tcp://10.96.0.1:443",
		"KUBERNETES_PORT_443_TCP=tcp://10.96.0.1:443", "KUBERNETES_PORT_443_TCP_ADDR=10.96.0.1", "KUBERNETES_PORT_443_TCP_PORT=443", "KUBERNETES_PORT_443_TCP_PROTO=tcp"}
	service := []string{"WEB_SERVICE_HOST=10.96.0.7", "WEB_PORT_80_TCP=tcp://10.96.0.7:80", "KUBERNETES_DASHBOARD_SERVICE_HOST=10.96.0.9", "WEB_SERVICE_PORT_HTTP=80"}
	for word, links := range map[string]bool{"": true, "  enableServiceLinks: true\n": true, "  enableServiceLinks: false\n": false} {
		pod := "kind: Pod\nmetadata: {name: pod1}\nspec:\n  automountServiceAccountToken: false\n" + word + "  containers: [{name: side, image: registry.example/side:1}]\n"
		text := generate(t, pod, Options{})
		m := sideRequest()
		m.OCI.Process.Env = append(m.OCI.Process.Env, kubernetes...)
		if err := judge(t, engine(t, text), m); err != nil {
			t.Errorf("%q: Kubernetes' own: %s", word, why(err))
		}
		for _, variable := range service {
			m := sideRequest()
			m.OCI.Process.Env = append(m.OCI.Process.Env, variable)
			if err := judge(t, engine(t, text), m); (err == nil) != links {
				t.Errorf("%q: %s: %s", word, variable, why(err))
			}
		}
	}
}
