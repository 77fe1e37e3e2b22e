package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/ttrpc"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/measure/initdata"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
)

// binary builds the program as it is shipped: static.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "guest-agent-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "guest-agent")
	// The Makefile's flags, so that what make build compiled is not compiled again.
	cmd := exec.Command("go", "build", "-trimpath", "-tags", "grpcnotrace", "-ldflags", "-s -w", "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return path, nil
})

func program(t *testing.T) string {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := binary(); err == nil {
		_ = os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

func exitCode(t *testing.T, err error) int {
	t.Helper()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	if err != nil {
		t.Fatal(err)
	}
	return 0
}

func TestUsage(t *testing.T) {
	dir := t.TempDir()
	garbage := filepath.Join(dir, "garbage")
	if err := os.WriteFile(garbage, []byte("\x00"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		args   []string
		code   int
		stderr string
	}{
		{"nothing", nil, 1, "a command is needed"},
		{"unknown flag", []string{"serve", "--tcp"}, 1, "unknown flag"},
		{"unknown command", []string{"dance"}, 1, "unknown command"},
		{"no such address", []string{"serve", "--listen", "udp://0.0.0.0:1"}, 1, "want unix:///PATH"},
		{"no such runtime", []string{"serve", "--runtime", "/nope"}, 1, "no OCI runtime found"},
		{"no such init-data", []string{"serve", "--init-data", "/nope"}, 1, "init-data"},
		{"malformed init-data", []string{"serve", "--init-data", garbage}, 1, "init-data"},
		{"no such device", []string{"serve", "--simulated-snp", "/nope"}, 1, "simulated snp"},
		{"bad log level", []string{"serve", "--log-level", "loud"}, 1, "log level"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			args := tt.args
			if len(args) > 0 && args[0] == "serve" {
				args = append(args, "--state-dir", filepath.Join(dir, "state"), "--rest-listen", "", "--attestation-socket", "", "--data-hub-socket", "", "--tpm-device", filepath.Join(dir, "no-tpm"))
			}
			var stdout, stderr bytes.Buffer
			cmd := exec.Command(program(t), args...)
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			if got := exitCode(t, cmd.Run()); got != tt.code {
				t.Errorf("exit code %d, want %d", got, tt.code)
			}
			if !strings.Contains(stderr.String(), tt.stderr) || stdout.Len() > 0 {
				t.Errorf("stderr %q, want %q in it; stdout %q", &stderr, tt.stderr, &stdout)
			}
		})
	}
}

// Process 1 of a container is not the init of a machine: it must leave what is
// mounted alone.
func TestNotTheInitOfAMachine(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	out, err := exec.Command("unshare", "--pid", "--fork", program(t)).CombinedOutput()
	if code := exitCode(t, err); code != 1 || !strings.Contains(string(out), "process 1 of a container") {
		t.Errorf("exit code %d: %s", code, out)
	}
}

const document = "version = \"0.1.0\"\nalgorithm = \"sha256\"\n\n[data]\n\"aa.toml\" = ''\n"

// Init-data that the launch is not bound to is refused before it takes effect,
// and so is a launch whose init-data was withheld.
func TestInitDataIsBound(t *testing.T) {
	dir := t.TempDir()
	vendor := filepath.Join(dir, "vendor")
	if err := snp.CreateVendor(vendor, "Milan"); err != nil {
		t.Fatal(err)
	}
	doc, err := initdata.Parse([]byte(document))
	if err != nil {
		t.Fatal(err)
	}
	for name, digest := range map[string][]byte{"bound": doc.Digest(), "free": nil} {
		if err := snp.CreateGuest(vendor, filepath.Join(dir, name), snp.Launch{Image: []byte("agent"), InitDataDigest: digest}); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "initdata.toml")
	if err := os.WriteFile(file, []byte(document), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"document without binding": {"--simulated-snp", filepath.Join(dir, "free"), "--init-data", file},
		"binding without document": {"--simulated-snp", filepath.Join(dir, "bound")},
	} {
		cmd := exec.Command(program(t), append([]string{"serve", "--listen", "unix://" + dir + "/s", "--state-dir", filepath.Join(dir, "state"), "--rest-listen", "", "--attestation-socket", "", "--data-hub-socket", ""}, args...)...)
		out, err := cmd.CombinedOutput()
		if code := exitCode(t, err); code != 3 || !strings.Contains(string(out), "init_data_mismatch") {
			t.Errorf("%s: exit code %d: %s", name, code, out)
		}
	}
	out, err := exec.Command(program(t), "serve", "--listen", "unix://"+dir+"/s", "--state-dir", filepath.Join(dir, "state"), "--init-data", file, "--rest-listen", "", "--attestation-socket", "", "--data-hub-socket", "", "--tpm-device", dir+"/no-tpm").CombinedOutput()
	if code := exitCode(t, err); code != 1 || !strings.Contains(string(out), "no attester") {
		t.Errorf("document without an attester: exit code %d: %s", code, out)
	}
}

// Under another init than itself the agent finds the disk with init-data too, if it
// is told to look: without a disk none counts.
func TestInitDataOfADisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("a mount namespace needs root")
	}
	dir := t.TempDir()
	vendor := filepath.Join(dir, "vendor")
	if err := snp.CreateVendor(vendor, "Milan"); err != nil {
		t.Fatal(err)
	}
	if err := snp.CreateGuest(vendor, filepath.Join(dir, "free"), snp.Launch{Image: []byte("agent")}); err != nil {
		t.Fatal(err)
	}
	var disk bytes.Buffer
	if err := initdata.WriteDevice(&disk, []byte(document)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "disk"), disk.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	const machine = `set -e
for at in /sys/block /run /dev; do mount -t tmpfs none $at; done
: >/dev/null
if test -n "$DISK"; then mkdir /sys/block/vdq; cp "$DISK" /dev/vdq; fi
exec "$@"`
	for name, tt := range map[string]struct {
		disk, want string
		code       int
	}{
		"with a disk":    {filepath.Join(dir, "disk"), "init_data_mismatch", 3}, // the launch is not bound to it
		"without a disk": {"", "no OCI runtime found", 1},
	} {
		cmd := exec.Command("unshare", "--mount", "sh", "-c", machine, "sh", program(t), "serve", "--init-data", "auto", "--simulated-snp", filepath.Join(dir, "free"),
			"--listen", "unix://"+dir+"/s", "--state-dir", filepath.Join(dir, "state"), "--runtime", "/nope", "--rest-listen", "", "--attestation-socket", "", "--data-hub-socket", "")
		cmd.Env = append(os.Environ(), "DISK="+tt.disk)
		out, err := cmd.CombinedOutput()
		if code := exitCode(t, err); code != tt.code || !strings.Contains(string(out), tt.want) {
			t.Errorf("%s: exit code %d: %s", name, code, out)
		}
	}
}

// running is an agent that a test has started.
type running struct {
	cmd    *exec.Cmd
	client agent.AgentServiceService
	log    *bytes.Buffer
	rest   string
	exited chan error
}

func startAgent(t *testing.T) *running {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	if _, err := exec.LookPath("runc"); err != nil {
		t.Skip("needs runc")
	}
	dir, err := os.MkdirTemp("", "ga-")
	if err != nil {
		t.Fatal(err)
	}
	r := &running{log: &bytes.Buffer{}, exited: make(chan error, 1), rest: freeAddress(t)}
	socket := filepath.Join(dir, "agent.sock")
	cmdline := filepath.Join(dir, "cmdline")
	if err := os.WriteFile(cmdline, []byte("vouchsafe.insecure_no_agent_policy=true\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.cmd = exec.Command(program(t), "serve", "--listen", "unix://"+socket, "--state-dir", filepath.Join(dir, "state"),
		"--rest-listen", r.rest, "--attestation-socket", dir+"/components/aa.sock", "--data-hub-socket", dir+"/components/cdh.sock", "--kernel-cmdline", cmdline, "--tpm-device", filepath.Join(dir, "no-tpm")) // not this machine's
	r.cmd.Stderr = r.log
	r.cmd.Stdout = r.log
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { r.exited <- r.cmd.Wait() }()
	conn := dial(t, r, socket)
	c := ttrpc.NewClient(conn)
	r.client = agent.NewAgentServiceClient(c)
	t.Cleanup(func() {
		_ = c.Close()
		if t.Failed() {
			t.Logf("the agent's log:\n%s", r.log)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return r
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// dial waits for the agent to listen.
func dial(t *testing.T, r *running, socket string) net.Conn {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			return conn
		}
		select {
		case err := <-r.exited:
			t.Fatalf("the agent ended: %v\n%s", err, r.log)
		case <-deadline:
			t.Fatalf("the agent does not listen: %v\n%s", err, r.log)
		case <-tick.C:
		}
	}
}

func (r *running) wait(t *testing.T) {
	t.Helper()
	select {
	case err := <-r.exited:
		if code := exitCode(t, err); code != 0 {
			t.Errorf("exit code %d\n%s", code, r.log)
		}
	case <-time.After(40 * time.Second):
		t.Fatalf("the agent does not end\n%s", r.log)
	}
}

// pausePod creates a sandbox and starts its pause container, which is the
// program under test itself.
func (r *running) pausePod(ctx context.Context) error {
	if _, err := r.client.CreateSandbox(ctx, &agent.CreateSandboxRequest{Hostname: "pod1"}); err != nil {
		return err
	}
	root := "/run/kata-containers/pause1/rootfs"
	_, err := r.client.CreateContainer(ctx, &agent.CreateContainerRequest{
		ContainerId: "pause1", ExecId: "pause1",
		Storages: []*agent.Storage{{Driver: "image_guest_pull", Source: "pause", Fstype: "overlay", MountPoint: root}},
		OCI: &agent.Spec{
			Process: &agent.Process{User: &agent.User{}, Args: []string{"/pause"}, Cwd: "/"},
			Root:    &agent.Root{Path: root, Readonly: true},
			Mounts: []*agent.Mount{
				{Destination: "/proc", Source: "proc", Type: "proc"},
				{Destination: "/dev", Source: "tmpfs", Type: "tmpfs", Options: []string{"nosuid", "mode=755"}},
			},
			Linux: &agent.Linux{CgroupsPath: fmt.Sprintf("/vouchsafe-test/cmd-%d", r.cmd.Process.Pid)},
		},
	})
	if err != nil {
		return err
	}
	_, err = r.client.StartContainer(ctx, &agent.StartContainerRequest{ContainerId: "pause1"})
	return err
}

func TestServeUntilDestroyed(t *testing.T) {
	r := startAgent(t)
	if err := r.pausePod(t.Context()); err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get("http://" + r.rest + "/info")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("REST: %s %s, %v", resp.Status, body, err)
	}
	// Without a broker there is no image policy, so no image.
	_, err = r.client.CreateContainer(t.Context(), &agent.CreateContainerRequest{
		ContainerId: "app1",
		Storages:    []*agent.Storage{{Driver: "image_guest_pull", Source: "127.0.0.1:1/app:1", MountPoint: "/run/kata-containers/app1/rootfs"}},
	})
	if err == nil || !strings.Contains(err.Error(), "Denied by policy: image_policy_missing (ticket ") {
		t.Errorf("a pull without a policy: %v", err)
	}
	if _, err := r.client.DestroySandbox(t.Context(), &agent.DestroySandboxRequest{}); err != nil {
		t.Errorf("destroy: %v", err)
	}
	r.wait(t)
}

func TestServeUntilSignal(t *testing.T) {
	r := startAgent(t)
	if err := r.pausePod(t.Context()); err != nil {
		t.Fatal(err)
	}
	status := make(chan int32, 1)
	go func() {
		resp, err := r.client.WaitProcess(context.Background(), &agent.WaitProcessRequest{ContainerId: "pause1"})
		if err != nil {
			t.Errorf("wait: %v", err)
		}
		status <- resp.GetStatus()
	}()
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := <-status; got != 137 {
		t.Errorf("status of the pause container %d, want 137", got)
	}
	r.wait(t)
}
