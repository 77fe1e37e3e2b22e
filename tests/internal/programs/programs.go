// Package programs builds this repository's commands as they are released: with
// the flags of the Makefile. What it compiles is then compiled once for all tests
// and for make build, where other flags would compile every dependency anew.
package programs

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// Build builds commands, each named by its directory in the repository
// ("kbs/cmd/kbs"), into a directory.
func Build(ctx context.Context, dir string, commands ...string) error {
	return build(ctx, dir, "0", []string{"-tags", "grpcnotrace"}, commands)
}

// BuildC is Build for commands that load C libraries.
func BuildC(ctx context.Context, dir string, commands ...string) error {
	return build(ctx, dir, "1", nil, commands)
}

func build(ctx context.Context, dir, cgo string, flags, commands []string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	args := append([]string{"build", "-trimpath", "-ldflags", "-s -w", "-o", dir + "/"}, flags...)
	for _, c := range commands {
		args = append(args, "./"+c)
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	_, here, _, _ := runtime.Caller(0)
	cmd.Dir = filepath.Join(filepath.Dir(here), "../../..")
	cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", strings.Join(commands, ", "), err, out)
	}
	return nil
}
