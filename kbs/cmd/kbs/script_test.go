package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/audit"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/broker"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/postgrestest"
)

func TestMain(m *testing.M) { testscript.Main(tests{m}, map[string]func(){"kbs": main}) }

// tests stop the PostgreSQL server that some of them share.
type tests struct{ *testing.M }

func (t tests) Run() int {
	code := t.M.Run()
	if err := postgrestest.StopShared(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return max(code, 1)
	}
	return code
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(e *testscript.Env) error {
			e.Setenv("GORACE", "atexit_sleep_ms=0") // else each command sleeps for a second when it ends
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits":     cmdExits,
			"starts":    cmdStarts,
			"mode":      cmdMode,
			"damage":    cmdDamage,
			"oldschema": cmdOldSchema,
			"postgres": func(ts *testscript.TestScript, _ bool, _ []string) {
				s := postgrestest.Shared(t)
				ts.Setenv("POSTGRES_URL", s.DSN(s.NewDatabase(t)))
			},
		},
		Condition: func(name string) (bool, error) {
			if name != "postgres" {
				return false, fmt.Errorf("unknown condition %s", name)
			}
			return postgrestest.Installed(), nil
		},
	})
}

// exits CODE kbs ARGS... runs a command and checks its exit code.
func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		got = e.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// starts DIR KIND... opens and closes a broker on a state directory, and
// checks that the audit log ends with entries of these kinds.
func cmdStarts(ts *testscript.TestScript, neg bool, args []string) {
	cfg, err := config.Load("", ts.Getenv)
	ts.Check(err)
	cfg.StateDir = ts.MkAbs(args[0])
	b, err := broker.Open(context.Background(), cfg, broker.Options{Logger: slog.New(slog.DiscardHandler), Now: time.Now, Version: "test"})
	if neg {
		if err == nil {
			ts.Check(b.Close())
			ts.Fatalf("the broker started")
		}
		return
	}
	ts.Check(err)
	defer func() { ts.Check(b.Close()) }()
	page, err := b.Deps().AuditLog.Query(context.Background(), audit.Filter{}, 0, 1000)
	ts.Check(err)
	var kinds []string
	for _, raw := range page.Entries {
		var e api.AuditEntry
		ts.Check(json.Unmarshal(raw, &e))
		kinds = append(kinds, string(e.Kind))
	}
	if n := len(kinds) - len(args) + 1; n < 0 || !slices.Equal(kinds[n:], args[1:]) {
		ts.Fatalf("the audit log has %q", kinds)
	}
}

// mode OCTAL FILE checks the permissions of a file.
func cmdMode(ts *testscript.TestScript, _ bool, args []string) {
	info, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := fmt.Sprintf("%o", info.Mode().Perm()); got != args[0] {
		ts.Fatalf("%s has mode %s", args[1], got)
	}
}

// damage FILE alters one bit in the middle.
func cmdDamage(ts *testscript.TestScript, _ bool, args []string) {
	raw := []byte(ts.ReadFile(args[0]))
	raw[len(raw)/2] ^= 1
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), raw, 0o600))
}

// oldschema FILE makes a store as the first release did.
func cmdOldSchema(ts *testscript.TestScript, _ bool, args []string) {
	db, err := sql.Open("sqlite", ts.MkAbs(args[0]))
	ts.Check(err)
	_, err = db.Exec(`PRAGMA application_id = 1448299330; PRAGMA user_version = 1;
	CREATE TABLE records (key BLOB NOT NULL UNIQUE, version INTEGER NOT NULL, modified INTEGER NOT NULL, value BLOB NOT NULL) STRICT;
	CREATE TABLE tombstones (key BLOB NOT NULL PRIMARY KEY, version INTEGER NOT NULL) STRICT, WITHOUT ROWID`)
	ts.Check(errors.Join(err, db.Close()))
}
