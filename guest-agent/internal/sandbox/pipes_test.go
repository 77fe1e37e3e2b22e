package sandbox

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// A container that has the directory too and puts a pipe in the place of a file
// that is under way holds nobody.
func TestCopyFileMeetsAPipe(t *testing.T) {
	s := newTestSandbox(t)
	first := regular("v/f", "")
	first.FileSize, first.Data = 2, []byte("a")
	copyAll(t, s, first)
	under, err := filepath.Glob(filepath.Join(s.dir, sharedDir, "v/.incoming-*"))
	if err != nil || len(under) != 1 {
		t.Fatal(under, err)
	}
	for name, put := range map[string]func(path string) error{
		"a pipe":        func(path string) error { return unix.Mkfifo(path, 0o600) },
		"a read pipe":   func(path string) error { return errors.Join(unix.Mkfifo(path, 0o600), readPipe(t, path)) },
		"a link":        func(path string) error { return os.Symlink("elsewhere", path) },
		"another file":  func(path string) error { return os.WriteFile(path, []byte("other"), 0o600) },
		"a directory":   func(path string) error { return os.Mkdir(path, 0o700) },
		"nothing there": func(string) error { return nil },
	} {
		if err := errors.Join(os.RemoveAll(under[0]), put(under[0])); err != nil {
			t.Fatal(err)
		}
		second := regular("v/f", "")
		second.FileSize, second.Offset, second.Data = 2, 1, []byte("b")
		inTime(t, under, func() {
			if err := s.CopyFile(second); err == nil {
				t.Errorf("%s was taken for the file", name)
			}
		})
	}
}

// readPipe opens a pipe for reading, so that others can write to it.
func readPipe(t *testing.T, path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err == nil {
		t.Cleanup(func() { _ = unix.Close(fd) })
	}
	return err
}

// A pipe can be mounted, and is not waited for before.
func TestMountSourceMeetsAPipe(t *testing.T) {
	s := newTestSandbox(t)
	path := filepath.Join(s.dir, sharedDir, "pipe")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	inTime(t, []string{path}, func() {
		if got, err := s.MountSource(shared + "pipe"); err != nil || got != path {
			t.Errorf("%q, %v", got, err)
		}
	})
}

// inTime does something that must not wait for who is at the other end of a pipe.
func inTime(t *testing.T, pipes []string, do func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Error("a pipe holds us")
		for _, path := range pipes { // both ends, so that the other goroutine ends
			if fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK, 0); err == nil {
				_ = unix.Close(fd)
			}
		}
		<-done
	}
}

// sealedText is what a test takes for a sealed secret.
const sealedText = "sealed.fakeheader.fakepayload.fakesignature"

// opener opens what is sealed with a value.
func opener(value string) func(string) (secret.Bytes, error) {
	return func(string) (secret.Bytes, error) { return secret.Copy([]byte(value)), nil }
}

// What was opened is asked for as long as a container may have it, whatever the host
// puts where it came from: else the host would keep a secret in force that its owner
// has taken back.
func TestRefreshOfASourceThatIsGone(t *testing.T) {
	for name, take := range map[string]func(path string) error{
		"gone":                os.RemoveAll,
		"a link nowhere":      func(path string) error { return errors.Join(os.RemoveAll(path), os.Symlink("nowhere", path)) },
		"a directory instead": func(path string) error { return errors.Join(os.RemoveAll(path), os.Mkdir(path, 0o700)) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newTestSandbox(t)
			copyAll(t, s, regular("dir/key", sealedText), regular("alone", sealedText))
			for _, source := range []string{"dir", "alone"} {
				if err := s.Unseal(shared+source, opener("1")); err != nil {
					t.Fatal(err)
				}
				if err := take(filepath.Join(s.dir, sharedDir, source)); err != nil {
					t.Fatal(err)
				}
				refused := errors.New("the owner took it back")
				if err := s.Refresh(shared+source, func(string) (secret.Bytes, error) { return secret.Bytes{}, refused }); !errors.Is(err, refused) {
					t.Errorf("%s: %v", source, err)
				}
			}
		})
	}
}

// A pipe in the place of an opened secret holds nobody: neither the value nor who
// asks again for it, and for all others.
func TestRefreshMeetsAPipe(t *testing.T) {
	s := newTestSandbox(t)
	copyAll(t, s, regular("dir/key", sealedText), regular("alone", sealedText))
	for _, source := range []string{shared + "dir", shared + "alone"} {
		if err := s.Unseal(source, opener("1")); err != nil {
			t.Fatal(err)
		}
		if !s.Unsealed(source) {
			t.Fatalf("%s was not opened", source)
		}
	}
	if err := s.DropUnsealed(shared + "alone"); err != nil {
		t.Fatal(err)
	}
	pipes := []string{filepath.Join(s.dir, sharedDir, "dir/key.unsealed"), filepath.Join(s.dir, sharedDir, "alone")}
	for _, path := range pipes {
		if err := errors.Join(os.Remove(path), unix.Mkfifo(path, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	inTime(t, pipes, func() {
		if err := s.Refresh(shared+"dir", opener("2")); err != nil {
			t.Errorf("a value has its place beside the pipe: %v", err)
		}
		if err := s.Refresh(shared+"alone", opener("2")); err == nil {
			t.Error("a pipe was taken for the file")
		}
	})
	if got := contents(t, s, "dir/key"); got != "2" {
		t.Errorf("the value is %q", got)
	}
}
