// Command kbs is the key broker: it verifies the evidence of guests, decides
// by policy what they may have, and releases it to them and nobody else.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Getenv, stdio{out: os.Stdout, err: os.Stderr})
	stop()
	os.Exit(code)
}
