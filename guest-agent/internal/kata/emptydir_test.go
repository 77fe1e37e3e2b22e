package kata

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/sandbox"
)

const (
	sharedFiles = sandbox.GuestDir + "/shared/containers/"
	memoryPlace = sandbox.GuestDir + "/sandbox/ephemeral/mem"
	localPlace  = sharedFiles + "s1/rootfs/local/scratch"
)

func bindMount(destination, source string) *agent.Mount {
	return &agent.Mount{Destination: destination, Source: source, Type: "bind", Options: []string{"rbind", "rprivate", "rw"}}
}

// What an init container leaves in the pod's volumes is there for the others after
// it is gone, and a container that is started again finds what it had.
func TestEmptyDirsLiveWithThePod(t *testing.T) {
	t.Parallel()
	p := newSandbox(t)
	run := func(id, script string) string {
		req := p.request(id, "/bin/sh", "-c", script)
		req.Storages = []*agent.Storage{
			{Driver: "ephemeral", Source: "tmpfs", Fstype: "tmpfs", MountPoint: memoryPlace},
			{Driver: "local", Source: "local", Fstype: "local", MountPoint: localPlace, Options: []string{"mode=0777"}},
		}
		req.OCI.Mounts = append(req.OCI.Mounts, bindMount("/mem", memoryPlace), bindMount("/scratch", localPlace))
		req.OCI.Mounts[len(req.OCI.Mounts)-1].Type = "local"
		p.create(req)
		p.start(id)
		out := p.output(id, "")
		p.wait(id, "")
		p.remove(id)
		return out
	}
	run("init", "echo -n in >/mem/word; echo -n side >/scratch/word")
	for _, id := range []string{"app1", "app2"} {
		if got := run(id, "cat /mem/word /scratch/word"); got != "inside" {
			t.Errorf("%s finds %q", id, got)
		}
	}
	// A container that could not be made leaves nothing.
	const other = sandbox.GuestDir + "/sandbox/ephemeral/other"
	req := p.request("bad1", "/bin/ls")
	req.Storages = []*agent.Storage{{Driver: "ephemeral", Source: "tmpfs", Fstype: "tmpfs", MountPoint: other}}
	req.OCI.Process.Cwd = "/proc/self/fd/7"
	_, err := p.client.CreateContainer(t.Context(), req)
	wantCode(t, err, codes.InvalidArgument)
	for _, m := range mountsUnder(t, p.dir) {
		if strings.HasSuffix(m, "/other") {
			t.Error("a volume of a container that was never made is kept")
		}
	}
}

// What a volume is mounted with holds in a container too, also where its mount there
// has other options: a program on it is not privileged, and a device opens nothing.
func TestMountsKeepWhatVolumesHave(t *testing.T) {
	t.Parallel()
	p := newSandbox(t)
	req := p.request("app1", "/bin/sh", "-c", "cat /proc/self/mounts")
	req.Storages = []*agent.Storage{{Driver: "ephemeral", Source: "tmpfs", Fstype: "tmpfs", MountPoint: memoryPlace, Options: []string{"nosuid", "nodev", "noexec"}}}
	plain, readOnly, loose := bindMount("/plain", memoryPlace), bindMount("/readonly", memoryPlace), bindMount("/loose", memoryPlace)
	readOnly.Options = []string{"rbind", "rprivate", "ro"}
	loose.Options = []string{"rbind", "rprivate", "rw", "suid", "dev", "exec"}
	req.OCI.Mounts = append(req.OCI.Mounts, plain, readOnly, loose)
	p.create(req)
	p.start("app1")
	out := p.output("app1", "")
	for _, at := range []string{"/plain", "/readonly", "/loose"} {
		_, row, there := strings.Cut(out, " "+at+" tmpfs ")
		row, _, _ = strings.Cut(row, " ")
		for _, flag := range []string{"nosuid", "nodev", "noexec"} {
			if !there || !strings.Contains(","+row+",", ","+flag+",") {
				t.Errorf("%s lacks %s: %q", at, flag, row)
			}
		}
	}
	if !strings.Contains(out, " /readonly tmpfs ro,") {
		t.Errorf("a read-only mount is not: %s", out)
	}
}

// partedPod mounts parts of its volumes, and the whole of one.
const partedPod = `
apiVersion: v1
kind: Pod
metadata: {name: pod1}
spec:
  automountServiceAccountToken: false
  securityContext: {fsGroup: 2000}
  initContainers:
  - name: init
    image: registry.example/app:1
    command: [/bin/sh, -c, "echo -n kept >/whole/tmp/word; echo -n text >/whole/file"]
    volumeMounts:
    - {name: scratch, mountPath: /whole}
    - {name: scratch, mountPath: /deep, subPath: tmp/a/b}
  containers:
  - name: app
    image: registry.example/app:1
    env: [{name: WHERE, value: tmp}]
    command: [/bin/sh, -c, "cat /tmp/word /file; ls /tmp; /bin/busybox stat -c %g:%a /tmp/a/b; echo x >/ro/x || echo read-only; cd /mem && echo memory"]
    volumeMounts:
    - {name: scratch, mountPath: /tmp, subPathExpr: $(WHERE)}
    - {name: scratch, mountPath: /file, subPath: file}
    - {name: scratch, mountPath: /ro, subPath: tmp/a, readOnly: true}
    - {name: mem, mountPath: /mem, subPath: ./m}
  volumes:
  - {name: scratch, emptyDir: {}}
  - {name: mem, emptyDir: {medium: Memory}}
`

// A part of an emptyDir is the guest's own, whatever the host has copied to where
// runtimes take it from; containers that share the volume share its parts.
func TestPartsOfEmptyDirs(t *testing.T) {
	t.Parallel()
	for _, runtime := range []string{"runc", "crun"} {
		t.Run(runtime, func(t *testing.T) {
			needsRuntime(t, runtime)
			reg := &images{t: t}
			p := newSandbox(t, byText(t, generated(t, partedPod, "registry.example/app:1")), func(c *Config) { c.Images, c.Runtime = reg, runtime })
			init := pullRequest(p, "init1", "/bin/sh", "-c", "echo -n kept >/whole/tmp/word; echo -n text >/whole/file")
			init.OCI.Annotations = map[string]string{containerName: "init"}
			init.Storages = append(init.Storages, &agent.Storage{Driver: "local", Source: "local", Fstype: "local", MountPoint: localPlace})
			init.OCI.Mounts = append(init.OCI.Mounts, bindMount("/whole", localPlace), bindMount("/deep", copiedTo(p, "init1", "deep")))
			p.create(init)
			p.start("init1")
			if code := p.wait("init1", ""); code != 0 {
				t.Fatalf("status %d: %s", code, p.readAll(p.client.ReadStderr, "init1", ""))
			}
			p.remove("init1")
			p.create(partedApp(p))
			p.start("app1")
			if got, want := p.output("app1", ""), "kepttexta\nword\n2000:2777\nread-only\nmemory\n"; got != want {
				t.Errorf("it says %q, want %q; %s", got, want, p.readAll(p.client.ReadStderr, "app1", ""))
			}
			p.remove("app1")
			for name, change := range map[string]func(*agent.CreateContainerRequest){
				"a part that is writable": func(r *agent.CreateContainerRequest) { mountAt(r, "/ro").Options = []string{"rbind", "rw"} },
				"a part left out":         func(r *agent.CreateContainerRequest) { mountAt(r, "/ro").Destination = "/tmp" },
				"another filesystem":      func(r *agent.CreateContainerRequest) { mountAt(r, "/ro").Type = "tmpfs" },
			} {
				req := partedApp(p)
				change(req)
				_, err := p.client.CreateContainer(t.Context(), req)
				t.Log(name)
				wantCode(t, err, codes.PermissionDenied)
			}
		})
	}
}

func mountAt(r *agent.CreateContainerRequest, destination string) *agent.Mount {
	for _, m := range r.OCI.Mounts {
		if m.Destination == destination {
			return m
		}
	}
	return &agent.Mount{}
}

// copiedTo has the host copy a directory with a file of its own to where a runtime
// takes a part from.
func copiedTo(p *pod, id, name string) string {
	p.t.Helper()
	place := sharedFiles + id + "-0123456789abcdef-" + name
	for _, c := range []*agent.CopyFileRequest{
		{Path: place, FileMode: unix.S_IFDIR | 0o755, DirMode: 0o755},
		{Path: place + "/of-the-host", FileMode: unix.S_IFREG | 0o644, FileSize: 1, Data: []byte("x"), DirMode: 0o755},
	} {
		if _, err := p.client.CopyFile(p.t.Context(), c); err != nil {
			p.t.Fatal(err)
		}
	}
	return place
}

func partedApp(p *pod) *agent.CreateContainerRequest {
	app := pullRequest(p, "app1", "/bin/sh", "-c",
		"cat /tmp/word /file; ls /tmp; /bin/busybox stat -c %g:%a /tmp/a/b; echo x >/ro/x || echo read-only; cd /mem && echo memory")
	app.OCI.Annotations = map[string]string{containerName: "app"}
	app.OCI.Process.Env = append(app.OCI.Process.Env, "WHERE=tmp")
	ro := bindMount("/ro", copiedTo(p, "app1", "ro"))
	ro.Options = []string{"rbind", "rprivate", "ro"}
	app.OCI.Mounts = append(app.OCI.Mounts, bindMount("/tmp", copiedTo(p, "app1", "tmp")), bindMount("/file", copiedTo(p, "app1", "file")),
		ro, bindMount("/mem", copiedTo(p, "app1", "mem")))
	return app
}
