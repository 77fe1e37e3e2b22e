// Package guides runs the guides of the documentation as they are written:
// every shell block of a page, from top to bottom, in one shell, as a reader
// would paste them.
package guides

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/vouchsafe-cc/vouchsafe/measure/predict/predicttest"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/rootfstest"
	"github.com/vouchsafe-cc/vouchsafe/tests/internal/guestnet"
	"github.com/vouchsafe-cc/vouchsafe/tests/internal/ociregistry"
)

const root = "../.."

func TestBroker(t *testing.T) { follow(t, "broker.md", nil) }

func TestOperate(t *testing.T) {
	needs(t, "curl", "curl")
	follow(t, "operate.md", nil)
}

// What Trustee has kept is made up; a reader has his own.
func TestTrustee(t *testing.T) {
	needs(t, "jq", "jq")
	follow(t, "trustee.md", writeTrustee)
}

func TestAudit(t *testing.T) { follow(t, "audit.md", nil) }

// The files of a virtual machine are made up; a reader has his own.
func TestPredict(t *testing.T) { follow(t, "predict.md", predicttest.Write) }

// The packages, the lock and the agent are made up; a reader has his own.
func TestRootfs(t *testing.T) {
	needs(t, "openssl", "openssl")
	needs(t, "sbsiglist", "sbsigntool")
	follow(t, "rootfs.md", func(dir string) error { return rootfstest.Write(t.Context(), dir) })
}

func TestAttest(t *testing.T) {
	needs(t, "swtpm", "swtpm")
	follow(t, "attest.md", nil)
}

// The image that is shipped is a reader's own, and so is the registry.
func TestImages(t *testing.T) {
	needs(t, "skopeo", "skopeo")
	reg, err := ociregistry.Start(t.TempDir(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := reg.Close(); err != nil {
			t.Error(err)
		}
	})
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, reg.CA, 0o600); err != nil {
		t.Fatal(err)
	}
	follow(t, "images.md", writeImage, reaches(reg.Addr), knows("REG="+reg.Addr+"/shop", "SSL_CERT_FILE="+ca))
}

// needs skips a page whose program is not installed; where all are to be, it fails.
func needs(t *testing.T, program, pkg string) {
	t.Helper()
	if _, err := exec.LookPath(program); err == nil {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is not installed: apt-get install %s", program, pkg)
	}
	t.Skipf("%s is not installed: apt-get install %s", program, pkg)
}

// A circumstance is what a page's reader has beside the commands.
type circumstance func(network *guestnet.Net, cmd *exec.Cmd) error

// reaches lets the page reach a server of the test.
func reaches(addr string) circumstance {
	return func(network *guestnet.Net, _ *exec.Cmd) error { return network.Forward(addr) }
}

// knows sets variables.
func knows(env ...string) circumstance {
	return func(_ *guestnet.Net, cmd *exec.Cmd) error {
		cmd.Env = append(cmd.Env, env...)
		return nil
	}
}

// The image of the pod is a reader's own.
func TestPolicy(t *testing.T) { follow(t, "policy.md", writeImage) }

// writeImage writes the OCI layout "app" with an image of two layers.
func writeImage(dir string) error {
	image, err := random.Image(2000, 2)
	if err != nil {
		return err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return err
	}
	config.OS, config.Architecture = "linux", runtime.GOARCH
	if image, err = mutate.ConfigFile(image, config); err != nil {
		return err
	}
	path, err := layout.Write(filepath.Join(dir, "app"), empty.Index)
	if err != nil {
		return err
	}
	return path.AppendImage(mutate.MediaType(image, types.OCIManifestSchema1), layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "1"}))
}

func TestPostgreSQL(t *testing.T) {
	if found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb"); err != nil || len(found) == 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("PostgreSQL is not installed: apt-get install postgresql")
		}
		t.Skip("PostgreSQL is not installed: apt-get install postgresql")
	}
	follow(t, "postgresql.md", nil)
}

// follow runs a page in a directory of its own and in a network of its own, so
// that the ports it names are free, with the built commands on the path. What the
// page begins with is put into the directory by prepare, nil for nothing.
func follow(t *testing.T, page string, prepare func(dir string) error, with ...circumstance) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("a network namespace needs root")
	}
	bin, err := filepath.Abs(filepath.Join(root, "bin"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(bin, "kbs")); err != nil {
		t.Skip("the commands are not built: make build")
	}
	text, err := os.ReadFile(filepath.Join(root, "docs", "guides", page))
	if err != nil {
		t.Fatal(err)
	}
	script := blocks(string(text))
	if script == "" {
		t.Fatalf("%s has no shell block", page)
	}
	network, err := guestnet.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := network.Close(); err != nil {
			t.Error(err)
		}
	})
	dir := t.TempDir()
	if prepare != nil {
		if err := prepare(dir); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/bash", "-euo", "pipefail", "-c", script)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + dir, "LANG=C.UTF-8"}
	for _, w := range with {
		if err := w(network, cmd); err != nil {
			t.Fatal(err)
		}
	}
	// What a page leaves running ends with it: the whole group is killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = 5 * time.Second
	if err := network.Start(cmd); err != nil {
		t.Fatal(err)
	}
	err = cmd.Wait()
	if kill := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); err == nil && !errors.Is(kill, syscall.ESRCH) {
		err = errors.New("the page leaves programs running")
	}
	if err != nil {
		t.Fatalf("%s: %v\n%s", page, err, &out)
	}
	for line := range strings.Lines(out.String()) {
		if strings.Contains(line, "the launch code") && !strings.HasPrefix(line, "+") {
			t.Errorf("a secret was printed: %s", line)
		}
	}
}

// blocks joins the blocks that are marked as shell. The shell shows each line
// that it runs, so that a failure shows how far it came.
func blocks(text string) string {
	var script strings.Builder
	inside := false
	for line := range strings.Lines(text) {
		switch trimmed := strings.TrimRight(line, "\n"); {
		case !inside && trimmed == "```sh":
			inside = true
			script.WriteString("set -x\n")
		case inside && trimmed == "```":
			inside = false
		case inside:
			script.WriteString(line)
		}
	}
	return script.String()
}
