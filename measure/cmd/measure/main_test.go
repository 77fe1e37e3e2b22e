package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/measure/predict/predicttest"

	"github.com/vouchsafe-cc/vouchsafe/measure/internal/evidencetest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"measure": main})
}

// vendor makes one vendor for all scripts, with the command itself: its keys
// take seconds.
var vendor = sync.OnceValues(func() (string, string) {
	dir, err := os.MkdirTemp("", "measure-vendor-")
	if err != nil {
		return "", err.Error()
	}
	dir = filepath.Join(dir, "vendor")
	var stdout, stderr bytes.Buffer
	if code := run(context.Background(), []string{"sim", "vendor", dir}, nil, &stdout, &stderr); code != fault.ExitOK || stdout.Len() != 0 {
		return dir, "exit code " + stderr.String() + stdout.String()
	}
	return dir, ""
})

func TestScripts(t *testing.T) {
	dir, problem := vendor()
	t.Cleanup(func() { _ = os.RemoveAll(filepath.Dir(dir)) })
	if problem != "" {
		t.Fatal(problem)
	}
	evidence, err := filepath.Abs(evidencetest.Dir(t))
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata", RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("VENDOR", dir)
			e.Setenv("EVIDENCE", evidence)
			e.Setenv("GORACE", "atexit_sleep_ms=0") // else each command sleeps for a second when it ends
			return predicttest.Write(filepath.Join(e.WorkDir, "vm"))
		},
		Condition: func(cond string) (bool, error) {
			_, err := os.Stat(evidence)
			return cond == "evidence" && err == nil, nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
	})
}

// exits CODE ARGUMENTS... runs measure and demands an exit code. stdout and
// stderr can be looked at afterwards as after exec.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: exits CODE ARGUMENTS OF MEASURE...")
	}
	code := 0
	if err := ts.Exec("measure", args[1:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		code = exit.ExitCode()
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}
