package barepod

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

// GuestDir is how the protocol calls the agent's state directory.
const GuestDir = "/run/kata-containers"

// Sandbox creates the pod, without a container.
func (a *Agent) Sandbox(ctx context.Context, pids bool) error {
	_, err := a.CreateSandbox(ctx, &agent.CreateSandboxRequest{
		Hostname: "pod1", SandboxId: "sandbox1", SandboxPidns: pids,
		Storages: []*agent.Storage{{
			Driver: "ephemeral", Source: "shm", Fstype: "tmpfs", MountPoint: GuestDir + "/sandbox/shm",
			Options: []string{"noexec", "nosuid", "nodev", "mode=1777", "size=67108864"},
		}},
	})
	return err
}

// applets are the names that containers call busybox by.
var applets = []string{"sh", "cat", "ls", "sleep", "stty", "id", "hostname", "head", "dd", "echo", "mkdir", "stat", "readlink", "ps", "tr", "env", "test", "touch", "grep"}

// Rootfs makes a root of busybox in the directory that the host shares, once, and
// returns how the protocol calls it.
func (a *Agent) Rootfs(name string) (string, error) {
	rel := filepath.Join("shared/containers", name, "rootfs")
	root := filepath.Join(a.State(), rel)
	guest := filepath.Join(GuestDir, rel)
	a.roots.Lock()
	defer a.roots.Unlock()
	if _, err := os.Stat(root); err == nil {
		return guest, nil
	}
	for _, d := range []string{"bin", "tmp", "etc", "mnt"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return "", err
		}
	}
	raw, err := os.ReadFile(Busybox)
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(root, "bin/busybox"), raw, 0o755); err != nil {
		return "", err
	}
	for _, name := range applets {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", name)); err != nil {
			return "", err
		}
	}
	return guest, nil
}

// Request is a container as a shim asks for it (kata-agent 2.9); all share a
// root.
func (a *Agent) Request(id string, args ...string) (*agent.CreateContainerRequest, error) {
	root, err := a.Rootfs("base")
	if err != nil {
		return nil, err
	}
	caps := []string{"CAP_CHOWN", "CAP_KILL", "CAP_SETGID", "CAP_SETUID"}
	return &agent.CreateContainerRequest{ContainerId: id, ExecId: id, OCI: &agent.Spec{
		Version: "1.1.0",
		Process: &agent.Process{
			User: &agent.User{}, Args: args, Env: []string{"PATH=/bin"}, Cwd: "/", NoNewPrivileges: true,
			Capabilities: &agent.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		},
		Root: &agent.Root{Path: root},
		Mounts: []*agent.Mount{
			{Destination: "/proc", Source: "proc", Type: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Source: "tmpfs", Type: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Source: "devpts", Type: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/dev/shm", Source: GuestDir + "/sandbox/shm", Type: "bind", Options: []string{"rbind"}},
		},
		Linux: &agent.Linux{
			Resources:   &agent.LinuxResources{CPU: &agent.LinuxCPU{Shares: 1024}},
			CgroupsPath: a.Cgroup + "/" + id,
			Namespaces:  []*agent.LinuxNamespace{{Type: "ipc"}, {Type: "uts"}, {Type: "mount"}},
			MaskedPaths: []string{"/proc/kcore"},
		},
	}}, nil
}

// Launch creates and starts what a request asks for.
func (a *Agent) Launch(ctx context.Context, req *agent.CreateContainerRequest) error {
	if _, err := a.CreateContainer(ctx, req); err != nil {
		return fmt.Errorf("create %s: %w", req.ContainerId, err)
	}
	if _, err := a.StartContainer(ctx, &agent.StartContainerRequest{ContainerId: req.ContainerId}); err != nil {
		return fmt.Errorf("start %s: %w", req.ContainerId, err)
	}
	return nil
}

// Run creates and starts a container.
func (a *Agent) Run(ctx context.Context, id string, args ...string) error {
	req, err := a.Request(id, args...)
	if err != nil {
		return err
	}
	return a.Launch(ctx, req)
}

// Exec starts a further process in a container.
func (a *Agent) Exec(ctx context.Context, id, execID string, args ...string) error {
	_, err := a.ExecProcess(ctx, &agent.ExecProcessRequest{ContainerId: id, ExecId: execID, Process: &agent.Process{
		User: &agent.User{}, Args: args, Env: []string{"PATH=/bin"}, Cwd: "/",
	}})
	return err
}

// Result is what a process said, and how it ended.
type Result struct {
	Out, Err string
	Status   int
}

// Finish reads both streams of a process to their ends and waits for it, as the
// runtime does (kata-agent 2.4).
func (a *Agent) Finish(ctx context.Context, id, execID string) (r Result, err error) {
	errs := make(chan error, 1)
	go func() {
		var err error
		r.Err, err = drain(ctx, a.ReadStderr, id, execID)
		errs <- err
	}()
	r.Out, err = drain(ctx, a.ReadStdout, id, execID)
	if err = errors.Join(err, <-errs); err != nil {
		return r, err
	}
	w, err := a.WaitProcess(ctx, &agent.WaitProcessRequest{ContainerId: id, ExecId: execID})
	r.Status = int(w.GetStatus())
	return r, err
}

type readStream = func(context.Context, *agent.ReadStreamRequest) (*agent.ReadStreamResponse, error)

// readSize is what runtimes ask for (kata-agent 2.3).
const readSize = 32768

func drain(ctx context.Context, read readStream, id, execID string) (string, error) {
	var all bytes.Buffer
	for {
		resp, err := read(ctx, &agent.ReadStreamRequest{ContainerId: id, ExecId: execID, Len: readSize})
		if err != nil || len(resp.GetData()) == 0 {
			return all.String(), err
		}
		all.Write(resp.Data)
	}
}

// ReadUntil reads standard output until it contains the text.
func (a *Agent) ReadUntil(ctx context.Context, id, execID, text string) (string, error) {
	var all strings.Builder
	for !strings.Contains(all.String(), text) {
		resp, err := a.ReadStdout(ctx, &agent.ReadStreamRequest{ContainerId: id, ExecId: execID, Len: readSize})
		if err != nil {
			return all.String(), err
		}
		if len(resp.GetData()) == 0 {
			return all.String(), fmt.Errorf("the output ended without %q: %q", text, all.String())
		}
		all.Write(resp.Data)
	}
	return all.String(), nil
}

// Do runs a process in a container to its end.
func (a *Agent) Do(ctx context.Context, id, execID string, args ...string) (Result, error) {
	if err := a.Exec(ctx, id, execID, args...); err != nil {
		return Result{}, err
	}
	return a.Finish(ctx, id, execID)
}

// Remove kills a container and removes it, as the shim does on stop
// (kata-agent 2.5). It returns the status that the container ended with.
func (a *Agent) Remove(ctx context.Context, id string) (int, error) {
	_, err := a.SignalProcess(ctx, &agent.SignalProcessRequest{ContainerId: id, Signal: 9})
	if err != nil && !strings.Contains(err.Error(), "ESRCH: No such process") {
		return 0, err
	}
	w, err := a.WaitProcess(ctx, &agent.WaitProcessRequest{ContainerId: id})
	if err != nil {
		return 0, err
	}
	if _, err := a.RemoveContainer(ctx, &agent.RemoveContainerRequest{ContainerId: id}); err != nil {
		return 0, err
	}
	_, err = a.RemoveStaleVirtiofsShareMounts(ctx, &agent.RemoveStaleVirtiofsShareMountsRequest{})
	return int(w.GetStatus()), err
}
