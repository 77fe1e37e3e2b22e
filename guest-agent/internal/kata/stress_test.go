package kata

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

// Containers and execs come and go at the same time on one connection.
func TestConcurrentContainers(t *testing.T) {
	t.Parallel()
	p := newSandbox(t)
	const containers, execs = 4, 3
	var wg sync.WaitGroup
	for i := range containers {
		req := p.request(fmt.Sprintf("app%d", i), "/bin/cat") // t.Fatal belongs to this goroutine
		wg.Go(func() {
			if err := exercise(t, p, req, execs); err != nil {
				t.Errorf("%s: %v", req.ContainerId, err)
			}
		})
	}
	wg.Wait()
}

func exercise(t *testing.T, p *pod, req *agent.CreateContainerRequest, execs int) error {
	ctx, id := t.Context(), req.ContainerId
	if _, err := p.client.CreateContainer(ctx, req); err != nil {
		return err
	}
	if _, err := p.client.StartContainer(ctx, &agent.StartContainerRequest{ContainerId: id}); err != nil {
		return err
	}
	errs := make(chan error)
	for i := range execs {
		go func() { errs <- oneExec(t, p, id, i) }()
	}
	for range execs {
		if err := <-errs; err != nil {
			return err
		}
	}
	if _, err := p.client.SignalProcess(ctx, &agent.SignalProcessRequest{ContainerId: id, Signal: 9}); err != nil {
		return err
	}
	if resp, err := p.client.WaitProcess(ctx, &agent.WaitProcessRequest{ContainerId: id}); err != nil || resp.Status != 137 {
		return fmt.Errorf("wait: %v, %w", resp, err)
	}
	_, err := p.client.RemoveContainer(ctx, &agent.RemoveContainerRequest{ContainerId: id, Timeout: 20})
	return err
}

func oneExec(t *testing.T, p *pod, id string, n int) error {
	ctx, execID := t.Context(), fmt.Sprintf("x%d", n)
	_, err := p.client.ExecProcess(ctx, &agent.ExecProcessRequest{ContainerId: id, ExecId: execID, Process: &agent.Process{
		User: &agent.User{}, Cwd: "/", Env: []string{"PATH=/bin"}, Args: []string{"/bin/sh", "-c", fmt.Sprintf("echo %s; exit %d", execID, n)},
	}})
	if err != nil {
		return err
	}
	var out bytes.Buffer
	for {
		resp, err := p.client.ReadStdout(ctx, &agent.ReadStreamRequest{ContainerId: id, ExecId: execID, Len: 100})
		if err != nil {
			return err
		}
		if len(resp.Data) == 0 {
			break
		}
		out.Write(resp.Data)
	}
	if out.String() != execID+"\n" {
		return fmt.Errorf("output %q of %s", out.String(), execID)
	}
	resp, err := p.client.WaitProcess(ctx, &agent.WaitProcessRequest{ContainerId: id, ExecId: execID})
	if err != nil || int(resp.Status) != n {
		return fmt.Errorf("status of %s: %v, %w", execID, resp, err)
	}
	return nil
}

// Nothing grows with the number of containers: descriptors, goroutines, mounts,
// processes. Not parallel: it counts what the whole process has.
func TestNothingLeaks(t *testing.T) {
	p := newSandbox(t)
	cycle := func() {
		if err := exercise(t, p, p.request("app1", "/bin/cat"), 2); err != nil {
			t.Fatal(err)
		}
	}
	cycle() // what is made once is made
	fds, goroutines, mounts := openFiles(t), runtime.NumGoroutine(), len(mountsUnder(t, p.dir))
	for range 4 {
		cycle()
	}
	if n := openFiles(t); n > fds {
		t.Errorf("%d open files became %d", fds, n)
	}
	if n := settledGoroutines(t, goroutines); n > goroutines {
		t.Errorf("%d goroutines became %d", goroutines, n)
	}
	if n := len(mountsUnder(t, p.dir)); n != mounts {
		t.Errorf("%d mounts became %d", mounts, n)
	}
	if c := children(t); len(c) > 0 {
		t.Errorf("children left: %v", c)
	}
}

// settledGoroutines counts goroutines when there are at most as many as wanted,
// or after five seconds: the one that served a call may outlive its answer.
func settledGoroutines(t *testing.T, want int) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for {
		n := runtime.NumGoroutine()
		if n <= want {
			return n
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return n
		}
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// children lists the processes, dead ones too, whose parent is this one.
func children(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, e := range entries {
		raw, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		stat := string(raw)
		fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
		if fields[1] == strconv.Itoa(os.Getpid()) {
			found = append(found, stat)
		}
	}
	return found
}
