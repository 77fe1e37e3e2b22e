package kata

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/policy"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/sandbox"
)

// underPolicy runs a pod by a policy. What is refused is told to told.
func underPolicy(t *testing.T, told func(request, cause string), rules string) podOption {
	t.Helper()
	e, err := policy.New(t.Context(), "package agent_policy\n"+rules, policy.Config{Logger: testLogger()})
	if err != nil {
		t.Fatal(err)
	}
	return func(c *Config) {
		c.UnsafeNoPolicy, c.Policy = false, e
		c.Refuse = func(_ context.Context, request string, err error) error {
			f := fault.New(fault.Internal, err)
			if told != nil {
				told(request, f.Cause().Error())
			}
			return f.With("7QK2-M9TD")
		}
	}
}

// ordinary is what every policy here allows.
const ordinary = `
CreateSandboxRequest := true
StartContainerRequest := true
WaitProcessRequest := true
SignalProcessRequest := true
DestroySandboxRequest := true
`

// The host reads that a request was refused, a code and a ticket; the owner reads
// which rule it was, and why.
func TestDenial(t *testing.T) {
	t.Parallel()
	var causes []string
	p := newSandbox(t, underPolicy(t, func(request, cause string) { causes = append(causes, request+": "+cause) }, ordinary+`
		CreateContainerRequest if { print("the arguments of", input.container_id); input.OCI.Process.Args == ["/bin/sleep", "100"] }
		RemoveContainerRequest := true`))
	p.run("app1", "/bin/sleep", "100")
	_, err := p.client.CreateContainer(t.Context(), p.request("app2", "/bin/sh"))
	wantCode(t, err, codes.PermissionDenied)
	if got := status.Convert(err).Message(); got != "CreateContainerRequest is blocked by policy: policy_denied (ticket 7QK2-M9TD)" {
		t.Error(got)
	}
	_, err = p.client.ExecProcess(t.Context(), &agent.ExecProcessRequest{ContainerId: "app1", ExecId: "x", Process: &agent.Process{Args: []string{"/bin/sh"}, Cwd: "/"}})
	wantCode(t, err, codes.PermissionDenied)
	if got := status.Convert(err).Message(); got != "ExecProcessRequest is blocked by policy: policy_denied (ticket 7QK2-M9TD)" {
		t.Error(got)
	}
	for _, want := range []string{"it printed, the last first: the arguments of app2", "ExecProcessRequest: the policy has no such rule"} {
		if !strings.Contains(strings.Join(causes, "\n"), want) {
			t.Errorf("the owner does not read %q in %q", want, causes)
		}
	}
}

// Without a rule nothing at all is served but the health service: also what is
// not built, and also what would destroy the pod.
func TestEveryMethodIsJudged(t *testing.T) {
	t.Parallel()
	p := newPod(t, underPolicy(t, nil, "nothing := true"))
	methods := agent.File_agent_agent_proto.Services().ByName("AgentService").Methods()
	for i := range methods.Len() {
		m := methods.Get(i)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		if m.Name() == "GetOOMEvent" { // waits: runtimes would ask again at once
			cancel()
		}
		err := p.raw.Call(ctx, "grpc.AgentService", string(m.Name()), decode(t, m.Input().FullName(), nil), decode(t, m.Output().FullName(), nil))
		cancel()
		switch m.Name() {
		case "GetOOMEvent":
			if err == nil || strings.Contains(err.Error(), "blocked") {
				t.Errorf("%s: %v", m.Name(), err)
			}
		case "ReadStdout", "ReadStderr": // no error: see below
			wantCode(t, err, codes.InvalidArgument)
		default:
			wantCode(t, err, codes.PermissionDenied)
			if !strings.Contains(err.Error(), string(m.Input().Name())+" is blocked by policy: ") {
				t.Errorf("%s: %v", m.Name(), err)
			}
		}
	}
	if _, err := p.health.Check(t.Context(), &agent.CheckRequest{}); err != nil {
		t.Errorf("health: %v", err)
	}
}

// Output that the policy denies is read all the same, for a workload must not
// block; the answer comes when it ends, and is empty.
func TestDeniedOutput(t *testing.T) {
	t.Parallel()
	p := newSandbox(t, underPolicy(t, nil, ordinary+"CreateContainerRequest := true\nRemoveContainerRequest := true"))
	p.run("app1", "/bin/sh", "-c", "/bin/head -c 300000 /dev/zero; exit 7")
	if got := p.output("app1", ""); got != "" {
		t.Errorf("%d bytes of denied output", len(got))
	}
	if got := p.wait("app1", ""); got != 7 {
		t.Errorf("status %d: the workload did not come to its end", got)
	}
}

// What a policy noted about a request that was not carried out is taken back, so
// that it can be tried again.
func TestNotesFollowWhatHappened(t *testing.T) {
	t.Parallel()
	p := newSandbox(t, underPolicy(t, nil, ordinary+`
		CreateContainerRequest := {"allowed": true, "ops": [{"op": "add", "path": "/pstate/app", "value": input.container_id}]} if not data.pstate.app
		RemoveContainerRequest := {"allowed": true, "ops": [{"op": "remove", "path": "/pstate/app"}]} if data.pstate.app == input.container_id`))
	_, err := p.client.CreateContainer(t.Context(), p.request("app1", "/bin/nope"))
	if status.Code(err) == codes.PermissionDenied || err == nil {
		t.Fatalf("a missing program: %v", err)
	}
	p.run("app2", "/bin/sleep", "100")
	_, err = p.client.CreateContainer(t.Context(), p.request("app3", "/bin/sleep", "100"))
	wantCode(t, err, codes.PermissionDenied)
	p.remove("app2")
	p.run("app3", "/bin/sleep", "100")
}

func TestSetPolicy(t *testing.T) {
	t.Parallel()
	const next = "package agent_policy\nCreateContainerRequest := false"
	p := newSandbox(t, underPolicy(t, nil, ordinary+`
		CreateContainerRequest := true
		SetPolicyRequest if { startswith(input.policy, "package agent_policy\nCreate"); not contains(input.policy, "true") }`))
	set := func(text string) error {
		_, err := p.client.SetPolicy(t.Context(), &agent.SetPolicyRequest{Policy: text})
		return err
	}
	wantCode(t, set("package agent_policy\nSetPolicyRequest := true"), codes.PermissionDenied)
	wantCode(t, set("package agent_policy\nCreateContainerRequest := "), codes.InvalidArgument)
	p.run("app1", "/bin/sleep", "100")
	if err := set(next); err != nil {
		t.Fatal(err)
	}
	_, err := p.client.CreateContainer(t.Context(), p.request("app2", "/bin/sleep", "100"))
	wantCode(t, err, codes.PermissionDenied)
	wantCode(t, set(next), codes.PermissionDenied)
	// Without a policy none can be set: there is nothing that would allow it.
	bare := newSandbox(t)
	_, err = bare.client.SetPolicy(t.Context(), &agent.SetPolicyRequest{Policy: next})
	wantCode(t, err, codes.FailedPrecondition)
}

// What was pulled counts, not what the host calls it.
func TestImageDigestIsBound(t *testing.T) {
	t.Parallel()
	pulled, other := "sha256:"+strings.Repeat("0", 64), "sha256:"+strings.Repeat("1", 64)
	for name, tt := range map[string]struct {
		rule    string
		allowed bool
	}{
		"allowed":        {`image_digests := {"registry.example/app:1": ["` + pulled + `"]}`, true},
		"another digest": {`image_digests := {"registry.example/app:1": ["` + other + `"]}`, false},
		"another name":   {`image_digests := {"registry.example/app:2": ["` + pulled + `"]}`, false},
		"none named":     {``, false},
	} {
		t.Run(name, func(t *testing.T) {
			var cause string
			reg := &images{t: t}
			p := newSandbox(t, underPolicy(t, func(_, c string) { cause = c }, ordinary+"CreateContainerRequest := true\n"+tt.rule),
				func(c *Config) { c.Images = reg })
			_, err := p.client.CreateContainer(t.Context(), pullRequest(p, "app1", "/bin/sleep", "100"))
			if tt.allowed {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantCode(t, err, codes.PermissionDenied)
			if !strings.Contains(err.Error(), "CreateContainerRequest is blocked by policy: policy_denied (ticket 7QK2-M9TD)") || strings.Contains(err.Error(), other) {
				t.Errorf("the host reads %v", err)
			}
			if !strings.Contains(cause, pulled) {
				t.Errorf("the owner reads %q", cause)
			}
			if len(reg.mounted) != 0 || reg.released != 1 {
				t.Errorf("the refused image is still there: mounted %v, released %d", reg.mounted, reg.released)
			}
		})
	}
}

// slowImages has something happen while an image is pulled.
type slowImages struct {
	*images
	meanwhile func()
}

func (i slowImages) PullImage(ctx context.Context, ref, bundle string) (sandbox.Image, error) {
	i.meanwhile()
	return i.images.PullImage(ctx, ref, bundle)
}

// Another policy that comes into force while an image is pulled does not allow the
// image for a request that was judged by the first.
func TestImageOfAnotherPolicy(t *testing.T) {
	t.Parallel()
	reg := &images{t: t}
	const pinned = "CreateContainerRequest := true\nSetPolicyRequest := true\nimage_digests := [\"sha256:"
	var p *pod
	p = newSandbox(t, underPolicy(t, nil, ordinary+pinned+strings.Repeat("1", 64)+`"]`), func(c *Config) {
		c.Images = slowImages{reg, func() {
			next := "package agent_policy\n" + ordinary + pinned + strings.Repeat("0", 64) + `"]`
			if _, err := p.client.SetPolicy(t.Context(), &agent.SetPolicyRequest{Policy: next}); err != nil {
				t.Error(err)
			}
		}}
	})
	_, err := p.client.CreateContainer(t.Context(), pullRequest(p, "app1", "/bin/sleep", "100"))
	wantCode(t, err, codes.PermissionDenied)
	if len(reg.mounted) != 0 || reg.released != 1 {
		t.Errorf("the refused image is still there: mounted %v, released %d", reg.mounted, reg.released)
	}
}
