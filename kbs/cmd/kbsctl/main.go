// Command kbsctl looks after a key broker: see package ctl.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/ctl"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Getenv, ctl.Stdio{In: os.Stdin, Out: os.Stdout, Err: os.Stderr})
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, env func(string) string, stdio ctl.Stdio) int {
	return ctl.Run(ctx, args, env, stdio)
}
