package container

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/go-runc"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/cgroup"
)

// usage reads what a cgroup uses: every OCI runtime would start a program for
// it, and crun has none. What a kernel does not tell is zero.
func usage(of cgroup.Dirs) *runc.Stats {
	s := &runc.Stats{}
	if dir, v2 := of.Of("cpuacct"); v2 {
		s.Cpu = cpuV2(dir)
	} else {
		s.Cpu.Usage = cpuV1(dir)
		quota, _ := of.Of("cpu")
		t := table(quota, "cpu.stat")
		s.Cpu.Throttling = runc.Throttling{Periods: t["nr_periods"], ThrottledPeriods: t["nr_throttled"], ThrottledTime: t["throttled_time"]}
	}
	if dir, v2 := of.Of("memory"); v2 {
		s.Memory = memoryV2(dir)
	} else {
		s.Memory = memoryV1(dir)
	}
	dir, _ := of.Of("pids")
	s.Pids = runc.Pids{Current: number(dir, "pids.current"), Limit: number(dir, "pids.max")}
	if dir, v2 := of.Of("blkio"); v2 {
		s.Blkio = ioV2(dir)
	} else {
		s.Blkio = runc.Blkio{
			IoServiceBytesRecursive: ioV1(dir, "blkio.throttle.io_service_bytes_recursive"),
			IoServicedRecursive:     ioV1(dir, "blkio.throttle.io_serviced_recursive"),
		}
	}
	dir, v2 := of.Of("hugetlb")
	s.Hugetlb = hugePages(dir, v2)
	return s
}

func text(dir, name string) string {
	if dir == "" {
		return ""
	}
	raw, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(raw))
}

// number is a file of one number; "max" and what cannot be read are 0.
func number(dir, name string) uint64 {
	n, err := strconv.ParseUint(text(dir, name), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// limit is like number, with "max" as the largest.
func limit(dir, name string) uint64 {
	if text(dir, name) == "max" {
		return 1<<64 - 1
	}
	return number(dir, name)
}

// table is a file of names and numbers, one pair a line.
func table(dir, name string) map[string]uint64 {
	t := map[string]uint64{}
	for line := range strings.Lines(text(dir, name)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.ParseUint(value, 10, 64); err == nil {
			t[key] = n
		}
	}
	return t
}

// Units of what the kernel counts time in, in nanoseconds.
const (
	perMicrosecond = 1000
	perTick        = 10_000_000 // USER_HZ is 100 on every architecture of Linux
)

func cpuV1(dir string) runc.CpuUsage {
	u := runc.CpuUsage{Total: number(dir, "cpuacct.usage")}
	for _, each := range strings.Fields(text(dir, "cpuacct.usage_percpu")) {
		if n, err := strconv.ParseUint(each, 10, 64); err == nil {
			u.Percpu = append(u.Percpu, n)
		}
	}
	t := table(dir, "cpuacct.stat")
	u.User, u.Kernel = t["user"]*perTick, t["system"]*perTick
	return u
}

func cpuV2(dir string) runc.Cpu {
	t := table(dir, "cpu.stat")
	return runc.Cpu{
		Usage:      runc.CpuUsage{Total: t["usage_usec"] * perMicrosecond, User: t["user_usec"] * perMicrosecond, Kernel: t["system_usec"] * perMicrosecond},
		Throttling: runc.Throttling{Periods: t["nr_periods"], ThrottledPeriods: t["nr_throttled"], ThrottledTime: t["throttled_usec"] * perMicrosecond},
	}
}

func memoryV1(dir string) runc.Memory {
	entry := func(prefix string) runc.MemoryEntry {
		return runc.MemoryEntry{
			Limit: number(dir, prefix+".limit_in_bytes"), Usage: number(dir, prefix+".usage_in_bytes"),
			Max: number(dir, prefix+".max_usage_in_bytes"), Failcnt: number(dir, prefix+".failcnt"),
		}
	}
	t := table(dir, "memory.stat")
	return runc.Memory{
		Cache: t["cache"], Usage: entry("memory"), Swap: entry("memory.memsw"), Kernel: entry("memory.kmem"),
		KernelTCP: entry("memory.kmem.tcp"), Raw: t,
	}
}

// memoryV2 counts swap as the first version does: together with memory.
func memoryV2(dir string) runc.Memory {
	t := table(dir, "memory.stat")
	use := runc.MemoryEntry{
		Limit: limit(dir, "memory.max"), Usage: number(dir, "memory.current"), Max: number(dir, "memory.peak"),
		Failcnt: table(dir, "memory.events")["max"],
	}
	swap := runc.MemoryEntry{Limit: limit(dir, "memory.swap.max"), Usage: number(dir, "memory.swap.current") + use.Usage}
	if total := swap.Limit + use.Limit; swap.Limit != 1<<64-1 && total >= use.Limit {
		swap.Limit = total
	} else {
		swap.Limit = 1<<64 - 1
	}
	return runc.Memory{Cache: t["file"], Usage: use, Swap: swap, Kernel: runc.MemoryEntry{Usage: t["kernel"]}, Raw: t}
}

// ioV1 reads lines like "8:0 Read 4096".
func ioV1(dir, name string) (list []runc.BlkioEntry) {
	for line := range strings.Lines(text(dir, name)) {
		var e runc.BlkioEntry
		if n, err := fmt.Sscanf(line, "%d:%d %s %d", &e.Major, &e.Minor, &e.Op, &e.Value); err == nil && n == 4 {
			list = append(list, e)
		}
	}
	return list
}

// ioV2 reads lines like "8:0 rbytes=4096 wbytes=0 rios=1 wios=0".
func ioV2(dir string) (b runc.Blkio) {
	for line := range strings.Lines(text(dir, "io.stat")) {
		words := strings.Fields(line)
		var major, minor uint64
		if len(words) == 0 {
			continue
		}
		if _, err := fmt.Sscanf(words[0], "%d:%d", &major, &minor); err != nil {
			continue
		}
		for _, word := range words[1:] {
			key, value, _ := strings.Cut(word, "=")
			n, err := strconv.ParseUint(value, 10, 64)
			if err != nil {
				continue
			}
			entry := func(op string) runc.BlkioEntry {
				return runc.BlkioEntry{Major: major, Minor: minor, Op: op, Value: n}
			}
			switch key {
			case "rbytes":
				b.IoServiceBytesRecursive = append(b.IoServiceBytesRecursive, entry("Read"))
			case "wbytes":
				b.IoServiceBytesRecursive = append(b.IoServiceBytesRecursive, entry("Write"))
			case "rios":
				b.IoServicedRecursive = append(b.IoServicedRecursive, entry("Read"))
			case "wios":
				b.IoServicedRecursive = append(b.IoServicedRecursive, entry("Write"))
			}
		}
	}
	return b
}

// hugePages reads files like hugetlb.2MB.current.
func hugePages(dir string, v2 bool) map[string]runc.Hugetlb {
	if dir == "" {
		return nil
	}
	current := ".usage_in_bytes"
	if v2 {
		current = ".current"
	}
	files, err := filepath.Glob(filepath.Join(dir, "hugetlb.*"+current))
	if err != nil {
		return nil
	}
	all := map[string]runc.Hugetlb{}
	for _, f := range files {
		size := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(f), "hugetlb."), current)
		if strings.HasSuffix(size, ".rsvd") {
			continue
		}
		h := runc.Hugetlb{Usage: number(dir, "hugetlb."+size+current)}
		if !v2 {
			h.Max, h.Failcnt = number(dir, "hugetlb."+size+".max_usage_in_bytes"), number(dir, "hugetlb."+size+".failcnt")
		}
		all[size] = h
	}
	return all
}
