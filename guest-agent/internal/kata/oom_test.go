package kata

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/sandbox"
)

// A container that wants more memory than it may have is killed, and the runtime
// that waits is told which it was, also when an earlier one stopped waiting.
func TestOOMEvent(t *testing.T) {
	t.Parallel()
	p := newSandbox(t)
	gone, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := p.client.GetOOMEvent(gone, &agent.GetOOMEventRequest{})
	wantGone(t, err)

	req := p.request("big1", "/bin/sh", "-c", "x=0123456789abcdef; while true; do x=$x$x; done")
	const limit = 16 << 20
	req.OCI.Linux.Resources.Memory = &agent.LinuxMemory{Limit: limit, Swap: limit}
	p.create(req)
	p.start("big1")
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	event, err := p.client.GetOOMEvent(ctx, &agent.GetOOMEventRequest{})
	if err != nil || event.ContainerId != "big1" {
		t.Fatalf("%v, %v", event, err)
	}
	if code := p.wait("big1", ""); code != 137 {
		t.Errorf("exit code %d", code)
	}
	p.remove("big1")
}

// wantGone is the end of a caller's patience, by its own word or the server's.
func wantGone(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, context.DeadlineExceeded) {
		wantCode(t, err, codes.DeadlineExceeded)
	}
}

// A policy that denies the events leaves the runtime waiting.
func TestOOMEventDenied(t *testing.T) {
	t.Parallel()
	p := newPod(t, underPolicy(t, nil, ordinary))
	p.server.oom.Add("app1")
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	event, err := p.client.GetOOMEvent(ctx, &agent.GetOOMEventRequest{})
	if err == nil {
		t.Fatalf("the host was told: %v", event)
	}
	wantGone(t, err)
}

// withMessage is a container that can leave last words.
func withMessage(p *pod, id, script, content string) *agent.CreateContainerRequest {
	p.t.Helper()
	file := id + "-0123456789abcdef-termination-log"
	if err := os.WriteFile(filepath.Join(p.dir, "shared/containers", file), []byte(content), 0o666); err != nil {
		p.t.Fatal(err)
	}
	req := p.request(id, "/bin/sh", "-c", script)
	req.OCI.Mounts = append(req.OCI.Mounts, &agent.Mount{
		Destination: "/dev/message", Source: sandbox.GuestDir + "/shared/containers/" + file, Type: "bind", Options: []string{"rbind"},
	})
	req.OCI.Annotations = map[string]string{annotationMessagePath: "/dev/message"}
	return req
}

func TestTerminationMessage(t *testing.T) {
	t.Parallel()
	p := newSandbox(t)
	long := `i=0; while [ $i -lt 1000 ]; do echo 0123456789; i=$((i+1)); done >/dev/message; echo end >>/dev/message`
	for id, c := range map[string]struct{ script, tail string }{"app1": {"echo last words >/dev/message; exit 3", "last words\n"}, "app2": {long, "end\n"}} {
		p.create(withMessage(p, id, c.script, ""))
		p.start(id)
		p.wait(id, "")
		got, err := p.client.GetDiagnosticData(t.Context(), &agent.GetDiagnosticDataRequest{LogType: terminationLog, ContainerId: id})
		if err != nil || !strings.HasSuffix(got.Data, c.tail) || len(got.Data) > maxMessage {
			t.Errorf("%s: %q, %v", id, got.GetData(), err)
		}
		p.remove(id)
	}
	_, err := p.client.GetDiagnosticData(t.Context(), &agent.GetDiagnosticDataRequest{LogType: "core", ContainerId: "app1"})
	wantCode(t, err, codes.InvalidArgument)
}

// A host that names a file with content as the place of last words, or puts
// another in its place later, does not read it.
func TestTerminationMessageIsThePods(t *testing.T) {
	t.Parallel()
	p := newSandbox(t)
	p.create(withMessage(p, "app1", "sleep 100", "a secret"))
	p.create(withMessage(p, "app2", "sleep 100", ""))
	shared := filepath.Join(p.dir, "shared/containers")
	if err := os.Rename(filepath.Join(shared, "app1-0123456789abcdef-termination-log"), filepath.Join(shared, "app2-0123456789abcdef-termination-log")); err != nil {
		t.Fatal(err)
	}
	_, err := p.client.GetDiagnosticData(t.Context(), &agent.GetDiagnosticDataRequest{LogType: terminationLog, ContainerId: "app1"})
	wantCode(t, err, codes.NotFound)
	got, err := p.client.GetDiagnosticData(t.Context(), &agent.GetDiagnosticDataRequest{LogType: terminationLog, ContainerId: "app2"})
	if err != nil || got.Data != "" {
		t.Errorf("the host reads %q, %v", got.GetData(), err)
	}
}
