package kata

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/genpolicy"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/policy"
)

// oneImage is a registry for genpolicy with what the harness's images hold.
type oneImage struct{ ref string }

func (o oneImage) Image(_ context.Context, ref string) (genpolicy.Image, error) {
	if ref != o.ref {
		return genpolicy.Image{}, errors.New("no such image")
	}
	return genpolicy.Image{
		References: []string{ref}, Digests: []string{"sha256:" + strings.Repeat("0", 64)},
		Entrypoint: []string{"/bin/sh"}, Env: []string{"PATH=/bin"},
	}, nil
}

// recordedPod is the pod of the recording with a guest pull, as its owner would
// have written it down.
const recordedPod = `
apiVersion: v1
kind: Pod
metadata: {name: pod1}
spec:
  containers:
  - name: app
    image: localhost/busybox:1
    command: [/bin/sh, -c, sleep 1000]
    env: [{name: FOO, value: bar}]
    lifecycle: {preStop: {exec: {command: [/bin/ls, /]}}}
    securityContext: {runAsUser: 1000}
    volumeMounts:
    - {name: cfg, mountPath: /cfg, readOnly: true}
    - {name: scratch, mountPath: /scratch}
    - {name: mem, mountPath: /mem}
  volumes:
  - {name: cfg, configMap: {name: cfg}}
  - {name: scratch, emptyDir: {}}
  - {name: mem, emptyDir: {medium: Memory}}
`

func generated(t *testing.T, pod, ref string) string {
	t.Helper()
	text, _, err := genpolicy.Generate(t.Context(), []byte(pod), oneImage{ref}, genpolicy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func fieldPolicy(t *testing.T) string {
	t.Helper()
	raw, err := os.ReadFile("testdata/field.rego")
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func byText(t *testing.T, text string) podOption {
	t.Helper()
	return underPolicy(t, func(request, cause string) { t.Logf("refused: %s: %s", request, cause) }, strings.Replace(text, "package agent_policy\n", "", 1))
}

// A recorded pod of an unmodified runtime runs under a policy of ours, and under
// one of the field's shape with the digests added; under the latter alone its
// image is refused.
func TestRecordingUnderPolicy(t *testing.T) {
	calls := recordings(t)["rec-cri-guestpull.jsonl"]
	if len(calls) == 0 {
		t.Skip("the recording with a guest pull is not here")
	}
	pinned := fmt.Sprintf("\nimage_digests := [%q]\n", "sha256:"+strings.Repeat("0", 64))
	for name, text := range map[string]string{
		"generated":       generated(t, recordedPod, "localhost/busybox:1"),
		"field's, pinned": fieldPolicy(t) + pinned,
	} {
		t.Run(name, func(t *testing.T) { replay(t, calls, byText(t, text)) })
	}
	t.Run("field's, not pinned", func(t *testing.T) {
		e, err := policy.New(t.Context(), fieldPolicy(t), policy.Config{})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range calls {
			d := descriptor(t, c.Method)
			if d.Parent().Name() != "AgentService" {
				continue
			}
			if _, err := e.Judge(t.Context(), decode(t, d.Input().FullName(), c.Req)); err != nil {
				t.Errorf("%s: %v", d.Name(), err)
			}
		}
		if e.CheckImage(t.Context(), "localhost/busybox:1", "sha256:"+strings.Repeat("0", 64)) == nil {
			t.Error("an image that no policy names was allowed")
		}
	})
}

// hostilePod is what the owner wants; what follows is what the host asks for.
const hostilePod = `
apiVersion: v1
kind: Pod
metadata: {name: pod1}
spec:
  containers:
  - name: app
    image: registry.example/app:1
    command: [/bin/sleep, "100"]
    livenessProbe: {exec: {command: [/bin/echo, alive]}}
    securityContext: {allowPrivilegeEscalation: false}
`

// A real pod runs by its generated policy, and survives its host.
func TestHostileHostUnderPolicy(t *testing.T) {
	t.Parallel()
	reg := &images{t: t}
	p := newSandbox(t, byText(t, generated(t, hostilePod, "registry.example/app:1")), func(c *Config) { c.Images = reg })
	p.create(pullRequest(p, "app1", "/bin/sleep", "100"))
	p.start("app1")
	p.exec("app1", "probe", "/bin/echo", "alive")
	if got := p.output("app1", "probe"); got != "alive\n" {
		t.Errorf("the probe says %q", got)
	}
	denied := func(what string, err error) {
		t.Helper()
		t.Log(what)
		wantCode(t, err, codes.PermissionDenied)
	}
	create := func(change func(*agent.CreateContainerRequest)) error {
		req := pullRequest(p, "app2", "/bin/sleep", "100")
		change(req)
		_, err := p.client.CreateContainer(t.Context(), req)
		return err
	}
	denied("a second one", create(func(*agent.CreateContainerRequest) {}))
	_, err := p.client.ExecProcess(t.Context(), &agent.ExecProcessRequest{ContainerId: "app1", ExecId: "x", Process: &agent.Process{Args: []string{"/bin/sh"}, Cwd: "/"}})
	denied("a shell", err)
	_, err = p.client.CopyFile(t.Context(), &agent.CopyFileRequest{Path: "/run/kata-containers/shared/containers/app1/rootfs/bin/sleep", FileMode: 0o100755})
	denied("a program in a root", err)
	_, err = p.client.WriteStdin(t.Context(), &agent.WriteStreamRequest{ContainerId: "app1", Data: []byte("x")})
	denied("input", err)
	p.remove("app1")
	denied("other arguments", create(func(r *agent.CreateContainerRequest) { r.OCI.Process.Args[1] = "1" }))
	denied("another variable", create(func(r *agent.CreateContainerRequest) { r.OCI.Process.Env = append(r.OCI.Process.Env, "LD_PRELOAD=/x") }))
	denied("a root of the host's", create(func(r *agent.CreateContainerRequest) { r.Storages = nil }))
	denied("another image", create(func(r *agent.CreateContainerRequest) { r.Storages[0].Source = "registry.example/other:1" }))
	if err := create(func(*agent.CreateContainerRequest) {}); err != nil {
		t.Errorf("started again: %v", err)
	}
}
