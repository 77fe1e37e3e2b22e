package kata

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/lease"
)

// shelf holds leases, and is asked by the test instead of by the clock.
type shelf struct {
	mu  sync.Mutex
	all map[*lease.Lease]struct{}
}

func withLeases(s *shelf) podOption {
	s.all = map[*lease.Lease]struct{}{}
	return func(c *Config) { c.Leases = s }
}

func (s *shelf) Hold(l lease.Lease) func() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all[&l] = struct{}{}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.all, &l)
	}
}

func (s *shelf) held() (all []*lease.Lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range s.all {
		all = append(all, l)
	}
	return all
}

// ask asks for everything, and returns the first failure.
func (s *shelf) ask(t *testing.T) (first error) {
	t.Helper()
	for _, l := range s.held() {
		if err := l.Ask(t.Context()); err != nil && first == nil {
			first = err
		}
	}
	return first
}

func (s *shelf) drop(t *testing.T) {
	t.Helper()
	for _, l := range s.held() {
		if l.Drop == nil {
			continue
		}
		if err := l.Drop(); err != nil {
			t.Error(err)
		}
	}
}

// sees is what a container reads in its files.
func (p *pod) sees(id, execID string, files ...string) string {
	p.t.Helper()
	p.exec(id, execID, append([]string{"cat"}, files...)...)
	return p.output(id, execID)
}

// A secret that rotates arrives in a directory in one step; what a process has
// in its environment or as a single file stays.
func TestARotatedSecretArrives(t *testing.T) {
	b := &box{values: map[string]string{"sealed.file": "old", "sealed.env": "old", "sealed.late": "late"}}
	s := &shelf{}
	p := newSandbox(t, withSecrets(b), withLeases(s))
	req := p.request("c1", "sleep", "1000")
	req.OCI.Process.Env = append(req.OCI.Process.Env, "SECRET=sealed.env")
	volume, single := p.volume("v1", map[string]string{"key": "sealed.file"}), p.volume("v2", map[string]string{"one": "sealed.file"})
	req.OCI.Mounts = append(req.OCI.Mounts, bind(volume, "/s"), bind(single+"/one", "/one"))
	p.create(req)
	p.start("c1")
	if n := len(s.held()); n != 3 {
		t.Errorf("%d leases of a variable, a directory and a file", n)
	}
	dir := filepath.Join(p.dir, "shared/containers/v1")
	before, err := os.Open(filepath.Join(dir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = before.Close() }()
	same, err := os.Stat(filepath.Join(dir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.ask(t); err != nil {
		t.Fatal(err)
	}
	if now, err := os.Stat(filepath.Join(dir, "key")); err != nil || !os.SameFile(now, same) {
		t.Errorf("a value that did not change was written again: %v", err)
	}

	b.values["sealed.file"], b.values["sealed.env"] = "new, and longer", "new"
	if err := s.ask(t); err != nil {
		t.Fatal(err)
	}
	if got := p.sees("c1", "e1", "/s/key", "/one"); got != "new, and longer"+"old" {
		t.Errorf("the container sees %q", got)
	}
	if raw, err := io.ReadAll(before); err != nil || string(raw) != "old" {
		t.Errorf("who had the old file open reads %q, %v", raw, err)
	}
	p.exec("c1", "e2", "sh", "-c", "cat /proc/1/environ; ls -A /s")
	if out := p.output("c1", "e2"); strings.Contains(out, ".unsealing") {
		t.Errorf("something was left: %s", out)
	}

	// What the host copies in later is opened too, in place of what was there.
	if err := os.WriteFile(filepath.Join(dir, "..data/late"), []byte("sealed.late"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"late", "key"} {
		_ = os.Remove(filepath.Join(dir, name))
		if err := os.Symlink("..data/late", filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.ask(t); err != nil {
		t.Fatal(err)
	}
	if got := p.sees("c1", "e3", "/s/late", "/s/key"); got != "latelate" {
		t.Errorf("the container sees %q", got)
	}
	if _, err := p.client.RemoveContainer(t.Context(), &agent.RemoveContainerRequest{ContainerId: "c1"}); err != nil {
		t.Fatal(err)
	}
	if n := len(s.held()); n != 0 {
		t.Errorf("%d leases of a container that is gone", n)
	}
}

// What was dropped is gone for those that run, nobody starts without it, and it
// comes back with the broker's yes.
func TestADroppedSecretIsGone(t *testing.T) {
	b := &box{values: map[string]string{"sealed.file": "value"}}
	s := &shelf{}
	p := newSandbox(t, withSecrets(b), withLeases(s))
	req := p.request("c1", "sleep", "1000")
	volume, single := p.volume("v1", map[string]string{"key": "sealed.file"}), p.volume("v2", map[string]string{"one": "sealed.file"})
	req.OCI.Mounts = append(req.OCI.Mounts, bind(volume, "/s"), bind(single+"/one", "/one"))
	p.create(req)
	p.start("c1")
	delete(b.values, "sealed.file")
	if err := s.ask(t); fault.CodeOf(err) != fault.PolicyDenied {
		t.Errorf("%v", err)
	}
	if got := p.sees("c1", "e1", "/s/key", "/one"); got != "valuevalue" {
		t.Errorf("a refusal alone took %q away", got)
	}
	s.drop(t)
	s.drop(t)
	if got := p.sees("c1", "e2", "/s/key", "/one"); got != "" {
		t.Errorf("the container still sees %q", got)
	}
	late := p.request("c2", "sleep", "1000")
	late.OCI.Mounts = append(late.OCI.Mounts, bind(volume, "/s"))
	_, err := p.client.CreateContainer(t.Context(), late)
	wantCode(t, err, codes.PermissionDenied)

	b.values["sealed.file"] = "again"
	if err := s.ask(t); err != nil {
		t.Fatal(err)
	}
	if got := p.sees("c1", "e3", "/s/key", "/one"); got != "againagain" {
		t.Errorf("the container sees %q", got)
	}
	p.create(late)
	p.start("c2")
	if got := p.sees("c2", "e1", "/s/key"); got != "again" {
		t.Errorf("the second container sees %q", got)
	}
	if err := p.server.Kill(t.Context(), "c1"); err != nil {
		t.Fatal(err)
	}
	if code := p.wait("c1", "c1"); code != 137 {
		t.Errorf("a container that was stopped ended with %d", code)
	}
	if err := p.server.Kill(t.Context(), "none"); err == nil {
		t.Error("killed nobody")
	}
}

// A file whose secret was taken away is empty, and no place for last words: the host,
// who reads those, would read the secret when it comes back.
func TestADroppedSecretIsNoMessage(t *testing.T) {
	b := &box{values: map[string]string{"sealed.file": "value"}}
	s := &shelf{}
	p := newSandbox(t, withSecrets(b), withLeases(s))
	first := p.request("c1", "sleep", "1000")
	single := p.volume("v1", map[string]string{"one": "sealed.file"})
	first.OCI.Mounts = append(first.OCI.Mounts, bind(single+"/one", "/one"))
	p.create(first)
	p.start("c1")
	s.drop(t)

	files := filepath.Join(p.dir, "shared/containers")
	if err := os.Symlink("v1/one", filepath.Join(files, "link")); err != nil {
		t.Fatal(err)
	}
	second := p.request("c2", "sleep", "1000")
	second.OCI.Mounts = append(second.OCI.Mounts, bind(sharedFiles+"link", "/dev/termination-log"))
	p.create(second)
	if err := s.ask(t); err != nil {
		t.Fatal(err)
	}
	if raw, err := os.ReadFile(filepath.Join(files, "v1/one")); err != nil || string(raw) != "value" {
		t.Errorf("it did not come back: %q, %v", raw, err)
	}
	resp, err := p.client.GetDiagnosticData(t.Context(), &agent.GetDiagnosticDataRequest{ContainerId: "c2", LogType: "termination_log"})
	wantCode(t, err, codes.NotFound)
	if strings.Contains(resp.GetData(), "value") {
		t.Error("the host reads a secret")
	}
}
