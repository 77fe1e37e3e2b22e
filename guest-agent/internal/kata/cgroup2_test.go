package kata

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

const cgroupRoot = "/sys/fs/cgroup"

// On the hierarchy of version 2, which a guest has and many build machines do
// not, with each OCI runtime: what a container uses is told, limits change,
// freezing freezes, running out of memory is told, and SIGKILL reaches all of a
// container that is frozen. make test-kernel runs this on Debian's kernel.
func TestCgroup2(t *testing.T) {
	var fs unix.Statfs_t
	if err := unix.Statfs(cgroupRoot, &fs); err != nil || fs.Type != unix.CGROUP2_SUPER_MAGIC {
		t.Skip("no cgroup hierarchy of version 2 here: make test-kernel boots a kernel with one")
	}
	for _, runtime := range []string{"runc", "crun"} {
		t.Run(runtime, func(t *testing.T) {
			if _, err := exec.LookPath(runtime); err != nil {
				t.Skipf("needs %s", runtime)
			}
			p := newSandbox(t, func(c *Config) { c.Runtime = runtime })
			usageOfVersion2(t, p)
			frozenOnVersion2(t, p)
			outOfMemoryOnVersion2(t, p)
		})
	}
}

func limitedTo(limit int64) *agent.LinuxMemory { return &agent.LinuxMemory{Limit: limit, Swap: limit} }

func cgroupFile(t *testing.T, req *agent.CreateContainerRequest, name string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(cgroupRoot, req.OCI.Linux.CgroupsPath, name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(raw))
}

func usageOfVersion2(t *testing.T, p *pod) {
	req := p.request("busy", "/bin/sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo done; cat")
	const limit = 64 << 20
	req.OCI.Linux.Resources.Memory, req.OCI.Linux.Resources.Pids = limitedTo(limit), &agent.LinuxPids{Limit: 77}
	p.create(req)
	p.start("busy")
	p.readUntil("busy", "", "done\n")
	stats, err := p.client.StatsContainer(t.Context(), &agent.StatsContainerRequest{ContainerId: "busy"})
	if err != nil {
		t.Fatal(err)
	}
	s := stats.CgroupStats
	if s.CpuStats.CpuUsage.TotalUsage < uint64(time.Millisecond) || s.CpuStats.CpuUsage.UsageInUsermode == 0 {
		t.Errorf("processors: %v", s.CpuStats)
	}
	if u := s.MemoryStats.Usage; u.Usage == 0 || u.Limit != limit || u.MaxUsage != 0 && u.MaxUsage < u.Usage {
		t.Errorf("memory: %v", u)
	}
	if len(s.MemoryStats.Stats) == 0 || s.PidsStats.Current == 0 || s.PidsStats.Limit != 77 {
		t.Errorf("memory %v, processes %v", s.MemoryStats.Stats, s.PidsStats)
	}
	if _, err := p.client.UpdateContainer(t.Context(), &agent.UpdateContainerRequest{ContainerId: "busy", Resources: &agent.LinuxResources{Memory: limitedTo(2 * limit)}}); err != nil {
		t.Errorf("update: %v", err)
	}
	if got := cgroupFile(t, req, "memory.max"); got != fmt.Sprint(2*limit) {
		t.Errorf("memory.max is %s", got)
	}
	if err := p.signal("busy", "", uint32(unix.SIGKILL)); err != nil {
		t.Error(err)
	}
	if code := p.wait("busy", ""); code != 137 {
		t.Errorf("exit code %d", code)
	}
	p.remove("busy")
	if _, err := os.Stat(filepath.Join(cgroupRoot, req.OCI.Linux.CgroupsPath)); !os.IsNotExist(err) {
		t.Errorf("the cgroup is left: %v", err)
	}
}

func frozenOnVersion2(t *testing.T, p *pod) {
	req := p.request("cold", "/bin/sh", "-c", "sleep 100000 & sleep 100000 & echo started; cat")
	p.create(req)
	p.start("cold")
	p.readUntil("cold", "", "started\n")
	ctx := t.Context()
	if _, err := p.client.PauseContainer(ctx, &agent.PauseContainerRequest{ContainerId: "cold"}); err != nil {
		t.Fatal(err)
	}
	if got := cgroupFile(t, req, "cgroup.events"); !strings.Contains(got, "frozen 1") {
		t.Errorf("after a pause: %s", got)
	}
	if _, err := p.client.ResumeContainer(ctx, &agent.ResumeContainerRequest{ContainerId: "cold"}); err != nil {
		t.Fatal(err)
	}
	if got := cgroupFile(t, req, "cgroup.events"); !strings.Contains(got, "frozen 0") {
		t.Errorf("after a resume: %s", got)
	}
	if _, err := p.client.PauseContainer(ctx, &agent.PauseContainerRequest{ContainerId: "cold"}); err != nil {
		t.Fatal(err)
	}
	if err := p.signal("cold", "", uint32(unix.SIGKILL)); err != nil {
		t.Error(err)
	}
	if code := p.wait("cold", ""); code != 137 {
		t.Errorf("exit code %d of what was frozen", code)
	}
	p.remove("cold") // with its children, or the cgroup could not go
	if _, err := os.Stat(filepath.Join(cgroupRoot, req.OCI.Linux.CgroupsPath)); !os.IsNotExist(err) {
		t.Errorf("the cgroup is left: %v", err)
	}
}

func outOfMemoryOnVersion2(t *testing.T, p *pod) {
	req := p.request("greedy", "/bin/sh", "-c", "x=0123456789abcdef; while true; do x=$x$x; done")
	req.OCI.Linux.Resources.Memory = limitedTo(16 << 20)
	p.create(req)
	p.start("greedy")
	ctx, cancel := context.WithTimeout(t.Context(), 120*time.Second)
	defer cancel()
	event, err := p.client.GetOOMEvent(ctx, &agent.GetOOMEventRequest{})
	if err != nil || event.ContainerId != "greedy" {
		t.Fatalf("%v, %v", event, err)
	}
	if code := p.wait("greedy", ""); code != 137 {
		t.Errorf("exit code %d", code)
	}
	p.remove("greedy")
}
