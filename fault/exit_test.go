package fault_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/fault"
)

type refused struct{ error }

func (refused) Exit() int { return fault.ExitEvidence }

func TestExitOf(t *testing.T) {
	// A program that was run and failed does not decide how the command ends.
	failed := exec.CommandContext(t.Context(), "/bin/false").Run()
	for name, c := range map[string]struct {
		err  error
		want int
	}{
		"nothing":          {nil, fault.ExitOK},
		"unknown":          {errors.New("odd"), fault.ExitUsage},
		"a program":        {failed, fault.ExitUsage},
		"no file":          {fmt.Errorf("open: %w", fs.ErrNotExist), fault.ExitNotFound},
		"a file":           {fs.ErrExist, fault.ExitConflict},
		"interrupted":      {context.Canceled, fault.ExitUnavailable},
		"too late":         {context.DeadlineExceeded, fault.ExitUnavailable},
		"a fault":          {fmt.Errorf("x: %w", fault.New(fault.PolicyDenied, fs.ErrNotExist)), fault.ExitRefused},
		"by its own words": {fmt.Errorf("x: %w", refused{fs.ErrNotExist}), fault.ExitEvidence},
	} {
		if got := fault.ExitOf(c.err); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}
