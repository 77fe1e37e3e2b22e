package pull_test

import (
	"context"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/image/internal/imagetest"
	"github.com/vouchsafe-cc/vouchsafe/image/pull"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/image/trust"
)

// Wherever the bytes come from, the policy is that of the name the user asked
// for: neither a mirror's name nor a rewritten one opens or closes anything.
func TestPolicyIsThatOfTheNameAskedFor(t *testing.T) {
	w := newWorld(t)
	imagetest.Push(t, w.Server, w.Host+"/mirror/app:v1", nil, layers(t)...)
	conf := "[[registry]]\nprefix='asked.test'\nlocation='" + w.Host + "'\ninsecure=true\n[[registry.mirror]]\nlocation='" + w.Host + "/mirror'\ninsecure=true\n" +
		"[[registry]]\nprefix='blocked.test'\nblocked=true"
	rules, err := registry.ParseRegistries([]byte(conf))
	imagetest.Must(t, err)
	policy := func(name string) string {
		return `{"default":[{"type":"reject"}],"transports":{"docker":{"` + name + `":[{"type":"insecureAcceptAnything"}]}}}`
	}
	w.puller, err = pull.New(pull.Config{
		Store: w.store, Registry: registry.Config{Registries: rules, Clock: w.Clock},
		Policy: func(context.Context) (*trust.Policy, error) { return trust.ParsePolicy([]byte(w.policy)) },
	})
	imagetest.Must(t, err)

	w.policy = policy(w.Host)
	w.refused("asked.test/app:v1", fault.ImageUnsigned)
	w.policy = policy("asked.test")
	img := w.pull("asked.test/app:v1")
	if img.Reference != "asked.test/app:v1" || img.Verdict.Scope != `transports.docker["asked.test"]` {
		t.Errorf("judged as %s by %s", img.Reference, img.Verdict.Scope)
	}
	w.policy = policy("blocked.test")
	w.Forget()
	w.refused("blocked.test/app:v1", fault.InvalidRequest)
	if n := w.Requests(); n != 0 {
		t.Errorf("%d requests for a blocked name", n)
	}
}

// A mirror dies in the middle of a layer, for good. The origin goes on.
func TestMirrorDiesInMidLayer(t *testing.T) {
	w := newWorld(t)
	f := &imagetest.Flaky{Breaks: []int{70_000, 70_000, 70_000, 70_000, 70_000, 70_000}}
	body := w.flaky(w.Host+"/signed/app:v1", f)
	origin := imagetest.Serve(t)
	imagetest.Push(t, origin, origin.Host+"/signed/app:v1", nil, imagetest.GzipLayer(t, imagetest.File("noise", body)))
	rules, err := registry.ParseRegistries([]byte("[[registry]]\nlocation='" + origin.Host + "'\n[[registry.mirror]]\nlocation='" + w.Host + "'"))
	imagetest.Must(t, err)
	w.policy = `{"default":[{"type":"insecureAcceptAnything"}],"transports":{}}`
	w.puller, err = pull.New(pull.Config{
		Store: w.store, Registry: registry.Config{Registries: rules, Clock: w.Clock, InsecureHTTPHosts: []string{w.Host, origin.Host}},
		Policy: func(context.Context) (*trust.Policy, error) { return trust.ParsePolicy([]byte(w.policy)) },
	})
	imagetest.Must(t, err)
	origin.Forget()
	if read(t, w.mount(w.pull(origin.Host+"/signed/app:v1")), "noise") != body {
		t.Error("the file is not as it was pushed")
	}
	if n := origin.Requests("/blobs/"); n != 1 {
		t.Errorf("the origin was asked for %d blobs", n)
	}
}
