// Command reference writes the reference pages from the code: the table of
// codes, and the help text of every command, as the programs print it.
//
//	reference DIR [BIN]
//
// BIN is the folder with the programs, "bin" by default.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/vouchsafe-cc/vouchsafe/tests/internal/reference"
)

func main() {
	if len(os.Args) < 2 || len(os.Args) > 3 {
		fmt.Fprintln(os.Stderr, "usage: reference DIR [BIN]")
		os.Exit(1)
	}
	bin := "bin"
	if len(os.Args) == 3 {
		bin = os.Args[2]
	}
	if err := reference.Write(context.Background(), os.Args[1], bin); err != nil {
		fmt.Fprintln(os.Stderr, "reference:", err)
		os.Exit(1)
	}
}
