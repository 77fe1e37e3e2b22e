package container

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// A start whose own files cannot be removed is a start all the same: the process
// is there, and the container's end does not wait for one that is not.
func TestLaunchLeavesFiles(t *testing.T) {
	c := &Container{
		bundle: t.TempDir(), processes: newProcesses(),
		runtime: &Runtime{reaper: reaper, log: slog.New(slog.DiscardHandler)},
	}
	uid, gid := os.Getuid(), os.Getgid()
	spec := &specs.Process{User: specs.User{UID: uint32(uid), GID: uint32(gid)}}
	err := c.launch(t.Context(), "", spec, func(_ context.Context, l launch) error {
		pid, err := orphan("exit 7")
		return errors.Join(err, os.WriteFile(l.pidFile, []byte(strconv.Itoa(pid)), 0o600), os.MkdirAll(filepath.Join(l.log, "in the way"), 0o700))
	})
	if err != nil {
		t.Fatal(err)
	}
	p, err := c.Process("")
	if err != nil {
		t.Fatal(err)
	}
	if code, err := p.Wait(t.Context()); code != 7 || err != nil {
		t.Errorf("status %d, %v", code, err)
	}
	select {
	case <-c.processes.close():
	default:
		t.Error("a start is under way for ever")
	}
	p.closeAll()
}
