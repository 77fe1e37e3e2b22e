package cpio

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/tree"
)

func sample(t testing.TB) *tree.Tree {
	t.Helper()
	out := tree.New()
	for p, f := range map[string]tree.File{
		"/init":           {Mode: fs.ModeSymlink | 0o777, Target: "usr/bin/agent"},
		"/usr/bin/agent":  {Mode: 0o755, Content: []byte("\x7fELF agent"), Declared: true},
		"/etc/empty":      {Mode: 0o600},
		"/lib/modules/ko": {Mode: 0o644, Content: bytes.Repeat([]byte("m"), 5001)},
	} {
		if err := out.Add(p, f); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func archive(t testing.TB, from *tree.Tree) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, from); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestReadAgain(t *testing.T) {
	raw := archive(t, sample(t))
	got, err := Read(raw)
	if err != nil {
		t.Fatal(err)
	}
	if f, ok := got.Get("/usr/lib/modules/ko"); !ok || len(f.Content) != 5001 {
		t.Error("the module is not where packages before the merge of /usr put it")
	}
	if f, _ := got.Get("/lib"); f.Target != "usr/lib" {
		t.Errorf("/lib is %v -> %q", f.Mode, f.Target)
	}
	for at := 0; at < len(raw); at += 13 {
		other := bytes.Clone(raw)
		other[at] ^= 0x40
		again, err := Read(other)
		if err == nil && bytes.Equal(archive(t, again), raw) {
			t.Errorf("byte %d is another, and nothing shows it", at)
		}
		if err != nil && !errors.Is(err, ErrArchive) {
			t.Errorf("byte %d: %v", at, err)
		}
	}
	for name, other := range map[string][]byte{"cut": raw[:len(raw)-513], "longer": append(bytes.Clone(raw), 0), "empty": nil} {
		if _, err := Read(other); !errors.Is(err, ErrArchive) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Another reader of the format sees the same files.
func TestReadByBusybox(t *testing.T) {
	if _, err := exec.LookPath("busybox"); err != nil {
		t.Skip("busybox is not installed, which reads the archive here (make test installs it)")
	}
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "busybox", "cpio", "-i", "-d")
	cmd.Dir, cmd.Stdin = dir, bytes.NewReader(archive(t, sample(t)))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	got, err := os.ReadFile(filepath.Join(dir, "init"))
	if err != nil || string(got) != "\x7fELF agent" {
		t.Errorf("/init: %q, %v", got, err)
	}
}

// What is accepted is the same bytes when it is written again.
func FuzzRead(f *testing.F) {
	f.Add(archive(f, tree.Empty()))
	f.Add(archive(f, sample(f)))
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := Read(raw)
		if err == nil && !bytes.Equal(archive(t, got), raw) {
			t.Error("accepted, and is something else when written again")
		}
	})
}
