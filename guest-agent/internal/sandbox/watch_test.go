package sandbox

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

const (
	watched  = GuestDir + "/shared/containers/app1-0123456789abcdef-config"
	watching = GuestDir + "/shared/containers/watchable/config"
)

func watchable() []*agent.Storage {
	return []*agent.Storage{{Driver: "watchable-bind", Source: watched, Fstype: "bind", MountPoint: watching}}
}

// until waits for a condition that another goroutine brings about.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for !done() {
		select {
		case <-t.Context().Done():
			t.Fatal("never:", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// place puts a volume of Kubernetes' shape in a directory.
func putVersion(t *testing.T, dir, version, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, version), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, version, "key"), []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{"..data": version, "key": "..data/key"} {
		if err := os.Symlink(target, filepath.Join(dir, "tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "tmp"), filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
}

// Changes of the host arrive, what is gone goes, and what the agent itself put in
// place of a file stays until that file changes.
func TestWatch(t *testing.T) {
	needsRoot(t)
	s := newTestSandbox(t, func(c *Config) { c.WatchEvery = 10 * time.Millisecond })
	from, to := s.translate(watched), s.translate(watching)
	putVersion(t, from, "..one", "1")
	v, err := s.Prepare(t.Context(), "app1", watchable())
	if err != nil {
		t.Fatal(err)
	}
	key := func() string { raw, _ := os.ReadFile(filepath.Join(to, "key")); return string(raw) }
	if key() != "1" {
		t.Errorf("the key is %q", key())
	}
	if fi, err := os.Stat(filepath.Join(to, "key")); err != nil || fi.Mode().Perm() != 0o640 {
		t.Errorf("%v, %v", fi, err)
	}
	if err := os.WriteFile(filepath.Join(to, "..one/key"), []byte("unsealed"), 0o600); err != nil {
		t.Fatal(err)
	}
	putVersion(t, from, "..two", "2")
	until(t, "the new key", func() bool { return key() == "2" })
	if raw, err := os.ReadFile(filepath.Join(to, "..one/key")); err != nil || string(raw) != "unsealed" {
		t.Errorf("what did not change was copied again: %q, %v", raw, err)
	}
	if err := os.RemoveAll(filepath.Join(from, "..one")); err != nil {
		t.Fatal(err)
	}
	until(t, "the old key's end", func() bool { _, err := os.Stat(filepath.Join(to, "..one")); return errors.Is(err, os.ErrNotExist) })
	if err := v.Release(t.Context()); err != nil {
		t.Error(err)
	}
}

// What becomes of another kind is followed too: a file that becomes a directory, a
// directory that becomes a file, and a link that becomes either.
func TestWatchFollowsOtherKinds(t *testing.T) {
	needsRoot(t)
	s := newTestSandbox(t, func(c *Config) { c.WatchEvery = 10 * time.Millisecond })
	from, to := s.translate(watched), s.translate(watching)
	if err := os.MkdirAll(from, 0o755); err != nil {
		t.Fatal(err)
	}
	v, err := s.Prepare(t.Context(), "app1", watchable())
	if err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(from, "it")
	kinds := map[string]func() error{
		"file": func() error { return os.WriteFile(at, []byte("file"), 0o600) },
		"link": func() error { return os.Symlink("nowhere", at) },
		"directory": func() error {
			return errors.Join(os.MkdirAll(at+"/deep", 0o755), os.WriteFile(at+"/deep/x", nil, 0o600))
		},
	}
	now := func() string {
		switch fi, err := os.Lstat(filepath.Join(to, "it")); {
		case err != nil:
			return ""
		case fi.Mode().IsRegular():
			return "file"
		case fi.IsDir():
			if _, err := os.Stat(filepath.Join(to, "it/deep/x")); err != nil {
				return ""
			}
			return "directory"
		}
		return "link"
	}
	for _, kind := range []string{"file", "directory", "file", "link", "directory", "link", "file"} {
		if err := errors.Join(os.RemoveAll(at), kinds[kind]()); err != nil {
			t.Fatal(err)
		}
		until(t, kind, func() bool { return now() == kind })
	}
	if err := os.WriteFile(filepath.Join(from, "last"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	until(t, "what came last", func() bool { _, err := os.Stat(filepath.Join(to, "last")); return err == nil })
	if err := v.Release(t.Context()); err != nil {
		t.Error(err)
	}
}

// A directory that grows too large is not followed any more, and one that is
// from the start is bound as it is. Neither leads out.
func TestWatchIsBounded(t *testing.T) {
	needsRoot(t)
	s := newTestSandbox(t, func(c *Config) { c.WatchEvery = 10 * time.Millisecond })
	from, to := s.translate(watched), s.translate(watching)
	putVersion(t, from, "..one", "1")
	large := filepath.Join(from, "large")
	for _, before := range []bool{true, false} {
		if before {
			if err := os.WriteFile(large, make([]byte, watchBytes+1), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		v, err := s.Prepare(t.Context(), "app1", watchable())
		if err != nil {
			t.Fatal(err)
		}
		_, err = os.Stat(filepath.Join(to, "large"))
		if bound := err == nil; bound != before {
			t.Errorf("bound %v, want %v", bound, before)
		}
		if err := v.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(large); err != nil {
			t.Fatal(err)
		}
	}
	for name, source := range map[string]string{"outside": "/etc", "the agent's": GuestDir + "/runtime", "by a link": GuestDir + "/shared/containers/link"} {
		_ = os.Symlink("/etc", filepath.Join(s.dir, sharedDir, "link"))
		storages := watchable()
		storages[0].Source = source
		if v, err := s.Prepare(t.Context(), "app1", storages); err == nil {
			t.Errorf("%s was taken", name)
			_ = v.Release(t.Context())
		}
	}
}
