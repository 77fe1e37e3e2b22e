// Command reference writes the reference pages from the code: the table of
// codes, the help text of every command, as the programs print it, and the
// tables in the page of the platforms. It runs at the root of the repository.
//
//	reference DIR [BIN]
//
// BIN is the folder with the programs, "bin" by default.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

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
	if err := write(context.Background(), os.Args[1], bin); err != nil {
		fmt.Fprintln(os.Stderr, "reference:", err)
		os.Exit(1)
	}
}

func write(ctx context.Context, dir, bin string) error {
	if err := reference.Write(ctx, dir, bin); err != nil {
		return err
	}
	text, err := reference.Platforms(ctx, ".")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, filepath.Base(reference.PlatformsPage)), []byte(text), 0o644)
}
