package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A group is a control group (cgroup v2) in which all processes of a tool run:
// clients, daemons, helpers. Its CPU time includes those that have ended.
type group struct {
	dir  string
	fd   *os.File
	self os.FileInfo // our program
}

// newGroup makes a group below the mount of cgroup v2, which is there also
// beside v1; its accounting of CPU time needs no controller.
func newGroup() (*group, error) {
	self, err := os.Stat("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	mount, err := groupMount()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(mount, "imagebench-")
	if err != nil {
		return nil, fmt.Errorf("CPU time is counted in a control group: %w", err)
	}
	fd, err := os.Open(dir)
	if err != nil {
		return nil, errors.Join(err, os.Remove(dir))
	}
	return &group{dir: dir, fd: fd, self: self}, nil
}

func groupMount() (string, error) {
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	for s := bufio.NewScanner(f); s.Scan(); {
		if words := strings.Fields(s.Text()); len(words) > 2 && words[2] == "cgroup2" {
			return words[1], nil
		}
	}
	return "", errors.New("cgroup v2 is not mounted")
}

func (g *group) close() error { return errors.Join(g.fd.Close(), os.Remove(g.dir)) }

// join makes cmd start in the group.
func (g *group) join(cmd *exec.Cmd) *exec.Cmd {
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(g.fd.Fd())}
	return cmd
}

// cpu is the time that all processes of the group used so far.
func (g *group) cpu() (time.Duration, error) {
	stat, err := os.ReadFile(filepath.Join(g.dir, "cpu.stat"))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(stat)) {
		if v, ok := strings.CutPrefix(line, "usage_usec "); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
			return time.Duration(n) * time.Microsecond, err
		}
	}
	return 0, errors.New("the control group counts no CPU time")
}

// resident is the sum of what the group's processes have in memory, in bytes. A
// process that we have made and that is not yet another program has our memory.
func (g *group) resident() int64 {
	list, err := os.ReadFile(filepath.Join(g.dir, "cgroup.procs"))
	if err != nil {
		return 0
	}
	var pages int64
	for pid := range strings.FieldsSeq(string(list)) {
		if program, err := os.Stat(filepath.Join("/proc", pid, "exe")); err == nil && os.SameFile(program, g.self) {
			continue
		}
		statm, err := os.ReadFile(filepath.Join("/proc", pid, "statm"))
		if words := strings.Fields(string(statm)); err == nil && len(words) > 1 {
			n, _ := strconv.ParseInt(words[1], 10, 64)
			pages += n
		}
	}
	return pages * int64(os.Getpagesize())
}

// left is the wall time less what the rest of the machine took of it.
func (s spent) left() time.Duration { return s.wall - s.others/time.Duration(runtime.NumCPU()) }

const sampling = 20 * time.Millisecond

// spent is what a pull cost.
type spent struct {
	cpu, wall time.Duration
	others    time.Duration // CPU time that the rest of the machine used meanwhile, our registry included
	rss       int64         // peak, bytes
}

// watch counts what the group uses while pull runs.
func (g *group) watch(pull func() error) (spent, error) {
	stop := make(chan struct{})
	var peak int64
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(sampling)
		defer tick.Stop()
		for {
			peak = max(peak, g.resident())
			select {
			case <-stop:
				return
			case <-tick.C:
			}
		}
	})
	before, err := g.cpu()
	machine, start := machineCPU(), time.Now()
	if err == nil {
		err = pull()
	}
	wall := time.Since(start)
	busy := machineCPU() - machine
	close(stop)
	wg.Wait()
	if err != nil {
		return spent{}, err
	}
	after, err := g.cpu()
	return spent{cpu: after - before, wall: wall, rss: peak, others: max(0, busy-(after-before))}, err
}

// machineCPU is the time that the machine's cores were busy.
func machineCPU() time.Duration {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(stat), "\n")
	var ticks int64
	for i, word := range strings.Fields(line) {
		if i == 0 || i == 4 || i == 5 || i > 7 { // the name, idle, waiting, stolen and guests
			continue
		}
		n, _ := strconv.ParseInt(word, 10, 64)
		ticks += n
	}
	return time.Duration(ticks) * time.Second / 100
}

// end kills what is left in the group and waits until it is gone.
func (g *group) end() error {
	return until(10*time.Second, func() (bool, error) {
		list, err := os.ReadFile(filepath.Join(g.dir, "cgroup.procs"))
		if err != nil || len(list) == 0 {
			return err == nil, err
		}
		for pid := range strings.FieldsSeq(string(list)) {
			if n, err := strconv.Atoi(pid); err == nil && n > 1 {
				_ = unix.Kill(n, unix.SIGKILL)
			}
		}
		return false, fmt.Errorf("processes %s do not end", strings.Join(strings.Fields(string(list)), ", "))
	})
}

// until asks again and again whether something is so. Where it does not come to
// be in time, it returns what was said last.
func until(patience time.Duration, so func() (bool, error)) error {
	tick := time.NewTicker(sampling)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		if ok, err := so(); ok || time.Now().After(deadline) {
			return err
		}
	}
}
