package kata

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

// sharing is a container that sees what app1 has at a path.
func (p *pod) sharing(id, source string, args ...string) *agent.CreateContainerRequest {
	req := p.request(id, args...)
	req.SharedMounts = []*agent.SharedMount{{Name: "s", SrcCtr: "app1", SrcPath: source, DstCtr: id, DstPath: "/theirs"}}
	return req
}

// lending runs app1, which waits until it is told to end, with a tmpfs of its own.
func lending(t *testing.T) *pod {
	t.Helper()
	p := newSandbox(t)
	req := p.request("app1", "/bin/sh", "-c", "echo -n hello >/own/file; ln -s /own /way; ln -s /proc/1/root /out; echo ready; sleep 1000")
	req.OCI.Mounts = append(req.OCI.Mounts, &agent.Mount{Destination: "/own", Type: "tmpfs", Source: "tmpfs"})
	p.create(req)
	p.start("app1")
	p.readUntil("app1", "", "ready")
	return p
}

// A container sees a directory of another, a file, and what lies behind a link of
// the other's own.
func TestSharedMounts(t *testing.T) {
	t.Parallel()
	p := lending(t)
	for id, at := range map[string][2]string{"dir": {"/own", "/theirs/file"}, "file": {"/own/file", "/theirs"}, "link": {"/way", "/theirs/file"}} {
		p.create(p.sharing(id, at[0], "/bin/cat", at[1]))
		p.start(id)
		if got := p.output(id, ""); got != "hello" {
			t.Errorf("%s: %q; %s", id, got, p.readAll(p.client.ReadStderr, id, ""))
		}
		p.remove(id)
	}
	p.create(p.sharing("app2", "/own", "/bin/cat", "/theirs/file"))
	p.remove("app1") // what was shared stays
	p.start("app2")
	if got := p.output("app2", ""); got != "hello" {
		t.Errorf("after its owner had gone: %q", got)
	}
	p.remove("app2")
}

// What is mounted below a directory that is shared has no devices and no
// privileged programs there either.
func TestSharedMountsBelow(t *testing.T) {
	t.Parallel()
	p := newSandbox(t)
	req := p.request("app1", "/bin/sh", "-c", "echo ready; sleep 1000")
	for _, at := range []string{"/own", "/own/below"} {
		req.OCI.Mounts = append(req.OCI.Mounts, &agent.Mount{Destination: at, Type: "tmpfs", Source: "tmpfs"})
	}
	p.create(req)
	p.start("app1")
	p.readUntil("app1", "", "ready")
	p.create(p.sharing("app2", "/own", "/bin/cat", "/proc/self/mountinfo"))
	p.start("app2")
	seen := 0
	for line := range strings.Lines(p.output("app2", "")) {
		if f := strings.Fields(line); len(f) > 5 && strings.HasPrefix(f[4], "/theirs") {
			seen++
			if !strings.Contains(f[5], "nosuid") || !strings.Contains(f[5], "nodev") {
				t.Errorf("%s is mounted %s", f[4], f[5])
			}
		}
	}
	if seen != 2 {
		t.Errorf("%d mounts are shared, want 2", seen)
	}
	p.remove("app2")
	p.remove("app1")
}

// Nothing of the guest's can be had that way, and nothing is left of what failed.
func TestSharedMountsRefused(t *testing.T) {
	t.Parallel()
	p := lending(t)
	type mount = *agent.SharedMount
	for name, change := range map[string]func(m mount){
		"of nobody":         func(m mount) { m.SrcCtr = "app9" },
		"of no name":        func(m mount) { m.SrcCtr = "" },
		"of itself":         func(m mount) { m.SrcCtr = "app2" },
		"for another":       func(m mount) { m.DstCtr = "app1" },
		"for nobody":        func(m mount) { m.DstCtr = "" },
		"not there":         func(m mount) { m.SrcPath = "/none" },
		"not absolute":      func(m mount) { m.SrcPath = "own" },
		"out of the root":   func(m mount) { m.SrcPath = "/../../.." + p.dir },
		"a magic link":      func(m mount) { m.SrcPath = "/out/etc" },
		"over the root":     func(m mount) { m.DstPath = "/" },
		"to nowhere":        func(m mount) { m.DstPath = "theirs" },
		"to above the root": func(m mount) { m.DstPath = "/../theirs" },
	} {
		req := p.sharing("app2", "/own", "/bin/cat", "/theirs/file")
		good := &agent.SharedMount{Name: "first", SrcCtr: "app1", SrcPath: "/own", DstCtr: "app2", DstPath: "/first"}
		change(req.SharedMounts[0])
		req.SharedMounts = append([]*agent.SharedMount{good}, req.SharedMounts...)
		_, err := p.client.CreateContainer(t.Context(), req)
		t.Log(name, err)
		wantCode(t, err, codes.InvalidArgument)
		if left := mountsUnder(t, filepath.Join(p.dir, "app2")); len(left) > 0 {
			t.Errorf("%s: left %v", name, left)
		}
		if _, err := os.Stat(filepath.Join(p.dir, "app2")); err == nil {
			t.Errorf("%s: the bundle is left", name)
		}
	}
	req := p.request("app2", "/bin/cat", "/theirs/file")
	for range maxShared + 1 {
		req.SharedMounts = append(req.SharedMounts, &agent.SharedMount{})
	}
	_, err := p.client.CreateContainer(t.Context(), req)
	wantCode(t, err, codes.InvalidArgument)
	if !strings.Contains(err.Error(), "shared") {
		t.Error(err)
	}
	p.remove("app1")
}
