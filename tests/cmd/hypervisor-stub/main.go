// Command hypervisor-stub is a remote hypervisor for Kata whose machines are
// guest agents on the same kernel; see docs/guides/kata.md.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "hypervisor-stub:", err)
		os.Exit(1)
	}
}
