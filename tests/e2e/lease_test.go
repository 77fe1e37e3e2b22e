package e2e

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	kata "github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/tests/internal/world"
)

// An administrator takes a secret from one guest while its container runs. The
// guest learns of it when it asks again, and stops the container, as its owner
// wrote. The same secret goes on in another guest.
func TestARevokedLeaseStopsItsContainer(t *testing.T) {
	text, jwk := seal(t)
	if _, err := stage.Broker.Ctl(t.Context(), "create", "resource", world.SealerResource, "--from-file", jwk, "--overwrite"); err != nil {
		t.Fatal(err)
	}
	command := []string{"/bin/sh", "-c", `echo "it has: $WORD"; exec busybox sleep 1000`}
	pod := world.Pod{Image: stage.ref, Command: command, Env: []string{"WORD=" + text}, DataHub: "[vouchsafe]\nlease_interval = 5\non_lease_end = 'stop'"}
	guests := map[string]*world.Guest{}
	for _, name := range []string{"stays", "loses"} {
		g, err := stage.Launch(t.Context(), "lease-"+name, stage.vendor, world.CommandLine, pod)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := g.Stop(); err != nil {
				t.Error(err)
			}
		})
		if err := g.Kata().Pod(t.Context()); err != nil {
			t.Fatal(err)
		}
		config, err := stage.ImageConfig(t.Context(), stage.ref)
		if err != nil {
			t.Fatal(err)
		}
		config.Entrypoint, config.Cmd, config.Env = command, nil, append(config.Env, pod.Env...)
		if err := g.Kata().Container(t.Context(), "app", stage.ref, config); err != nil {
			t.Fatal(err)
		}
		if _, err := g.Kata().Output(t.Context(), "app", "it has: "+stage.greeting); err != nil {
			t.Fatal(err)
		}
		guests[name] = g
	}
	if out, err := stage.Broker.Ctl(t.Context(), "revoke", "lease/"+youngestLease(t), "--reason", "a test"); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	resp, err := guests["loses"].Kata().WaitProcess(t.Context(), &kata.WaitProcessRequest{ContainerId: "app", ExecId: "app"})
	if err != nil || resp.Status != 137 {
		t.Errorf("the container ended with %v, %v", resp, err)
	}
	if _, err := guests["stays"].Kata().SignalProcess(t.Context(), &kata.SignalProcessRequest{ContainerId: "app", Signal: 0}); err != nil {
		t.Errorf("the other guest's container: %v", err)
	}
}

// youngestLease is the id of the last lease on the stage's secret.
func youngestLease(t *testing.T) string {
	t.Helper()
	out, err := stage.Broker.Ctl(t.Context(), "get", "leases", "--resource", world.SecretResource, "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	var page api.LeasePage
	if err := json.Unmarshal([]byte(out), &page); err != nil || len(page.Items) < 2 {
		t.Fatalf("%s: %v", out, err)
	}
	last := slices.MaxFunc(page.Items, func(a, b api.Lease) int { return a.Since.Compare(b.Since) })
	return strings.TrimSpace(last.ID)
}
