// Package trees unpacks the same images with our pipeline and with what Debian
// ships, umoci and containerd, and compares every inode of the results: type,
// mode, owner, time, size, content, links, devices and attributes.
package trees

import (
	"context"
	"errors"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	cregistry "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/image/pull"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/image/store"
	"github.com/vouchsafe-cc/vouchsafe/image/trust"
	"github.com/vouchsafe-cc/vouchsafe/image/unpack"
	"github.com/vouchsafe-cc/vouchsafe/tests/internal/debimage"
	"github.com/vouchsafe-cc/vouchsafe/tests/internal/tree"
)

const tag = "latest"

func platform(t testing.TB, img v1.Image) v1.Image {
	t.Helper()
	cfg, err := img.ConfigFile()
	must(t, err)
	cfg.OS, cfg.Architecture = "linux", runtime.GOARCH
	img, err = mutate.ConfigFile(img, cfg)
	must(t, err)
	return img
}

func debian(t testing.TB) v1.Image {
	t.Helper()
	dir, err := debimage.Build(t.Context(), filepath.Join("..", "..", "..", ".cache", "image"))
	must(t, err)
	index, err := layout.ImageIndexFromPath(dir)
	must(t, err)
	m, err := index.IndexManifest()
	must(t, err)
	img, err := index.Image(m.Manifests[0].Digest)
	must(t, err)
	return gzipped(t, img)
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("unpacking with owners and devices, and mounting, need root")
	}
}

// fetch pulls the image into a store of its own in dir.
func fetch(t testing.TB, img v1.Image, dir string) *pull.Image {
	t.Helper()
	server := httptest.NewServer(cregistry.New(cregistry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "http://")
	ref, err := name.ParseReference(host+"/trees:"+tag, name.Insecure)
	must(t, err)
	must(t, remote.Write(ref, img, remote.WithContext(t.Context())))
	s, err := store.Open(dir)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	p, err := pull.New(pull.Config{
		Store: s, Registry: registry.Config{InsecureHTTPHosts: []string{host}},
		Policy: func(context.Context) (*trust.Policy, error) {
			return trust.ParsePolicy([]byte(`{"default":[{"type":"insecureAcceptAnything"}],"transports":{}}`))
		},
	})
	must(t, err)
	pulled, err := p.Pull(t.Context(), ref.String())
	must(t, err)
	return pulled
}

// ours pulls the image and returns where it is mounted, and the directory in
// which the store has its layers.
func ours(t testing.TB, img v1.Image) (mounted, layers string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "store")
	pulled := fetch(t, img, dir)
	target := filepath.Join(t.TempDir(), "rootfs")
	must(t, pulled.Mount(t.Context(), target))
	t.Cleanup(func() { must(t, pulled.Release()) })
	return target, filepath.Join(dir, "layers")
}

// writeLayout writes the image as an OCI layout in which it has a name.
func writeLayout(t testing.TB, img v1.Image) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "layout")
	path, err := layout.Write(dir, empty.Index)
	must(t, err)
	must(t, path.AppendImage(img, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": tag}),
		layout.WithPlatform(v1.Platform{OS: "linux", Architecture: runtime.GOARCH})))
	return dir
}

func run(t testing.TB, program string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func read(t testing.TB, dir string) tree.Tree {
	t.Helper()
	got, err := tree.Read(dir)
	must(t, err)
	return got
}

func compare(t *testing.T, whose string, mine, theirs tree.Tree) {
	t.Helper()
	if len(mine) < 20 {
		t.Fatalf("only %d inodes: nothing was compared", len(mine))
	}
	diff := tree.Diff(mine, theirs)
	for i, d := range diff {
		if i == 20 {
			t.Errorf("and %d more", len(diff)-i)
			break
		}
		t.Errorf("ours and %s differ in %s", whose, d)
	}
}

// settled is the tree without the times of the moment, which directories have
// that no layer describes.
func settled(t tree.Tree, start time.Time) tree.Tree {
	for name, i := range t {
		if i.Modified.After(start.Add(-time.Minute)) {
			i.Modified = time.Time{}
			t[name] = i
		}
	}
	return t
}

// Where others differ, and why ours is right. Each takes what is excused off
// both trees, and fails if there is nothing to excuse any more.
type excuse struct {
	whose, image string
	names        []string
	why          string
	equal        func(mine, theirs *tree.Inode)
}

func times(mine, theirs *tree.Inode) { theirs.Modified = mine.Modified }

var excuses = []excuse{
	{"containerd", "everything", []string{"."}, "containerd leaves out what archives say of the root; the specification does not", func(mine, theirs *tree.Inode) { *theirs = *mine }},
	{"containerd", "everything", []string{"home", "home/me", "tmp", "var", "var/log"},
		"a layer above uses them and does not describe them: containerd takes all but the time from the layer that does", times},
	{"umoci", "everything", []string{"."}, "umoci writes later layers into the same directory", times},
	{"umoci", "debian", []string{"."}, "no layer describes it; 1970 is as good as the moment", times},
	{"umoci", "everything", []string{"noted"}, "an attribute without a value is one all the same", func(mine, theirs *tree.Inode) { theirs.Xattrs = mine.Xattrs }},
}

func excused(t *testing.T, whose, image string, mine, theirs tree.Tree) {
	t.Helper()
	for _, e := range excuses {
		if e.whose != whose || e.image != image {
			continue
		}
		for _, n := range e.names {
			a, b := mine[n], theirs[n]
			if a == b {
				t.Errorf("%s agrees about %q by now: %s", whose, n, e.why)
			}
			e.equal(&a, &b)
			theirs[n] = b
		}
	}
	compare(t, whose+"'s", mine, theirs)
}

func TestTrees(t *testing.T) {
	needRoot(t)
	start := time.Now()
	for name, img := range map[string]v1.Image{"everything": everything(t), "debian": debian(t)} {
		t.Run(name, func(t *testing.T) {
			mounted, layers := ours(t, img)
			mine := settled(read(t, mounted), start)
			t.Run("as one directory", func(t *testing.T) {
				dir := t.TempDir()
				pulled, target := fetch(t, img, filepath.Join(dir, "store")), filepath.Join(dir, "rootfs")
				must(t, pulled.MoveTo(t.Context(), target))
				compare(t, "our directory's", mine, settled(read(t, target), start))
			})
			t.Run("umoci", func(t *testing.T) {
				bundle := filepath.Join(t.TempDir(), "bundle")
				run(t, "umoci", "unpack", "--image", writeLayout(t, img)+":"+tag, bundle)
				excused(t, "umoci", name, mine, settled(read(t, filepath.Join(bundle, "rootfs")), start))
			})
			t.Run("containerd", func(t *testing.T) {
				c := startContainerd(t)
				excused(t, "containerd", name, mine, settled(read(t, c.mount(img)), start))
				c.compareLayers(t, img, layers, start)
			})
		})
	}
}

// containerd runs in a directory of its own, without any plugin that would
// reach out of it.
type containerd struct {
	testing.TB
	dir, sock string
}

func startContainerd(t testing.TB) *containerd {
	t.Helper()
	dir, err := os.MkdirTemp("", "containerd-") // a short path: it has a socket
	must(t, err)
	c := &containerd{TB: t, dir: dir, sock: filepath.Join(dir, "sock")}
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	config := `version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
`
	must(t, os.WriteFile(filepath.Join(dir, "config.toml"), []byte(config), 0o600))
	logs, err := os.Create(filepath.Join(dir, "log"))
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	daemon := exec.CommandContext(ctx, "containerd", "--config", filepath.Join(dir, "config.toml"), "--root", filepath.Join(dir, "root"),
		"--state", filepath.Join(dir, "state"), "--address", c.sock)
	daemon.Stdout, daemon.Stderr = logs, logs
	daemon.Cancel = func() error { return daemon.Process.Signal(unix.SIGTERM) }
	must(t, daemon.Start())
	t.Cleanup(func() {
		cancel()
		_ = daemon.Wait()
		_ = logs.Close()
	})
	for !c.up() {
		select {
		case <-time.After(50 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatal("containerd does not come up")
		}
	}
	return c
}

func (c *containerd) up() bool {
	return exec.CommandContext(c.Context(), "ctr", "--address", c.sock, "version").Run() == nil
}

func (c *containerd) ctr(args ...string) string {
	c.Helper()
	return run(c, "ctr", append([]string{"--address", c.sock}, args...)...)
}

// mount imports the image and returns where it is mounted.
func (c *containerd) mount(img v1.Image) string {
	c.Helper()
	tarball := filepath.Join(c.TempDir(), "image.tar")
	run(c, "tar", "-C", writeLayout(c, img), "-cf", tarball, ".")
	c.ctr("images", "import", "--base-name", "trees", tarball)
	target := c.TempDir()
	c.ctr("images", "mount", "trees:"+tag, target)
	c.Cleanup(func() { must(c, unix.Unmount(target, 0)) })
	return target
}

// compareLayers compares the layers by themselves, in the form that overlayfs
// takes: with marks for what was deleted, and opaque directories.
func (c *containerd) compareLayers(t *testing.T, img v1.Image, layers string, start time.Time) {
	cfg, err := img.ConfigFile()
	must(t, err)
	marks := 0
	for n, id := range cfg.RootFS.DiffIDs {
		layer := filepath.Join(layers, "sha256-"+id.Hex)
		mine := settled(read(t, filepath.Join(layer, "fs")), start)
		theirs := settled(read(t, filepath.Join(c.dir, "root", "io.containerd.snapshotter.v1.overlayfs", "snapshots", strconv.Itoa(n+1), "fs")), start)
		implied, err := os.ReadFile(filepath.Join(layer, "implied"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		for name := range strings.SplitSeq(string(implied), "\x00") { // theirs are copies of those below, ours are repaired by mounts
			delete(mine, name)
			delete(theirs, name)
		}
		delete(mine, ".") // see the excuses
		delete(theirs, ".")
		for _, i := range mine {
			if i.Kind == "deleted" || strings.Contains(i.Xattrs, unpack.XattrOpaque) {
				marks++
			}
		}
		for _, d := range tree.Diff(mine, theirs) {
			t.Errorf("layer %d: ours and containerd's differ in %s", n, d)
		}
	}
	if marks == 0 {
		t.Error("nothing was deleted by a layer: this comparison shows less than it says")
	}
}
