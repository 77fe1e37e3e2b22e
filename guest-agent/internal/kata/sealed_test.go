package kata

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/sandbox"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// box opens "sealed.NAME" as the value of NAME.
type box struct {
	values map[string]string
	asked  atomic.Int32
}

func (b *box) Unseal(_ context.Context, text string) (secret.Bytes, error) {
	b.asked.Add(1)
	v, ok := b.values[strings.TrimSpace(text)]
	if !ok {
		return secret.Bytes{}, fault.New(fault.PolicyDenied, errors.New("a private cause")).With("T-1")
	}
	return secret.New([]byte(v)), nil
}

func withSecrets(b *box) podOption { return func(c *Config) { c.Secrets = b } }

// volume writes files as a runtime copies a Kubernetes secret in, and returns the
// source of its mount.
func (p *pod) volume(name string, files map[string]string) string {
	p.t.Helper()
	dir := filepath.Join(p.dir, "shared/containers", name)
	if err := os.MkdirAll(filepath.Join(dir, "..data"), 0o755); err != nil {
		p.t.Fatal(err)
	}
	for file, text := range files {
		if err := os.WriteFile(filepath.Join(dir, "..data", file), []byte(text), 0o640); err != nil {
			p.t.Fatal(err)
		}
		if err := os.Symlink("..data/"+file, filepath.Join(dir, file)); err != nil {
			p.t.Fatal(err)
		}
	}
	return sandbox.GuestDir + "/shared/containers/" + name
}

func bind(source, destination string) *agent.Mount {
	return &agent.Mount{Source: source, Destination: destination, Type: "bind", Options: []string{"rbind", "ro"}}
}

func TestSealedSecretsReachTheContainer(t *testing.T) {
	b := &box{values: map[string]string{"sealed.env": "from the environment", "sealed.file": "from a file\n"}}
	p := newSandbox(t, withSecrets(b))
	req := p.request("c1", "sh", "-c", `echo "$SECRET|$PLAIN"; cat /etc/secret/key /etc/secret/plain /etc/one; ls -l /etc/secret/`)
	req.OCI.Process.Env = append(req.OCI.Process.Env, "SECRET=sealed.env", "PLAIN=unsealed")
	volume := p.volume("v1", map[string]string{"key": "sealed.file\n", "plain": "as it was\n", "s": "s"})
	one := p.volume("v2", map[string]string{"one": "sealed.file"})
	req.OCI.Mounts = append(req.OCI.Mounts, bind(volume, "/etc/secret"), bind(one+"/one", "/etc/one"))
	p.create(req)
	p.start("c1")
	out := p.output("c1", "")
	if !strings.HasPrefix(out, "from the environment|unsealed\nfrom a file\nas it was\nfrom a file\n") {
		t.Errorf("the container saw %q", out)
	}
	p.wait("c1", "")

	// A second container of the pod mounts what the first one's creation opened,
	// and an exec has the environment's value too.
	asked := b.asked.Load()
	again := p.request("c2", "sleep", "60")
	again.OCI.Mounts = append(again.OCI.Mounts, bind(volume, "/etc/secret"))
	p.create(again)
	p.start("c2")
	if n := b.asked.Load(); n != asked {
		t.Errorf("%d secrets were asked for once more", n-asked)
	}
	_, err := p.client.ExecProcess(t.Context(), &agent.ExecProcessRequest{
		ContainerId: "c2", ExecId: "e",
		Process: &agent.Process{User: &agent.User{}, Args: []string{"sh", "-c", "echo $SECRET; cat /etc/secret/key"}, Env: []string{"PATH=/bin", "SECRET=sealed.env"}, Cwd: "/"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if out := p.output("c2", "e"); out != "from the environment\nfrom a file\n" {
		t.Errorf("the second process saw %q", out)
	}
}

// A secret that cannot be opened stops the container; the host learns a code
// and a ticket.
func TestWhatCannotBeUnsealedStopsTheContainer(t *testing.T) {
	b := &box{values: map[string]string{"sealed.binary": "\xff", "sealed.nul": "a\x00b"}}
	p := newSandbox(t, withSecrets(b))
	for name, change := range map[string]func(*agent.CreateContainerRequest){
		"variable": func(r *agent.CreateContainerRequest) {
			r.OCI.Process.Env = append(r.OCI.Process.Env, "A=sealed.unknown")
		},
		"binary": func(r *agent.CreateContainerRequest) {
			r.OCI.Process.Env = append(r.OCI.Process.Env, "A=sealed.binary")
		},
		"nul": func(r *agent.CreateContainerRequest) { r.OCI.Process.Env = append(r.OCI.Process.Env, "A=sealed.nul") },
		"file": func(r *agent.CreateContainerRequest) {
			r.OCI.Mounts = append(r.OCI.Mounts, bind(p.volume("bad", map[string]string{"key": "sealed.unknown"}), "/s"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			req := p.request("c-"+name, "sh", "-c", "echo started")
			change(req)
			_, err := p.client.CreateContainer(t.Context(), req)
			wantCode(t, err, codes.PermissionDenied)
			if err != nil && strings.Contains(err.Error(), "private") {
				t.Errorf("the host was told %v", err)
			}
		})
	}
}

// A volume's files lead nowhere outside of what the host may fill, and what is
// no regular file holds nobody up.
func TestSealedFilesStayInTheirRoom(t *testing.T) {
	b := &box{values: map[string]string{"sealed.file": "value"}}
	p := newSandbox(t, withSecrets(b))
	outside := filepath.Join(p.dir, "outside")
	if err := os.WriteFile(outside, []byte("sealed.file"), 0o600); err != nil {
		t.Fatal(err)
	}
	source := p.volume("v", map[string]string{"key": "sealed.file"})
	dir := filepath.Join(p.dir, "shared/containers/v")
	for name, target := range map[string]string{"out": "../../../outside", "abs": outside, "none": "nowhere", "up": "../v"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := mkfifo(filepath.Join(dir, "pipe")); err != nil {
		t.Fatal(err)
	}
	req := p.request("c1", "cat", "/s/key")
	req.OCI.Mounts = append(req.OCI.Mounts, bind(source, "/s"))
	p.create(req)
	p.start("c1")
	if out := p.output("c1", ""); out != "value" {
		t.Errorf("the container saw %q", out)
	}
	if raw, err := os.ReadFile(outside); err != nil || string(raw) != "sealed.file" || b.asked.Load() != 1 {
		t.Errorf("a file outside became %q, %v; %d secrets were asked for", raw, err, b.asked.Load())
	}
}

func TestNobodyToUnseal(t *testing.T) {
	p := newSandbox(t)
	req := p.request("c1", "true")
	req.OCI.Process.Env = append(req.OCI.Process.Env, "A=sealed.x.y.z")
	_, err := p.client.CreateContainer(t.Context(), req)
	wantCode(t, err, codes.FailedPrecondition)
}
