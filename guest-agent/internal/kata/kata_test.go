package kata

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/sandbox"
)

func TestLifecycle(t *testing.T) {
	t.Parallel()
	p := newSandbox(t)
	p.create(p.request("app1", "/bin/sh", "-c", "echo out; echo err >&2; hostname; exit 3"))
	waited := make(chan int)
	go func() { waited <- p.wait("app1", "") }() // parks before the start
	p.start("app1")
	if got := p.output("app1", "app1"); got != "out\npod1\n" {
		t.Errorf("stdout %q", got)
	}
	if got := p.readAll(p.client.ReadStderr, "app1", ""); got != "err\n" {
		t.Errorf("stderr %q", got)
	}
	if got := <-waited; got != 3 {
		t.Errorf("status %d, want 3", got)
	}
	for range 2 { // a runtime asks again, after a last SIGKILL (kata-agent 2.5)
		if err := p.signal("app1", "", 9); err != nil {
			t.Errorf("kill after the exit: %v", err)
		}
		if got := p.wait("app1", "app1"); got != 3 {
			t.Errorf("status %d the second time", got)
		}
	}
	_, err := p.client.StartContainer(t.Context(), &agent.StartContainerRequest{ContainerId: "app1"})
	wantCode(t, err, codes.FailedPrecondition)
	p.remove("app1")
	_, err = p.client.WaitProcess(t.Context(), &agent.WaitProcessRequest{ContainerId: "app1"})
	wantCode(t, err, codes.NotFound)
	_, err = p.client.RemoveContainer(t.Context(), &agent.RemoveContainerRequest{ContainerId: "app1"})
	wantCode(t, err, codes.NotFound)
	p.run("app1", "/bin/sh", "-c", "exit 0") // the name is free again
	if got := p.wait("app1", ""); got != 0 {
		t.Errorf("status %d", got)
	}
}

// Both ways to name the first process and both ways to end its input
// (kata-agent 2.16).
func TestStdin(t *testing.T) {
	t.Parallel()
	p := newSandbox(t)
	for name, execID := range map[string]string{"go-runtime": "go-runtime", "runtime-rs": ""} {
		req := p.request(name, "/bin/cat")
		req.ExecId = execID
		p.create(req)
		p.start(name)
		resp, err := p.client.WriteStdin(t.Context(), &agent.WriteStreamRequest{ContainerId: name, ExecId: execID, Data: []byte("line1\nline2\n")})
		if err != nil || resp.Len != 12 {
			t.Fatalf("%s: %v, %v", name, resp, err)
		}
		if name == "runtime-rs" {
			_, err = p.client.WriteStdin(t.Context(), &agent.WriteStreamRequest{ContainerId: name, ExecId: execID})
		} else {
			_, err = p.client.CloseStdin(t.Context(), &agent.CloseStdinRequest{ContainerId: name, ExecId: execID})
		}
		if err != nil {
			t.Fatalf("%s: close: %v", name, err)
		}
		if got := p.output(name, execID); got != "line1\nline2\n" {
			t.Errorf("%s: %q", name, got)
		}
		if got := p.wait(name, execID); got != 0 {
			t.Errorf("%s: status %d", name, got)
		}
		_, err = p.client.WriteStdin(t.Context(), &agent.WriteStreamRequest{ContainerId: name, ExecId: execID, Data: []byte("x")})
		wantCode(t, err, codes.FailedPrecondition)
	}
}

func TestExec(t *testing.T) {
	t.Parallel()
	p := newSandbox(t)
	p.run("app1", "/bin/sleep", "1000")
	caps := func(execID string) string {
		p.exec("app1", execID, "/bin/grep", "^Cap", "/proc/self/status")
		return p.output("app1", execID)
	}
	own := caps("caps")
	p.exec("app1", "caps-of-init", "/bin/grep", "^Cap", "/proc/1/status")
	if init := p.output("app1", "caps-of-init"); init != own || !strings.Contains(own, "CapBnd:\t0000000000000021") {
		t.Errorf("capabilities of exec\n%sof the container\n%s", own, init)
	}
	p.exec("app1", "x1", "/bin/sh", "-c", "cat; exit 42")
	if _, err := p.client.WriteStdin(t.Context(), &agent.WriteStreamRequest{ContainerId: "app1", ExecId: "x1", Data: []byte("hi")}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.client.CloseStdin(t.Context(), &agent.CloseStdinRequest{ContainerId: "app1", ExecId: "x1"}); err != nil {
		t.Fatal(err)
	}
	if got := p.output("app1", "x1"); got != "hi" {
		t.Errorf("output %q", got)
	}
	for range 2 {
		if got := p.wait("app1", "x1"); got != 42 {
			t.Errorf("status %d, want 42", got)
		}
	}
	_, err := p.client.ExecProcess(t.Context(), &agent.ExecProcessRequest{ContainerId: "app1", ExecId: "x1", Process: &agent.Process{Args: []string{"/bin/id"}}})
	wantCode(t, err, codes.AlreadyExists)
	_, err = p.client.ExecProcess(t.Context(), &agent.ExecProcessRequest{ContainerId: "app1", ExecId: "x2", Process: &agent.Process{Args: []string{"/bin/nope"}}})
	if err == nil || !strings.Contains(err.Error(), "nope") {
		t.Errorf("exec of a missing program: %v", err)
	}
	for _, id := range []string{"x2", "never"} { // a failed start leaves nothing behind
		_, err = p.client.WaitProcess(t.Context(), &agent.WaitProcessRequest{ContainerId: "app1", ExecId: id})
		wantCode(t, err, codes.NotFound)
	}
}

func TestSignals(t *testing.T) {
	t.Parallel()
	const (
		sigusr1, sigkill, sigterm = 10, 9, 15
		ready                     = "echo ready; while :; do sleep 0.05; done"
	)
	p := newSandbox(t)
	tests := []struct {
		name   string
		script string
		sig    uint32
		want   int
	}{
		{"sigterm-without-handler", ready, sigterm, 137},
		{"sigterm-ignored", "trap '' TERM; " + ready, sigterm, 137},
		{"sigterm-with-handler", "trap 'exit 7' TERM; " + ready, sigterm, 7},
		{"sigusr1-with-handler", "trap 'exit 8' USR1; " + ready, sigusr1, 8},
		{"sigkill-with-children", "sleep 1000 & sleep 1000 & " + ready, sigkill, 137},
	}
	for _, tt := range tests {
		p.run(tt.name, "/bin/sh", "-c", tt.script)
		p.readUntil(tt.name, "", "ready")
		if err := p.signal(tt.name, "", tt.sig); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if got := p.wait(tt.name, ""); got != tt.want {
			t.Errorf("%s: status %d, want %d", tt.name, got, tt.want)
		}
		err := p.signal(tt.name, tt.name, sigterm)
		if err == nil || !strings.Contains(err.Error(), "ESRCH: No such process") {
			t.Errorf("%s: signal after the exit: %v", tt.name, err)
		}
		p.remove(tt.name)
	}
	p.run("app1", "/bin/sleep", "1000")
	p.exec("app1", "x", "/bin/sleep", "1000")
	if err := p.signal("app1", "x", sigterm); err != nil {
		t.Error(err)
	}
	if got := p.wait("app1", "x"); got != 143 {
		t.Errorf("status of a terminated exec %d, want 143", got)
	}
	if err := p.signal("app1", "x", sigterm); err == nil || !strings.Contains(err.Error(), "ESRCH: No such process") {
		t.Errorf("signal to a dead exec: %v", err)
	}
	wantCode(t, p.signal("app1", "never", sigterm), codes.NotFound)
	wantCode(t, p.signal("app1", "", 65), codes.InvalidArgument)
}

func TestTerminal(t *testing.T) {
	t.Parallel()
	p := newSandbox(t)
	req := p.request("tty1", "/bin/sh")
	req.OCI.Process.Terminal = true
	p.create(req)
	p.start("tty1")
	p.readUntil("tty1", "tty1", "# ")
	if _, err := p.client.TtyWinResize(t.Context(), &agent.TtyWinResizeRequest{ContainerId: "tty1", ExecId: "tty1", Row: 40, Column: 100}); err != nil {
		t.Fatal(err)
	}
	write := func(s string) {
		t.Helper()
		if _, err := p.client.WriteStdin(t.Context(), &agent.WriteStreamRequest{ContainerId: "tty1", ExecId: "tty1", Data: []byte(s)}); err != nil {
			t.Fatal(err)
		}
	}
	write("stty size\n")
	p.readUntil("tty1", "tty1", "40 100")
	if got := p.readAll(p.client.ReadStderr, "tty1", "tty1"); got != "" {
		t.Errorf("stderr of a terminal: %q", got)
	}
	p.exec("tty1", "plain", "/bin/sleep", "100")
	_, err := p.client.TtyWinResize(t.Context(), &agent.TtyWinResizeRequest{ContainerId: "tty1", ExecId: "plain", Row: 1, Column: 1})
	wantCode(t, err, codes.FailedPrecondition)
	write("trap 'exit 5' EXIT\n")
	if _, err := p.client.CloseStdin(t.Context(), &agent.CloseStdinRequest{ContainerId: "tty1", ExecId: "tty1"}); err != nil {
		t.Fatal(err)
	}
	p.output("tty1", "tty1") // to the end
	if got := p.wait("tty1", "tty1"); got != 5 {
		t.Errorf("status %d, want 5", got)
	}
}

// A process that is gone ends its streams, although a child of it still holds
// them (kata-agent 2.5).
func TestGrandchildHoldsThePipe(t *testing.T) {
	t.Parallel()
	p := newSandbox(t)
	p.run("app1", "/bin/sleep", "1000")
	p.exec("app1", "x", "/bin/sh", "-c", "sleep 1000 & echo hi")
	start := time.Now()
	if got := p.output("app1", "x"); got != "hi\n" {
		t.Errorf("%q", got)
	}
	p.readAll(p.client.ReadStderr, "app1", "x")
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("the end came after %v", took)
	}
	if got := p.wait("app1", "x"); got != 0 {
		t.Errorf("status %d", got)
	}
}

// The runtime program hangs for one container. Signals to it and to another must
// not wait for that.
func TestStuckContainer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fifo := filepath.Join(dir, "never")
	wrapper := filepath.Join(dir, "runtime")
	script := fmt.Sprintf("#!/bin/sh\ncase \"$*\" in *' start stuck') echo >%s.entered; exec cat %s;; esac\nexec runc \"$@\"\n", fifo, fifo)
	if err := os.WriteFile(wrapper, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	p := newSandbox(t, func(c *Config) { c.Runtime = wrapper })
	if err := mkfifo(fifo); err != nil {
		t.Fatal(err)
	}
	if err := mkfifo(fifo + ".entered"); err != nil {
		t.Fatal(err)
	}
	p.create(p.request("stuck", "/bin/sleep", "1000"))
	started := make(chan error, 1)
	go func() {
		_, err := p.client.StartContainer(t.Context(), &agent.StartContainerRequest{ContainerId: "stuck"})
		started <- err
	}()
	if _, err := os.ReadFile(fifo + ".entered"); err != nil { // waits until the runtime hangs
		t.Fatal(err)
	}
	begin := time.Now()
	p.run("other", "/bin/sleep", "1000")
	for _, id := range []string{"other", "stuck"} {
		if err := p.signal(id, "", 9); err != nil {
			t.Errorf("kill %s: %v", id, err)
		}
		if got := p.wait(id, ""); got != 137 {
			t.Errorf("%s: status %d", id, got)
		}
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
	select {
	case err := <-started:
		t.Errorf("the start was not stuck: %v", err)
	default:
	}
	w, err := os.OpenFile(fifo, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	if err := <-started; err != nil {
		t.Errorf("the stuck start: %v", err)
	}
}

func TestPauseResumeUpdateStats(t *testing.T) {
	t.Parallel()
	p := newSandbox(t)
	p.run("app1", "/bin/sh", "-c", "echo up; exec sleep 1000")
	p.readUntil("app1", "", "up\n") // until then the threads of the runtime count too
	ctx := t.Context()
	if _, err := p.client.UpdateContainer(ctx, &agent.UpdateContainerRequest{ContainerId: "app1", Resources: &agent.LinuxResources{
		Devices: []*agent.LinuxDeviceCgroup{{Access: "rwm"}},
		Memory:  &agent.LinuxMemory{Limit: 160 << 20, Swap: 160 << 20},
		CPU:     &agent.LinuxCPU{Shares: 512, Quota: 60000, Period: 100000},
	}}); err != nil {
		t.Fatal(err)
	}
	stats, err := p.client.StatsContainer(ctx, &agent.StatsContainerRequest{ContainerId: "app1"})
	if err != nil {
		t.Fatal(err)
	}
	c := stats.CgroupStats
	if c.PidsStats.Current != 1 || c.MemoryStats.Usage.Limit != 160<<20 || c.CpuStats.CpuUsage.TotalUsage == 0 {
		t.Errorf("stats: %v", c)
	}
	// Devices still work after the update's "deny all".
	p.exec("app1", "dev", "/bin/head", "-c", "1", "/dev/zero")
	if got := p.output("app1", "dev"); got != "\x00" {
		t.Errorf("/dev/zero gives %q", got)
	}
	if _, err := p.client.PauseContainer(ctx, &agent.PauseContainerRequest{ContainerId: "app1"}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.client.ResumeContainer(ctx, &agent.ResumeContainerRequest{ContainerId: "app1"}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.client.PauseContainer(ctx, &agent.PauseContainerRequest{ContainerId: "app1"}); err != nil {
		t.Fatal(err)
	}
	if err := p.signal("app1", "", 9); err != nil { // must thaw, or it would never die
		t.Fatal(err)
	}
	if got := p.wait("app1", ""); got != 137 {
		t.Errorf("status %d", got)
	}
}

func pauseRequest(p *pod, id string) *agent.CreateContainerRequest {
	req := p.request(id, "/host-says-so")
	root := sandbox.GuestDir + "/" + id + "/rootfs"
	req.OCI.Root = &agent.Root{Path: root, Readonly: true}
	req.Storages = []*agent.Storage{{
		Driver: "image_guest_pull", Source: "pause", Fstype: "overlay", MountPoint: root,
		DriverOptions: []string{`image_guest_pull={"metadata":{"io.kubernetes.cri.container-type":"sandbox"}}`},
	}}
	return req
}

func withPause(t *testing.T) podOption {
	t.Helper()
	needs(t)
	path, err := pauseBinary()
	if err != nil {
		t.Fatal(err)
	}
	return func(c *Config) { c.PauseBinary = path }
}

// The pause container runs our own program whatever the host says, and later
// containers share its namespaces.
func TestPauseContainer(t *testing.T) {
	t.Parallel()
	p := newSandbox(t, withPause(t))
	p.create(pauseRequest(p, "pause1"))
	p.start("pause1")
	shared := p.request("app1", "/bin/sleep", "1000")
	shared.SandboxPidns = true
	p.create(shared)
	p.start("app1")
	p.run("app2", "/bin/sleep", "1000")
	look := func(id string) string {
		p.exec(id, "look", "/bin/sh", "-c", "cat /proc/1/cmdline; ls -l /proc/self/ns | grep -E 'ipc|uts'")
		return p.output(id, "look")
	}
	one, two := look("app1"), look("app2")
	if !strings.HasPrefix(one, "/pause\x00pause") {
		t.Errorf("PID 1 of a container that shares the sandbox's pid namespace: %q", one)
	}
	if !strings.HasPrefix(two, "/bin/sleep\x00") {
		t.Errorf("PID 1 of one that does not: %q", two)
	}
	ns := func(s string) (names []string) {
		for _, f := range strings.Fields(s) {
			if strings.HasPrefix(f, "ipc:[") || strings.HasPrefix(f, "uts:[") {
				names = append(names, f)
			}
		}
		return names
	}
	if a, b := ns(one), ns(two); len(a) != 2 || fmt.Sprint(a) != fmt.Sprint(b) {
		t.Errorf("namespaces differ: %v, %v", a, b)
	}
	if err := p.signal("pause1", "", 15); err != nil {
		t.Fatal(err)
	}
	if got := p.wait("pause1", ""); got != 0 {
		t.Errorf("status of pause %d", got)
	}
}
