package reload

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestChanged(t *testing.T) {
	dir := t.TempDir()
	a, b, link := filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "link")
	write(t, a, "one")
	write(t, b, "one")
	if err := os.Symlink(a, link); err != nil {
		t.Fatal(err)
	}
	files := []string{a, link, filepath.Join(dir, "none")}
	w := NewWatcher(files)
	expect := func(what string, want ...string) {
		t.Helper()
		if got := w.Changed(files); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	expect("nothing")
	info, err := os.Stat(a)
	if err != nil {
		t.Fatal(err)
	}
	write(t, a, "one")
	expect("the same again")
	write(t, a, "two")
	if err := os.Chtimes(a, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	expect("other content, old date", a, link)
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(b, link); err != nil {
		t.Fatal(err)
	}
	expect("another target", link)
	if err := os.Remove(a); err != nil {
		t.Fatal(err)
	}
	expect("gone", a)
	files = files[1:]
	expect("no longer asked for", a)
	files = append(files, b)
	expect("new in the list", b)
}

func TestRun(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	write(t, path, "one")
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		signals := make(chan os.Signal, 1)
		var calls [][]string
		done := make(chan struct{})
		go func() {
			defer close(done)
			Run(ctx, 10*time.Second, signals, func() []string { return []string{path} }, func(_ context.Context, files []string) {
				calls = append(calls, files)
			})
		}()
		tick := func(want int) {
			t.Helper()
			<-time.After(11 * time.Second)
			synctest.Wait()
			if len(calls) != want {
				t.Errorf("%d calls, want %d", len(calls), want)
			}
		}
		tick(0)
		write(t, path, "two")
		tick(1)
		tick(1)
		signals <- syscall.SIGHUP
		tick(2)
		cancel()
		<-done
	})
}
