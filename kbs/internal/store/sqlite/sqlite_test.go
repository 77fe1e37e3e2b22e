package sqlite

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/storetest"
)

func openAt(t testing.TB, dir string) store.Store {
	t.Helper()
	st, err := Open(filepath.Join(dir, "kbs.db"))
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func TestContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return openAt(t, t.TempDir()) })
}

func TestDurable(t *testing.T) {
	storetest.RunDurable(t, func(t *testing.T, dir string) store.Store { return openAt(t, dir) })
}

func TestArchive(t *testing.T) {
	open := func(t *testing.T) store.Store { return openAt(t, t.TempDir()) }
	storetest.RunArchive(t, open, open)
}

// Paths may hold what a URI would read as syntax.
func TestOddPath(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a b?mode=memory#%41&_pragma=x")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	storetest.RunDurable(t, func(t *testing.T, _ string) store.Store { return openAt(t, dir) })
	if _, err := os.Stat(filepath.Join(dir, "kbs.db")); err != nil {
		t.Fatal(err)
	}
}

func TestFilesArePrivate(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "kbs.db")
	if err := os.WriteFile(path, nil, 0o666); err != nil { // left behind by a careless restore
		t.Fatal(err)
	}
	st := openAt(t, dir)
	defer func() { _ = st.Close() }()
	if err := write(st, "a", "1"); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(path + "*")
	if err != nil || len(files) < 2 {
		t.Fatalf("files %q, %v: expected a WAL beside the database", files, err)
	}
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, %v", f, info.Mode(), err)
		}
	}
}

func write(st store.Store, key, value string) error {
	return st.Update(context.Background(), func(tx store.Tx) error {
		_, err := tx.Put(key, []byte(value), store.Any)
		return err
	})
}

func TestPragmas(t *testing.T) {
	dir := t.TempDir()
	st := openAt(t, dir)
	defer func() { _ = st.Close() }()
	for _, readOnly := range []bool{false, true} {
		db, err := sql.Open("sqlite", source(filepath.Join(dir, "kbs.db"), readOnly))
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "busy_timeout": "10000"} {
			var got string
			if err := db.QueryRow("PRAGMA " + name).Scan(&got); err != nil || got != want {
				t.Errorf("%s is %q, want %q (%v)", name, got, want, err)
			}
		}
		if _, err := db.Exec("DELETE FROM records"); (err == nil) == readOnly {
			t.Errorf("write with readOnly %v: %v", readOnly, err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	tests := []struct {
		name    string
		prepare func(path string) error
		want    string
	}{
		{"a newer schema", func(path string) error {
			return execRaw(path, fmt.Sprintf("PRAGMA application_id = %d; PRAGMA user_version = %d", applicationID, len(steps)+1))
		}, "older than the file"},
		{"a database of another application", func(path string) error {
			return execRaw(path, "CREATE TABLE records (x); INSERT INTO records VALUES (1)")
		}, "another application"},
		{"what is not a database", func(path string) error {
			return os.WriteFile(path, []byte(strings.Repeat("not a database ", 100)), 0o600)
		}, "not a database"},
		{"a directory", func(path string) error { return os.Mkdir(path, 0o700) }, "not a regular file"},
		{"a missing folder", func(path string) error { return os.Remove(filepath.Dir(path)) }, "no such file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "d", "kbs.db")
			if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := tt.prepare(path); err != nil {
				t.Fatal(err)
			}
			st, err := Open(path)
			if err == nil {
				_ = st.Close()
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error %q does not say %q", err, tt.want)
			}
		})
	}
}

func execRaw(path, statements string) error {
	db, err := sql.Open("sqlite", path)
	if err != nil {
		return err
	}
	_, err = db.Exec(statements)
	return errors.Join(err, db.Close())
}

// Trouble in the middle of a commit undoes all of it.
func TestHalfACommitIsUndone(t *testing.T) {
	dir := t.TempDir()
	st := openAt(t, dir)
	defer func() { _ = st.Close() }()
	trigger := "CREATE TRIGGER fail BEFORE INSERT ON records WHEN NEW.key = CAST('zbad' AS BLOB) BEGIN SELECT RAISE(FAIL, 'disk trouble'); END"
	if err := execRaw(filepath.Join(dir, "kbs.db"), trigger); err != nil {
		t.Fatal(err)
	}
	err := st.Update(context.Background(), func(tx store.Tx) error {
		_, _ = tx.Put("good", nil, store.Any)
		_, _ = tx.Put("zbad", nil, store.Any)
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), "disk trouble") {
		t.Fatalf("update: %v", err)
	}
	err = st.View(context.Background(), func(tx store.Tx) error { _, err := tx.Get("good"); return err })
	if !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("half a transaction was committed: %v", err)
	}
	if err := write(st, "good", "1"); err != nil {
		t.Fatalf("the next transaction: %v", err)
	}
}

// Two stores on one file are two processes, as far as SQLite is concerned.
func TestTwoOpenersShareTheFile(t *testing.T) {
	dir := t.TempDir()
	a, b := openAt(t, dir), openAt(t, dir)
	defer func() { _, _ = a.Close(), b.Close() }()
	for i := range 20 {
		st := []store.Store{a, b}[i%2]
		if err := write(st, "k", fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	err := a.View(context.Background(), func(tx store.Tx) error {
		r, err := tx.Get("k")
		if err == nil && (string(r.Value) != "19" || r.Version != 20) {
			t.Errorf("got %q at version %d", r.Value, r.Version)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

const crashDir = "VOUCHSAFE_TEST_CRASH_DIR"

// TestMain lets the test binary be the process that gets killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		fmt.Fprintln(os.Stderr, writeForever(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func writeForever(dir string) error {
	st, err := Open(filepath.Join(dir, "kbs.db"))
	if err != nil {
		return err
	}
	var mu sync.Mutex
	storetest.WriteChain(context.Background(), st, strconv.Itoa(os.Getpid()), func(name string) {
		mu.Lock()
		defer mu.Unlock()
		_, err = fmt.Fprintln(os.Stdout, name)
	}, func(e error) bool { err = e; return false })
	return err
}

// Of transactions that share their commits, those that were acknowledged
// survive kill -9 at any moment, and the others happened wholly or not at all.
func TestKilledWriterLosesNothing(t *testing.T) {
	dir := t.TempDir()
	acknowledged := map[string]bool{}
	for round := range 4 {
		for name := range killAfter(t, dir, 100+round*37) {
			acknowledged[name] = true
		}
		st := openAt(t, dir)
		storetest.CheckChain(t, st, acknowledged)
		if err := st.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// killAfter runs a writer, kills it after n acknowledged updates and returns
// all that it had acknowledged by then.
func killAfter(t *testing.T, dir string, n int) map[string]bool {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashDir+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		names[lines.Text()] = true
		if len(names) == n {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	err = cmd.Wait()
	if len(names) < n || err == nil {
		t.Fatalf("the writer ended by itself after %d updates: %v", len(names), err)
	}
	return names
}

func BenchmarkStore(b *testing.B) {
	storetest.Bench(b, func(b *testing.B) store.Store { return openAt(b, b.TempDir()) })
}
