// Command kbs-pkcs11 holds the broker's master key in a PKCS#11 token. It is a
// process of its own because a token's library is C code of strangers: it
// neither gets into the broker's memory nor makes the broker need cgo.
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
