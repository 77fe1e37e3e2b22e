package container

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/containerd/go-runc"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/cgroup"
)

func files(t *testing.T, content map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range content {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestUsageV2(t *testing.T) {
	dir := files(t, map[string]string{
		"cpu.stat":            "usage_usec 5000\nuser_usec 3000\nsystem_usec 2000\nnr_periods 9\nnr_throttled 4\nthrottled_usec 70\n",
		"memory.current":      "4096\n",
		"memory.max":          "max\n",
		"memory.peak":         "8192\n",
		"memory.stat":         "anon 1\nfile 2\nkernel 3\n",
		"memory.events":       "low 0\nmax 5\noom_kill 1\n",
		"memory.swap.current": "100\n",
		"memory.swap.max":     "max\n",
		"pids.current":        "3\n",
		"pids.max":            "max\n",
		"io.stat":             "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n\nnonsense\n",
		"hugetlb.2MB.current": "6\n",
	})
	got := usage(cgroup.Dirs{cgroup.Unified: dir})
	const most = 1<<64 - 1
	want := &runc.Stats{
		Cpu: runc.Cpu{Usage: runc.CpuUsage{Total: 5_000_000, User: 3_000_000, Kernel: 2_000_000}, Throttling: runc.Throttling{Periods: 9, ThrottledPeriods: 4, ThrottledTime: 70_000}},
		Memory: runc.Memory{
			Cache: 2, Usage: runc.MemoryEntry{Limit: most, Usage: 4096, Max: 8192, Failcnt: 5}, Swap: runc.MemoryEntry{Limit: most, Usage: 4196},
			Kernel: runc.MemoryEntry{Usage: 3}, Raw: map[string]uint64{"anon": 1, "file": 2, "kernel": 3},
		},
		Pids: runc.Pids{Current: 3},
		Blkio: runc.Blkio{
			IoServiceBytesRecursive: []runc.BlkioEntry{{Major: 8, Op: "Read", Value: 10}, {Major: 8, Op: "Write", Value: 20}},
			IoServicedRecursive:     []runc.BlkioEntry{{Major: 8, Op: "Read", Value: 1}, {Major: 8, Op: "Write", Value: 2}},
		},
		Hugetlb: map[string]runc.Hugetlb{"2MB": {Usage: 6}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
}

func TestUsageV1(t *testing.T) {
	memory := files(t, map[string]string{
		"memory.limit_in_bytes": "1000\n", "memory.usage_in_bytes": "200\n", "memory.max_usage_in_bytes": "300\n", "memory.failcnt": "1\n",
		"memory.memsw.usage_in_bytes": "250\n", "memory.stat": "cache 50\nrss 60\n",
	})
	cpu := files(t, map[string]string{
		"cpuacct.usage": "77\n", "cpuacct.usage_percpu": "70 7 \n", "cpuacct.stat": "user 2\nsystem 1\n",
		"cpu.stat": "nr_periods 5\nnr_throttled 4\nthrottled_time 3\n",
	})
	blkio := files(t, map[string]string{"blkio.throttle.io_service_bytes_recursive": "8:16 Read 4096\n8:16 Total 4096\nTotal 4096\n"})
	got := usage(cgroup.Dirs{"memory": memory, "cpu": cpu, "cpuacct": cpu, "blkio": blkio, "pids": files(t, map[string]string{"pids.current": "1\n", "pids.max": "20\n"})})
	switch {
	case got.Cpu.Usage.Total != 77 || len(got.Cpu.Usage.Percpu) != 2 || got.Cpu.Usage.User != 20_000_000 || got.Cpu.Throttling.ThrottledTime != 3:
		t.Errorf("cpu %+v", got.Cpu)
	case got.Memory.Usage != runc.MemoryEntry{Limit: 1000, Usage: 200, Max: 300, Failcnt: 1} || got.Memory.Cache != 50 || got.Memory.Swap.Usage != 250:
		t.Errorf("memory %+v", got.Memory)
	case got.Pids != runc.Pids{Current: 1, Limit: 20}:
		t.Errorf("pids %+v", got.Pids)
	case len(got.Blkio.IoServiceBytesRecursive) != 2 || got.Blkio.IoServiceBytesRecursive[0] != runc.BlkioEntry{Major: 8, Minor: 16, Op: "Read", Value: 4096}:
		t.Errorf("block devices %+v", got.Blkio)
	}
	if none := usage(nil); none.Memory.Usage.Usage != 0 || none.Pids.Current != 0 {
		t.Errorf("out of nothing %+v", none)
	}
}
