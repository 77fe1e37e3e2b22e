package boot

import (
	"bufio"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/ttrpc"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

// runTimeout bounds a run of the command, with the boot of an emulated guest on a
// busy machine.
const runTimeout = 4 * time.Minute

// The command that a person types: it boots an image, says where the agent
// answers, and when it is interrupted ends the guest in order, and with it
// everything that it started.
func TestRunCommand(t *testing.T) {
	t.Parallel()
	guest := image(t, "initrd")
	ctx, cancel := context.WithTimeout(t.Context(), runTimeout)
	defer cancel()
	run := startRun(ctx, t, guest.Dir, "--accelerator", "tcg", "--network")
	socket := run.socket(t)
	run.serving(t)
	check(ctx, t, socket)

	if err := run.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	console := run.rest()
	if err := run.cmd.Wait(); err != nil {
		t.Errorf("interrupted, it ends with %v", err)
	}
	if !strings.Contains(console, "guest-agent: the machine ends, status 0") {
		t.Errorf("the console lacks how the guest ended:\n%s", console)
	}
	if left, err := filepath.Glob(filepath.Dir(socket)); err != nil || len(left) > 0 {
		t.Errorf("it leaves %v, %v", left, err)
	}
}

// running is `rootfs run`, with its two outputs.
type running struct {
	cmd     *exec.Cmd
	console *bufio.Scanner
	told    *bufio.Scanner
	drained sync.WaitGroup
}

func startRun(ctx context.Context, t *testing.T, args ...string) *running {
	t.Helper()
	bin, err := filepath.Abs("../../bin/rootfs")
	if err != nil {
		t.Fatal(err)
	}
	r := &running{cmd: exec.CommandContext(ctx, bin, append([]string{"run"}, args...)...)}
	// Killed, it would leave its machine behind.
	r.cmd.Cancel = func() error { return r.cmd.Process.Signal(os.Interrupt) }
	r.cmd.WaitDelay = time.Minute
	stdout, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := r.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	r.console, r.told = bufio.NewScanner(stdout), bufio.NewScanner(stderr)
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if r.cmd.ProcessState == nil { // a test that ended before its time
			_ = r.cmd.Process.Signal(os.Interrupt)
			_ = r.cmd.Wait()
		}
	})
	return r
}

var toldSocket = regexp.MustCompile(`^rootfs: tcg; the agent is at unix://(/.*)$`)

// socket waits for the command to say where the agent is.
func (r *running) socket(t *testing.T) string {
	t.Helper()
	for r.told.Scan() {
		if m := toldSocket.FindStringSubmatch(r.told.Text()); m != nil {
			r.drained.Go(func() {
				for r.told.Scan() { //nolint:revive // so that it never waits for a reader
				}
			})
			return m[1]
		}
		t.Log(r.told.Text())
	}
	t.Fatalf("it does not say where the agent is: %v", r.cmd.Wait())
	return ""
}

// serving waits for the guest's console to say that the agent serves.
func (r *running) serving(t *testing.T) {
	t.Helper()
	for r.console.Scan() {
		if strings.Contains(r.console.Text(), `"msg":"serving"`) {
			return
		}
	}
	t.Fatalf("the guest ends before its agent serves: %v", r.cmd.Wait())
}

// rest is what the console says until the guest has ended.
func (r *running) rest() string {
	var b strings.Builder
	for r.console.Scan() {
		_, _ = io.WriteString(&b, r.console.Text()+"\n")
	}
	r.drained.Wait()
	return b.String()
}

// check asks the agent whether it serves, as a runtime does first.
func check(ctx context.Context, t *testing.T, socket string) {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	client := ttrpc.NewClient(conn)
	answer, err := agent.NewHealthClient(client).Check(ctx, &agent.CheckRequest{})
	if err != nil || answer.GetStatus() != agent.HealthCheckResponse_SERVING {
		t.Errorf("%v, %v", answer, err)
	}
	if err := client.Close(); err != nil {
		t.Error(err)
	}
}
