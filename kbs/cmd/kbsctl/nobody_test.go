package main

import (
	"archive/tar"
	"bytes"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

const nobody = 65534

// shelf is a registry that can be told to withhold a layer. It holds app:1, whose
// upper layer is the smaller one, so that it comes last.
type shelf struct {
	host    string
	upper   string // digest
	without atomic.Bool
	asked   atomic.Int64 // for the lower layer
}

func newShelf(t *testing.T) *shelf {
	t.Helper()
	s := new(shelf)
	lower := ""
	content := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method != http.MethodGet:
		case lower != "" && strings.Contains(r.URL.Path, lower):
			s.asked.Add(1)
		case s.without.Load() && strings.Contains(r.URL.Path, s.upper):
			http.Error(w, "away", http.StatusNotFound)
			return
		}
		content.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	s.host = strings.TrimPrefix(server.URL, "http://")
	img := empty.Image
	for _, entries := range [][]tar.Header{
		{
			{Name: "closed/", Typeflag: tar.TypeDir, Mode: 0o555, Uid: 1000}, {Name: "closed/su", Typeflag: tar.TypeReg, Mode: 0o4755, Uid: 1000},
			{Name: "closed/gone", Typeflag: tar.TypeReg, Mode: 0o644}, {Name: "null", Typeflag: tar.TypeChar, Mode: 0o666, Devmajor: 1, Devminor: 3},
			{Name: "hidden/", Typeflag: tar.TypeDir, Mode: 0o755}, {Name: "hidden/below", Typeflag: tar.TypeReg, Mode: 0o644}, {Name: "more", Typeflag: tar.TypeReg, Mode: 0o644},
		},
		{{Name: "closed/.wh.gone", Typeflag: tar.TypeReg}, {Name: "hidden/.wh..wh..opq", Typeflag: tar.TypeReg}},
	} {
		var buf bytes.Buffer
		w := tar.NewWriter(&buf)
		for _, h := range entries {
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil })
		if err != nil {
			t.Fatal(err)
		}
		if img, err = mutate.AppendLayers(img, layer); err != nil {
			t.Fatal(err)
		}
		d, err := layer.Digest()
		if err != nil {
			t.Fatal(err)
		}
		lower, s.upper = s.upper, d.Hex
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config.OS, config.Architecture = "linux", "amd64"
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(s.host+"/app:1", name.Insecure)
	if err == nil {
		err = remote.Write(ref, img)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// asNobody runs kbsctl in dir as a user without rights. This program lies where
// that user cannot go, so it is started by its descriptor.
func asNobody(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(self)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	cmd := exec.CommandContext(t.Context(), "/proc/self/fd/3", args...)
	cmd.Args[0], cmd.Dir, cmd.ExtraFiles = "kbsctl", dir, []*os.File{f}
	cmd.Env = []string{"HOME=" + dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// A user without any rights unpacks an image: into files that are his, which is
// said, and what was interrupted goes on.
func TestPullWithoutRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("to be another user needs root")
	}
	s := newShelf(t)
	dir, err := os.MkdirTemp("", "nobody-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	policy := filepath.Join(dir, "policy.json")
	if err := os.WriteFile(policy, []byte(`{"default":[{"type":"insecureAcceptAnything"}],"transports":{}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	pull := func(to string) (string, error) {
		return asNobody(t, dir, "image", "pull", s.host+"/app:1", to, "--policy", "policy.json", "--insecure-plain-http", s.host, "--parallel", "1", "-q")
	}

	s.without.Store(true)
	out, err := pull("out")
	if err == nil || !strings.Contains(out, "what has come is kept in "+dir+"/.out.pull") {
		if strings.Contains(out, "user namespace") && os.Getenv("CI") == "" {
			t.Skipf("user namespaces are not to be had here: %s", out)
		}
		t.Fatalf("%v\n%s", err, out)
	}
	if _, err := os.Stat(filepath.Join(dir, "out")); err == nil {
		t.Error("half an image is there")
	}
	before := s.asked.Load()
	s.without.Store(false)
	if out, err = pull("out"); err != nil || !strings.Contains(out, "WARNING: without root") || !strings.Contains(out, "unpacked  "+dir+"/out") {
		t.Fatalf("%v\n%s", err, out)
	}
	if s.asked.Load() != before {
		t.Error("a layer was fetched twice")
	}
	for path, want := range map[string]os.FileMode{"closed": os.ModeDir | 0o555, "closed/su": 0o755, "null": 0o666, "hidden": os.ModeDir | 0o755, "more": 0o644} {
		info, err := os.Lstat(filepath.Join(dir, "out", path))
		if err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v", path, info, err)
			continue
		}
		if st := info.Sys().(*syscall.Stat_t); st.Uid != nobody || st.Gid != nobody {
			t.Errorf("%s belongs to %d:%d", path, st.Uid, st.Gid)
		}
	}
	for _, gone := range []string{"out/closed/gone", "out/hidden/below", ".out.pull"} {
		if _, err := os.Lstat(filepath.Join(dir, gone)); err == nil {
			t.Errorf("%s is there", gone)
		}
	}

	// A layout needs no namespace; refusals come from the same place as otherwise.
	if out, err := pull("oci:layout:1"); err != nil || strings.Contains(out, "WARNING: without root") {
		t.Errorf("%v\n%s", err, out)
	}
	out, err = pull("out")
	if err == nil || strings.Count(out, "is not empty") != 1 {
		t.Errorf("%v\n%s", err, out)
	}
}
