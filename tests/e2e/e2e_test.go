package e2e

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/tests/internal/debimage"
	"github.com/vouchsafe-cc/vouchsafe/tests/internal/world"
)

// launch starts a good guest with its pod's pause container.
func launch(t *testing.T, label string, command ...string) *world.Guest {
	t.Helper()
	g, err := stage.Launch(t.Context(), label, stage.vendor, world.CommandLine, world.Pod{Image: stage.ref, Command: command})
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
	return g
}

// serve runs the image in the guest until its service has its page.
func serve(t *testing.T, g *world.Guest, id string) {
	t.Helper()
	config, err := stage.ImageConfig(t.Context(), stage.ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Kata().Container(t.Context(), id, stage.ref, config); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Kata().Output(t.Context(), id, "page ready"); err != nil {
		t.Fatalf("%v; standard error: %s", err, g.Kata().Errors(t.Context(), id))
	}
}

func entries(t *testing.T) []api.AuditEntry {
	t.Helper()
	list, err := stage.Broker.AuditEntries(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func eventually(ctx context.Context, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}

func TestServiceAnswersWithTheReleasedSecret(t *testing.T) {
	before := len(entries(t))
	g := launch(t, "good")
	serve(t, g, "app")

	var page string
	if err := eventually(t.Context(), func() (err error) {
		page, err = g.Net.Get(t.Context(), "http://127.0.0.1:"+strconv.Itoa(debimage.Port)+"/")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(page, stage.greeting) {
		t.Fatalf("the page lacks the secret: %q", page)
	}

	// One attestation served the policy, the signer's key, the layers' key and
	// the page; and each release stands in the log.
	attested, released := 0, map[string]int{}
	for _, e := range entries(t)[before:] {
		switch {
		case e.Kind == "attest" && e.Decision == "allow":
			attested++
		case e.Kind == "release" && e.Decision == "allow":
			released[strings.TrimPrefix(e.Object, "resource/")]++
		case e.Decision == "deny":
			t.Errorf("refused on the way: %+v", e)
		}
	}
	if attested != 1 {
		t.Errorf("the guest attested %d times", attested)
	}
	for _, path := range []string{world.KeyResource, world.PolicyResource, world.SignerResource, world.SecretResource} {
		if released[path] == 0 {
			t.Errorf("no entry for the release of %s", path)
		}
	}
}

// What the container sees must be what the packages held: the lower layers'
// files less what whiteouts took away, with modes, links and capabilities.
func TestTheTreeIsWhatWasPacked(t *testing.T) {
	config, err := stage.ImageConfig(t.Context(), stage.ref)
	if err != nil {
		t.Fatal(err)
	}
	config.Entrypoint = []string{"/bin/sh", "-c", `
		busybox stat -c '%n %a %u %h' /usr/bin/chfn /usr/bin/perl /bin/gunzip
		busybox ls /etc/nginx/sites-available /usr/share/man | busybox wc -l
		test -e /etc/nginx/sites-available/default && echo "whiteout failed"
		ls() { busybox ls "$@"; }; ls /usr/share/man
		echo end`}
	g := launch(t, "tree", config.Entrypoint...)
	if err := g.Kata().Container(t.Context(), "tree", stage.ref, config); err != nil {
		t.Fatal(err)
	}
	out, err := g.Kata().Output(t.Context(), "tree", "end\n")
	if err != nil {
		t.Fatalf("%v: %s", err, g.Kata().Errors(t.Context(), "tree"))
	}
	for _, want := range []string{"/usr/bin/chfn 4755 0 ", "/usr/bin/perl 755 0 2", "/bin/gunzip 755 0 2"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if strings.Contains(out, "whiteout failed") || strings.Contains(out, "man1") {
		t.Errorf("a whiteout was not applied:\n%s", out)
	}
	// A version 2 file capability is 20 bytes; its permitted set has only
	// CAP_NET_BIND_SERVICE, bit 10.
	var capability [20]byte
	n, err := unix.Lgetxattr(g.Rootfs("tree")+"/usr/sbin/nginx", "security.capability", capability[:])
	if err != nil || n != len(capability) || capability[5] != 1<<2 {
		t.Errorf("nginx's file capability is %x, %v", capability[:max(n, 0)], err)
	}
}

func TestAnotherMeasurementIsRefused(t *testing.T) {
	if _, err := stage.OtherMeasurement(t.Context(), stage.vendor, stage.ref, stage.measurement); err != nil {
		t.Fatal(err)
	}
}

func TestAnImageSignedByAnotherKeyIsRefused(t *testing.T) {
	if _, err := stage.OtherSigner(t.Context(), stage.vendor, stage.ref); err != nil {
		t.Fatal(err)
	}
}

func TestOneFlippedBitIsRefused(t *testing.T) {
	if _, err := stage.FlippedBit(t.Context(), stage.vendor, stage.ref); err != nil {
		t.Fatal(err)
	}
	// With the bit put right the same image runs: it was the bit.
	g := launch(t, "mended")
	serve(t, g, "app")
}

func TestReplayedEvidenceIsRefused(t *testing.T) {
	if _, _, err := stage.Replay(t.Context(), stage.vendor); err != nil {
		t.Fatal(err)
	}
}

func TestARootThatNobodyNamedIsRefused(t *testing.T) {
	if _, err := stage.UnknownRoot(t.Context(), stage.stranger, stage.ref); err != nil {
		t.Fatal(err)
	}
}

// A host that asks for more than the pod reads a ticket; the owner reads why.
func TestAHostThatAsksForMoreIsRefused(t *testing.T) {
	g := launch(t, "more")
	serve(t, g, "app")
	shell, second, err := stage.OtherRequests(t.Context(), g, "app", stage.ref)
	if err != nil {
		t.Fatal(err)
	}
	f, err := second.Finding("request.CreateContainerRequest")
	if err != nil || !strings.Contains(f.Seen, "the last first: app once at a time;") {
		t.Errorf("the owner reads %+v, %v", f, err)
	}
	if shell.Explanation.Rule != "data.agent_policy.ExecProcessRequest" {
		t.Errorf("the owner reads of the rule %q", shell.Explanation.Rule)
	}
}

// No output of any guest, at debug level, holds what the host must not know.
// The tests above ran good guests and refused ones.
func TestNothingLeaksToTheHost(t *testing.T) {
	g := launch(t, "leaks")
	serve(t, g, "app")
	refused, err := stage.OtherMeasurement(t.Context(), stage.vendor, stage.ref, stage.measurement)
	if err != nil {
		t.Fatal(err)
	}
	secrets := map[string][]byte{
		"the page's secret":       []byte(stage.greeting),
		"the key encryption key":  stage.Key,
		"the key, in hex":         []byte(hex.EncodeToString(stage.Key)),
		"the key, in base64":      []byte(base64.StdEncoding.EncodeToString(stage.Key)),
		"the key, in base64url":   []byte(base64.RawURLEncoding.EncodeToString(stage.Key)),
		"the reference value":     []byte(stage.measurement),
		"part of the reference":   []byte(stage.measurement[:24]),
		"a token":                 []byte("eyJhbGciOi"),
		"a private key":           []byte("PRIVATE KEY"),
		"a policy's inside":       []byte("query_reference_value"),
		"a layer's private bytes": []byte("symkey"),
	}
	logs, err := filepath.Glob(stage.Path("guest-*", "agent.log"))
	if err != nil || len(logs) < 2 {
		t.Fatalf("found %d agent logs, %v", len(logs), err)
	}
	texts := map[string]string{"the refusal's text": refused.Public}
	for _, log := range append(logs, stage.Broker.Log()) {
		b, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) == 0 {
			t.Errorf("%s is empty: nothing was looked at", log)
		}
		texts[log] = string(b)
	}
	for where, text := range texts {
		for what, bytes := range secrets {
			if strings.Contains(text, string(bytes)) {
				t.Errorf("%s contains %s", where, what)
			}
		}
	}
}

func TestTheAuditLogProvesItself(t *testing.T) {
	r, err := stage.OtherMeasurement(t.Context(), stage.vendor, stage.ref, stage.measurement)
	if err != nil {
		t.Fatal(err)
	}
	entries(t) // the first look leaves an entry itself
	key := filepath.Join(stage.Broker.State, "audit.pub")
	out, err := stage.Broker.Ctl(t.Context(), "audit", "verify", "--log-key", key)
	if err != nil {
		t.Fatal(err)
	}
	list := entries(t)
	if !strings.HasPrefix(out, "verified "+strconv.Itoa(len(list))+" entries,") {
		t.Errorf("verified something else than the %d entries: %s", len(list), out)
	}
	n := 0
	for _, e := range list {
		if e.Ticket == r.Ticket && e.Decision == "deny" {
			n++
		}
	}
	if n != 1 {
		t.Errorf("the refusal has %d entries", n)
	}
}

// A broker that dies loses nothing that it had answered, and a guest that
// already holds a token goes on without attesting again.
func TestABrokerThatDiesLosesNothing(t *testing.T) {
	g := launch(t, "survivor")
	serve(t, g, "app")
	before := entries(t)
	if err := stage.Broker.Crash(t.Context()); err != nil {
		t.Fatal(err)
	}
	after := entries(t)
	if len(after) < len(before) {
		t.Fatalf("%d entries before the crash, %d after", len(before), len(after))
	}
	if _, err := stage.Broker.Ctl(t.Context(), "audit", "verify", "--log-key", filepath.Join(stage.Broker.State, "audit.pub")); err != nil {
		t.Fatal(err)
	}
	page, err := g.Net.Get(t.Context(), "http://127.0.0.1:8006/cdh/resource/"+world.SecretResource)
	if err != nil || page != stage.greeting {
		t.Fatalf("after the crash: %q, %v", page, err)
	}
	for _, e := range entries(t)[len(after):] {
		if e.Kind == "attest" {
			t.Error("the guest attested again")
		}
	}
}

// The workload's API refuses what the policy does not name, and says only a
// code and a ticket.
func TestTheWorkloadGetsOnlyWhatThePolicyNames(t *testing.T) {
	g := launch(t, "least-privilege")
	body, err := g.Net.Get(t.Context(), "http://127.0.0.1:8006/cdh/resource/default/other/secret")
	if err == nil || !strings.Contains(err.Error(), "403") {
		t.Fatalf("%q, %v", body, err)
	}
	if !strings.Contains(body, "policy_denied (ticket ") || len(body) > 64 {
		t.Errorf("the answer says too much or too little: %q", body)
	}
}

// Nothing of a pod is left when it is gone.
func TestAPodLeavesNothingBehind(t *testing.T) {
	g := launch(t, "tidy")
	before, err := g.Mounts()
	if err != nil || len(before) == 0 {
		t.Fatalf("a pod has %d mounts, %v", len(before), err)
	}
	serve(t, g, "app")
	if with, err := g.Mounts(); err != nil || len(with) <= len(before) {
		t.Fatalf("%d mounts, %d with a container: nothing to look for (%v)", len(before), len(with), err)
	}
	if err := g.Kata().Remove(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	after, err := g.Mounts()
	if err != nil || len(after) != len(before) {
		t.Errorf("mounts before the container %q, after it %q (%v)", before, after, err)
	}
	if left, _ := filepath.Glob(filepath.Join(g.Dir, "state", "app*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	if err := g.Kata().EndPod(t.Context()); err != nil {
		t.Fatal(err)
	}
	// With its pod the agent ends, and so does every process of its namespace.
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := g.Ended(ctx); err != nil {
		t.Errorf("the agent ended with %v", err)
	}
	if cgroups, _ := filepath.Glob("/sys/fs/cgroup/*/" + filepath.Base(g.Dir) + "*"); len(cgroups) > 0 {
		t.Errorf("cgroups left behind: %q", cgroups)
	}
}
