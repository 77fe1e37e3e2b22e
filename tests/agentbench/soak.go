package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/tests/internal/barepod"
)

// soakCommand lets containers come and go, and then whole pods.
func soakCommand(ctx context.Context, o options, out io.Writer) error {
	if err := soak(ctx, o, out); err != nil {
		return err
	}
	return soakPods(ctx, o, max(2, o.cycles/50), out)
}

// footprint is what a running agent holds.
type footprint struct {
	children, mounts, cgroups, files, entries int
	resident                                  int64
}

func (f footprint) String() string {
	return fmt.Sprintf("%d processes, %d mounts, %d cgroups, %d open files, %d directory entries, %s resident",
		f.children, f.mounts, f.cgroups, f.files, f.entries, mb(f.resident))
}

// spareMemory is by how much the agent may be larger at the end: the runtime of
// Go gives memory back when it likes.
const spareMemory = 6e6

// soak runs the whole life of a container again and again in one pod, and
// compares what the agent holds after a tenth of it with what it holds at the end.
func soak(ctx context.Context, o options, out io.Writer) (err error) {
	a, err := o.start(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Stop()) }()
	if err := a.Sandbox(ctx, false); err != nil {
		return err
	}
	// The sandbox's first container holds what is shared; it stays, as pause does.
	if err := a.Run(ctx, "pause", "/bin/sleep", "1000000"); err != nil {
		return err
	}
	var before footprint
	for i := range o.cycles {
		if i == max(1, o.cycles/10) {
			if before, err = look(a); err != nil {
				return err
			}
			fmt.Fprintf(out, "after %d cycles: %v\n", i, before)
		}
		if err := cycle(ctx, a, i); err != nil {
			return fmt.Errorf("cycle %d: %w", i, err)
		}
	}
	after, err := look(a)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "after %d cycles: %v\n", o.cycles, after)
	grown := after
	grown.resident = before.resident
	if grown.files < before.files { // a connection of a call that had not ended yet
		grown.files = before.files
	}
	if grown != before || after.resident > before.resident+spareMemory {
		return fmt.Errorf("%w: what the agent holds has grown", errGate)
	}
	return nil
}

// cycle is one container with everything that needs undoing.
func cycle(ctx context.Context, a *barepod.Agent, i int) error {
	id := fmt.Sprintf("c%d", i)
	req, err := a.Request(id, "/bin/sh", "-c", "sleep 1000 & exec cat")
	if err != nil {
		return err
	}
	volume := barepod.GuestDir + "/sandbox/ephemeral/scratch" // the pod's, which each container names anew
	req.Storages = []*agent.Storage{{Driver: "ephemeral", Source: "tmpfs", Fstype: "tmpfs", MountPoint: volume}}
	req.OCI.Mounts = append(req.OCI.Mounts, &agent.Mount{Destination: "/mnt", Source: volume, Type: "bind", Options: []string{"rbind"}})
	req.OCI.Process.Terminal = i%5 == 4
	if err := a.Launch(ctx, req); err != nil {
		return err
	}
	got, err := a.Do(ctx, id, "x", "/bin/sh", "-c", "echo one >/mnt/file; cat /mnt/file; exit 7")
	if err != nil || got.Status != 7 || got.Out != "one\n" {
		return fmt.Errorf("exec: %+v, %w", got, err)
	}
	if err := a.Exec(ctx, id, "left", "/bin/sleep", "1000"); err != nil { // dies with the container
		return err
	}
	status, err := a.Remove(ctx, id)
	if err == nil && status != 137 {
		err = fmt.Errorf("status %d", status)
	}
	return err
}

// look counts what an agent holds.
func look(a *barepod.Agent) (f footprint, err error) {
	if f.resident, err = memoryOf(a.PID(), residentNow); err != nil {
		return f, err
	}
	if f.children, err = descendants(a.PID()); err != nil {
		return f, err
	}
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", a.PID()))
	if err != nil {
		return f, err
	}
	f.mounts = strings.Count(string(mounts), "\n")
	if f.cgroups, err = cgroupsOf(a.Cgroup); err != nil {
		return f, err
	}
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", a.PID()))
	if err != nil {
		return f, err
	}
	f.files = len(files)
	for _, dir := range []string{"", "runtime", "sandbox", "sandbox/ephemeral", "sandbox-ns"} {
		list, err := os.ReadDir(filepath.Join(a.State(), dir))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return f, err
		}
		f.entries += len(list)
	}
	return f, nil
}

// descendants counts the processes below one, dead ones too.
func descendants(pid int) (int, error) {
	parents := map[int][]int{}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		child, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		raw, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // gone
		}
		stat := string(raw)
		fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
		parent, err := strconv.Atoi(fields[1])
		if err != nil {
			return 0, err
		}
		parents[parent] = append(parents[parent], child)
	}
	n := 0
	for todo := parents[pid]; len(todo) > 0; n++ {
		todo = append(todo[1:], parents[todo[0]]...)
	}
	return n, nil
}

// cgroupsOf counts the directories of a cgroup and those below it, in every
// hierarchy.
func cgroupsOf(cgroup string) (int, error) {
	n := 0
	for _, pattern := range []string{"/sys/fs/cgroup" + cgroup, "/sys/fs/cgroup/*" + cgroup} {
		roots, err := filepath.Glob(pattern)
		if err != nil {
			return 0, err
		}
		for _, root := range roots {
			err := filepath.WalkDir(root, func(_ string, d os.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					n++
				}
				return nil // what goes away meanwhile is no error
			})
			if err != nil {
				return 0, err
			}
		}
	}
	return n, nil
}

// soakPods lets whole pods come and go; each is an agent of its own, of which
// nothing may be left.
func soakPods(ctx context.Context, o options, pods int, out io.Writer) error {
	table := func() (int, error) {
		raw, err := os.ReadFile("/proc/self/mountinfo")
		return strings.Count(string(raw), "\n"), err
	}
	before, err := table()
	if err != nil {
		return err
	}
	for i := range pods {
		a, err := o.start(ctx)
		if err != nil {
			return err
		}
		err = onePod(ctx, a, i)
		err = errors.Join(err, a.Stop())
		cgroups, counted := cgroupsOf(a.Cgroup)
		after, looked := table()
		if err = errors.Join(err, counted, looked); err != nil {
			return fmt.Errorf("pod %d: %w", i, err)
		}
		if cgroups != 0 || after != before {
			return fmt.Errorf("%w: of pod %d %d cgroups are left, and %d mounts became %d", errGate, i, cgroups, before, after)
		}
	}
	fmt.Fprintf(out, "after %d pods: nothing is left\n", pods)
	return nil
}

func onePod(ctx context.Context, a *barepod.Agent, i int) error {
	if err := a.Sandbox(ctx, true); err != nil {
		return err
	}
	for n := range 3 {
		if err := a.Run(ctx, fmt.Sprintf("p%d", n), "/bin/sleep", "1000000"); err != nil {
			return err
		}
	}
	if i%2 == 0 { // the others end by the signal, with their containers
		return nil
	}
	_, err := a.DestroySandbox(ctx, &agent.DestroySandboxRequest{})
	return err
}
