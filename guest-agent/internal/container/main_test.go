package container

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"testing"
)

var reaper *Reaper

// The reaper needs the main thread, as in the agent.
func init() { runtime.LockOSThread() } //nolint:gochecknoinits // only init runs on the process's main thread, which the reaper needs

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == orphanArgument {
		leaveOrphan(os.Args[2])
	}
	var err error
	if reaper, err = NewReaper(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	ctx, cancel := context.WithCancel(context.Background())
	code := make(chan int, 1)
	go func() {
		code <- m.Run()
		cancel()
	}()
	if err := reaper.Run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(<-code)
}

// orphanArgument makes the test binary a parent that goes away.
const orphanArgument = "leave-orphan"

// leaveOrphan runs a script, prints its pid and exits without waiting. A shell
// will not do: it collects a child that is quick.
func leaveOrphan(script string) {
	cmd := exec.Command("sh", "-c", script)
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Fprintln(os.Stdout, cmd.Process.Pid)
	os.Exit(0)
}
