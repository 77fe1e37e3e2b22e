// Command kbs-pkcs11 holds the broker's master key in a PKCS#11 token, and opens
// images for kbsctl with a key that stays in one. It is a process of its own
// because a token's library is C code of strangers: it neither gets into the
// memory of the two nor makes them need cgo.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/vouchsafe-cc/vouchsafe/fault"
)

func main() {
	if err := keepMemory(); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "kbs-pkcs11:", err)
		os.Exit(fault.ExitUnavailable)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
