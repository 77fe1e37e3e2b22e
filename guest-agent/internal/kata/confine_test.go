package kata

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

// escapes are specs that would lead a container out of its sandbox.
var escapes = map[string]func(*agent.Spec){
	"the runtime's seccomp program from a file": func(s *agent.Spec) { s.Annotations = map[string]string{"run.oci.seccomp_bpf_file": "/x"} },
	"another handler of the runtime":            func(s *agent.Spec) { s.Annotations = map[string]string{"run.oci.handler": "krun"} },
	"properties of systemd":                     func(s *agent.Spec) { s.Annotations = map[string]string{"org.systemd.property.ExecStartPost": "x"} },
	"a directory of the runtime's process":      func(s *agent.Spec) { s.Process.Cwd = "/proc/self/fd/7" },
	"the same with dots":                        func(s *agent.Spec) { s.Process.Cwd = "/x/..//proc/./self/fd/7/../.." },
	"the same by another name":                  func(s *agent.Spec) { s.Process.Cwd = "/dev/fd/8" },
	"a root that spreads":                       func(s *agent.Spec) { s.Linux.RootfsPropagation = "rshared" },
	"a mount that spreads":                      func(s *agent.Spec) { s.Mounts[0].Options = append(s.Mounts[0].Options, "rshared") },
	"a mount at a relative place":               func(s *agent.Spec) { s.Mounts[0].Destination = "../../etc" },
	"the network of a process":                  inNetwork("/proc/1/ns/net"),
	"a network by dots":                         inNetwork("/run/netns/../../proc/1/ns/net"),
	"a network of no name":                      inNetwork("/run/netns/"),
	"a device outside":                          deviceAt("/dev/../../etc/x"),
	"a device at a relative place":              deviceAt("etc/x"),
	"the kernel's core pattern":                 parameter("kernel.core_pattern"),
	"the kernel's modules":                      parameter("kernel.modprobe"),
	"a parameter by slashes":                    parameter("kernel/core_pattern"),
	"a parameter by slashes of the network":     parameter("net./../kernel/core_pattern"),
	"the guest's name":                          parameter("kernel.hostname"),
	"memory of all":                             parameter("vm.overcommit_memory"),
}

func inNetwork(path string) func(*agent.Spec) {
	return func(s *agent.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, &agent.LinuxNamespace{Type: "network", Path: path})
	}
}

func deviceAt(path string) func(*agent.Spec) {
	return func(s *agent.Spec) {
		s.Linux.Devices = []*agent.LinuxDevice{{Path: path, Type: "c", Major: 1, Minor: 3}}
	}
}

func parameter(name string) func(*agent.Spec) {
	return func(s *agent.Spec) { s.Linux.Sysctl = map[string]string{name: "x"} }
}

// Each escape is refused in time, with a code, and nothing is left of it.
func TestEscapes(t *testing.T) {
	t.Parallel()
	p := newSandbox(t)
	for name, change := range escapes {
		req := p.request("app1", "/bin/sh")
		change(req.OCI)
		_, err := p.client.CreateContainer(t.Context(), req)
		wantCode(t, err, codes.InvalidArgument)
		if err == nil || strings.Contains(err.Error(), "create container") {
			t.Errorf("%s: at most the OCI runtime refused it: %v", name, err)
		}
		if left, _ := filepath.Glob(p.dir + "/app1*"); len(left) > 0 {
			t.Errorf("%s: left %v", name, left)
		}
	}
	p.run("app1", "/bin/sleep", "1000")
	_, err := p.client.ExecProcess(t.Context(), &agent.ExecProcessRequest{
		ContainerId: "app1", ExecId: "x", Process: &agent.Process{Args: []string{"/bin/sh"}, Cwd: "/proc/self/fd/7"},
	})
	wantCode(t, err, codes.InvalidArgument)
}

// Specs that look alike and are harmless pass.
func TestConfineLetsThrough(t *testing.T) {
	for name, change := range map[string]func(*agent.Spec){
		"nothing":               func(*agent.Spec) {},
		"Kubernetes' own notes": func(s *agent.Spec) { s.Annotations = map[string]string{"io.kubernetes.cri.sandbox-id": "x"} },
		"a slave":               func(s *agent.Spec) { s.Linux.RootfsPropagation = "rslave" },
		"a directory":           func(s *agent.Spec) { s.Process.Cwd = "/processes" },
		"a named network":       inNetwork("/run/netns/podns"),
		"a device":              deviceAt("/dev/fuse"),
		"shared memory":         parameter("kernel.shm_rmid_forced"),
		"message queues":        parameter("fs.mqueue.msg_max"),
		"ports":                 parameter("net.ipv4.ip_unprivileged_port_start"),
		"an interface":          parameter("net.ipv4.conf.eth0.rp_filter"),
	} {
		s := &agent.Spec{Process: &agent.Process{Cwd: "/"}, Mounts: []*agent.Mount{{Destination: "/proc"}}, Linux: &agent.Linux{}}
		change(s)
		if err := confine(s); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := confine(nil); err != nil { // what lacks is refused elsewhere
		t.Error(err)
	}
}

// Containers of a pod share the guest's network, whose parameters the runtime
// would not set for them; their own it does.
func TestKernelParameters(t *testing.T) {
	t.Parallel()
	sys := t.TempDir()
	port := filepath.Join(sys, "net/ipv4/ip_unprivileged_port_start")
	if err := os.MkdirAll(filepath.Dir(port), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(port, []byte("1024"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := newSandbox(t, func(c *Config) { c.KernelParameters = sys })
	req := p.request("app1", "/bin/cat", "/proc/sys/kernel/shm_rmid_forced")
	req.OCI.Linux.Sysctl = map[string]string{"net.ipv4.ip_unprivileged_port_start": "0", "kernel.shm_rmid_forced": "1"}
	p.create(req)
	p.start("app1")
	if got := p.output("app1", ""); got != "1\n" {
		t.Errorf("the container reads %q", got)
	}
	if raw, err := os.ReadFile(port); err != nil || !strings.HasPrefix(string(raw), "0") {
		t.Errorf("the network has %q, %v", raw, err)
	}
	req = p.request("app2", "/bin/sh")
	req.OCI.Linux.Sysctl = map[string]string{"net.ipv4.absent": "0"}
	_, err := p.client.CreateContainer(t.Context(), req)
	wantCode(t, err, codes.InvalidArgument)
	if _, err := os.Stat(filepath.Join(p.dir, "app2")); err == nil {
		t.Error("a container that was refused left its bundle")
	}
}
