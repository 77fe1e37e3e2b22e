// Command guest-agent is the agent of a confidential guest: one program instead
// of kata-agent, attestation-agent, confidential-data-hub and api-server-rest.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/boot"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/sandbox"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/sandbox/pause"
)

// The main goroutine stays on the main thread, where the reaper waits for
// orphans; only an init function can promise that. See container.Reaper.
func init() { runtime.LockOSThread() } //nolint:gochecknoinits // only init runs on the process's main thread, which the reaper needs

func main() {
	if len(os.Args) == 2 && os.Args[1] == sandbox.PauseArgument && !boot.Is(os.Args) {
		os.Exit(pause.Run())
	}
	spareMemory(os.Getenv)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	io := stdio{out: os.Stdout, err: os.Stderr}
	if boot.Is(os.Args) {
		os.Exit(machine(ctx, io)) // not reached where machines can be switched off
	}
	code := run(ctx, os.Args[1:], io, nil)
	stop()
	os.Exit(code)
}
