// Command demo tells the project's whole story on one machine: it encrypts and
// signs a real image, runs it in a guest that proves itself, and shows five
// ways to be refused. It exits with 0 only if all of it held.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
