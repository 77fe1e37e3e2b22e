package kata_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/tests/internal/barepod"
)

const (
	pauseID = "pause0000"
	appID   = "app000000"
	sideID  = "side00000"

	shared = barepod.GuestDir + "/shared/containers/"
)

// A pod from its sandbox to its end, as a kubelet has it made: with the manners
// of the Go runtime and of the Rust one, on each OCI runtime.
func TestWholePod(t *testing.T) {
	for _, runtime := range []string{"runc", "crun"} {
		for _, rust := range []bool{false, true} {
			name := runtime + ", Go runtime"
			if rust {
				name = runtime + ", Rust runtime"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				p := &pod{t: t, shim: shim{start(t, barepod.Config{Runtime: runtime}), rust}}
				p.sandbox()
				p.volumes()
				p.containers()
				p.logs()
				p.probes()
				p.shell()
				p.rotation()
				p.secrets()
				p.lastWords()
				p.outOfMemory()
				p.restart()
				p.destroy()
			})
		}
	}
}

type pod struct {
	shim
	t *testing.T
}

func (p *pod) sandbox() {
	// The Go runtime asks whether the agent answers before anything else; the
	// Rust one does not. Both ask for details after the sandbox.
	ok(p.t, p.Sandbox(p.t.Context(), false))
	details, err := p.GetGuestDetails(p.t.Context(), &agent.GuestDetailsRequest{MemBlockSize: true, MemHotplugProbe: true})
	ok(p.t, err)
	if details.AgentDetails.GetVersion() == "" {
		p.t.Errorf("details %v", details)
	}
	p.copy(pauseID+"-0123456789abcdef-resolv.conf", unix.S_IFREG|0o644, "nameserver 10.0.0.10\n")
	root := barepod.GuestDir + "/" + pauseID + "/rootfs"
	req := p.request(p.t, pauseID, "/pause")
	req.OCI.Root = &agent.Root{Path: root, Readonly: true}
	req.OCI.Mounts = req.OCI.Mounts[:2]
	req.Storages = []*agent.Storage{{
		Driver: "image_guest_pull", Source: "pause", Fstype: "overlay", MountPoint: root,
		DriverOptions: []string{`image_guest_pull={"metadata":{"io.kubernetes.cri.container-type":"sandbox"}}`},
	}}
	ok(p.t, p.Launch(p.t.Context(), req))
}

// copy sends a file, a directory or a link as the runtimes do.
func (p *pod) copy(name string, mode uint32, content string) {
	p.t.Helper()
	size := int64(len(content))
	if mode&unix.S_IFMT != unix.S_IFREG {
		size = 0
	}
	_, err := p.CopyFile(p.t.Context(), &agent.CopyFileRequest{
		Path: shared + name, FileMode: mode, DirMode: 0x800001E8, FileSize: size, Data: []byte(content),
	})
	ok(p.t, err)
}

// generation sends a config map's directory of one time, and makes it current.
func (p *pod) generation(dir, stamp, key, value string) {
	p.t.Helper()
	p.copy(dir+"/"+stamp, unix.S_IFDIR|0o755, "")
	p.copy(dir+"/"+stamp+"/"+key, unix.S_IFREG|0o644, value)
	p.copy(dir+"/..data", unix.S_IFLNK|0o777, stamp)
	p.copy(dir+"/"+key, unix.S_IFLNK|0o777, "..data/"+key)
}

const (
	configDir   = appID + "-aaaaaaaaaaaaaaaa-config"
	secretDir   = appID + "-bbbbbbbbbbbbbbbb-secret"
	lastWords   = appID + "-cccccccccccccccc-termination-log"
	memoryDir   = barepod.GuestDir + "/sandbox/ephemeral/cache"
	diskDir     = shared + "sandbox1/rootfs/local/scratch"
	secretValue = "a secret of Kubernetes"
)

func (p *pod) volumes() {
	p.generation(configDir, "..2026_01_01", "colour", "blue")
	p.generation(secretDir, "..2026_01_01", "password", secretValue)
	p.copy(lastWords, unix.S_IFREG|0o666, "")
}

// pairOf requests one of the two containers, which share both emptyDirs.
func (p *pod) pairOf(id string, args ...string) *agent.CreateContainerRequest {
	req := p.request(p.t, id, args...)
	req.Storages = []*agent.Storage{
		{Driver: "ephemeral", Source: "tmpfs", Fstype: "tmpfs", MountPoint: memoryDir},
		{Driver: "local", Source: "local", Fstype: "local", MountPoint: diskDir, Options: []string{"mode=0777"}},
	}
	bind := func(destination, source, kind string, options ...string) *agent.Mount {
		return &agent.Mount{Destination: destination, Source: source, Type: kind, Options: append(options, "rbind", "rprivate")}
	}
	req.OCI.Mounts = append(req.OCI.Mounts, bind("/cache", memoryDir, "bind", "rw"), bind("/scratch", diskDir, "local", "rw"))
	if id == appID {
		req.OCI.Mounts = append(req.OCI.Mounts, bind("/config", shared+configDir, "bind", "ro"),
			bind("/secret", shared+secretDir, "bind", "ro"), bind("/dev/termination-log", shared+lastWords, "bind", "rw"))
		req.OCI.Annotations = map[string]string{"io.kubernetes.container.terminationMessagePath": "/dev/termination-log"}
	}
	return req
}

func (p *pod) containers() {
	ok(p.t, p.Launch(p.t.Context(), p.pairOf(appID, "/bin/sh", "-c",
		"echo started; echo warning >&2; echo from app >/cache/word; echo from app >/scratch/word; while read line; do echo read $line; done; echo last words >/dev/termination-log; exit 3")))
	ok(p.t, p.Launch(p.t.Context(), p.pairOf(sideID, "/bin/sleep", "100000")))
}

func (p *pod) logs() {
	_, err := p.ReadUntil(p.t.Context(), appID, p.first(appID), "started\n")
	ok(p.t, err)
	resp, err := p.ReadStderr(p.t.Context(), &agent.ReadStreamRequest{ContainerId: appID, ExecId: p.first(appID), Len: 32768})
	ok(p.t, err)
	if string(resp.Data) != "warning\n" {
		p.t.Errorf("standard error %q", resp.Data)
	}
}

// do runs a process in a container and wants its output and its status.
func (p *pod) do(id, execID, out string, status int, args ...string) {
	p.t.Helper()
	got, err := p.Do(p.t.Context(), id, execID, args...)
	ok(p.t, err)
	if got.Out != out || got.Status != status {
		p.t.Errorf("%v in %s: %+v, want %q and %d", args, id, got, out, status)
	}
}

func (p *pod) probes() {
	p.do(sideID, "probe-1", "from app\n", 0, "/bin/cat", "/cache/word")
	p.do(sideID, "probe-2", "from app\n", 0, "/bin/cat", "/scratch/word")
	p.do(appID, "probe-3", "", 1, "/bin/test", "-e", "/nothing")
	p.do(appID, "config", "blue", 0, "/bin/cat", "/config/colour")
	p.do(appID, "name", "pod1\n", 0, "/bin/hostname")
	stats, err := p.StatsContainer(p.t.Context(), &agent.StatsContainerRequest{ContainerId: appID})
	ok(p.t, err)
	if stats.GetCgroupStats().GetCpuStats().GetCpuUsage().GetTotalUsage() == 0 {
		p.t.Errorf("stats %v", stats)
	}
}

// shell is an exec with a terminal, as of a person.
func (p *pod) shell() {
	ctx := p.t.Context()
	_, err := p.ExecProcess(ctx, &agent.ExecProcessRequest{ContainerId: appID, ExecId: "shell", Process: &agent.Process{
		Terminal: true, User: &agent.User{}, Args: []string{"/bin/sh"}, Env: []string{"PATH=/bin", "PS1=$ "}, Cwd: "/",
	}})
	ok(p.t, err)
	_, err = p.TtyWinResize(ctx, &agent.TtyWinResizeRequest{ContainerId: appID, ExecId: "shell", Row: 33, Column: 77})
	ok(p.t, err)
	_, err = p.WriteStdin(ctx, &agent.WriteStreamRequest{ContainerId: appID, ExecId: "shell", Data: []byte("stty size\n")})
	ok(p.t, err)
	_, err = p.ReadUntil(ctx, appID, "shell", "33 77")
	ok(p.t, err)
	_, err = p.WriteStdin(ctx, &agent.WriteStreamRequest{ContainerId: appID, ExecId: "shell", Data: []byte("exit 4\n")})
	ok(p.t, err)
	got, err := p.Finish(ctx, appID, "shell")
	if err != nil || got.Status != 4 {
		p.t.Errorf("the shell: %+v, %v", got, err)
	}
}

// rotation is a config map that changes while its container runs
// (kata-agent 2.12): the new content is seen at once, under the same name.
func (p *pod) rotation() {
	p.generation(configDir, "..2026_01_02", "colour", "green")
	p.do(appID, "rotated", "green", 0, "/bin/cat", "/config/colour")
	p.do(appID, "link", "..2026_01_02\n", 0, "/bin/readlink", "/config/..data")
}

func (p *pod) secrets() {
	p.do(appID, "secret", secretValue, 0, "/bin/cat", "/secret/password")
	p.do(appID, "readonly", "", 1, "/bin/sh", "-c", "echo x 2>/dev/null >/secret/password")
}

// lastWords ends the application by the end of its input.
func (p *pod) lastWords() {
	ctx := p.t.Context()
	_, err := p.WriteStdin(ctx, &agent.WriteStreamRequest{ContainerId: appID, ExecId: p.first(appID), Data: []byte("one\n")})
	ok(p.t, err)
	_, err = p.ReadUntil(ctx, appID, p.first(appID), "read one\n")
	ok(p.t, err)
	ok(p.t, p.closeStdin(ctx, appID, p.first(appID)))
	got, err := p.Finish(ctx, appID, p.first(appID))
	if err != nil || got.Status != 3 {
		p.t.Errorf("the application: %+v, %v", got, err)
	}
	words, err := p.GetDiagnosticData(ctx, &agent.GetDiagnosticDataRequest{LogType: "termination_log", ContainerId: appID})
	if err != nil || words.Data != "last words\n" {
		p.t.Errorf("the last words: %q, %v", words.GetData(), err)
	}
}

// outOfMemory is a container that wants more than its limit.
func (p *pod) outOfMemory() {
	req := p.request(p.t, "greedy", "/bin/sh", "-c", "x=0123456789abcdef; while true; do x=$x$x; done")
	const limit = 24 << 20
	req.OCI.Linux.Resources.Memory = &agent.LinuxMemory{Limit: limit, Swap: limit}
	ok(p.t, p.Launch(p.t.Context(), req))
	type told struct {
		id  string
		err error
	}
	event := make(chan told, 1)
	go func() {
		e, err := p.GetOOMEvent(p.t.Context(), &agent.GetOOMEventRequest{})
		event <- told{e.GetContainerId(), err}
	}()
	got, err := p.Finish(p.t.Context(), "greedy", p.first("greedy"))
	if err != nil || got.Status != 137 {
		p.t.Errorf("the greedy container: %+v, %v", got, err)
	}
	select {
	case e := <-event:
		if e.err != nil || e.id != "greedy" {
			p.t.Errorf("told of %q, %v", e.id, e.err)
		}
	case <-time.After(60 * time.Second):
		p.t.Error("nobody was told that memory ran out")
	}
	_, err = p.Remove(p.t.Context(), "greedy")
	ok(p.t, err)
}

// restart replaces the container that has ended by another with the same
// volumes, as a kubelet does.
func (p *pod) restart() {
	_, err := p.Remove(p.t.Context(), appID)
	ok(p.t, err)
	again := p.pairOf("app000001", "/bin/cat", "/cache/word")
	ok(p.t, p.Launch(p.t.Context(), again))
	got, err := p.Finish(p.t.Context(), "app000001", p.first("app000001"))
	if err != nil || got.Out != "from app\n" || got.Status != 0 {
		p.t.Errorf("the second application: %+v, %v", got, err)
	}
}

// destroy stops and removes everything; the agent ends by itself and leaves
// nothing.
func (p *pod) destroy() {
	for _, id := range []string{"app000001", sideID, pauseID} {
		if _, err := p.Remove(p.t.Context(), id); err != nil {
			p.t.Errorf("remove %s: %v", id, err)
		}
	}
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", p.PID()))
	ok(p.t, err)
	for line := range strings.Lines(string(mounts)) {
		kept := strings.Contains(line, "/sandbox/shm ") || strings.Contains(line, "/sandbox-ns/") || strings.Contains(line, "/sandbox/ephemeral/")
		if strings.Contains(line, p.State()+"/") && !kept {
			p.t.Errorf("still mounted: %s", line)
		}
	}
	_, err = p.DestroySandbox(p.t.Context(), &agent.DestroySandboxRequest{})
	ok(p.t, err)
	select {
	case <-p.Exited():
	case <-time.After(60 * time.Second):
		p.t.Fatal("the agent does not end")
	}
	left, err := filepath.Glob("/sys/fs/cgroup/*" + p.Cgroup)
	ok(p.t, err)
	if direct, err := filepath.Glob("/sys/fs/cgroup" + p.Cgroup); err != nil || len(left)+len(direct) > 0 {
		p.t.Errorf("cgroups left: %v %v, %v", left, direct, err)
	}
}
