package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// containerd is the daemon with its ctr. Encrypted images need ctr-enc and
// ctd-decoder of imgcrypt, which is a tool of its own.
type containerd struct {
	title   string
	of      kind
	bin     string   // directory of containerd and ctr; empty: Debian's
	helpers []string // that it inflates with, on the path
	config  string
}

func (t *containerd) name() string      { return t.title }
func (t *containerd) kind() kind        { return t.of }
func (*containerd) isOurs() bool        { return false }
func (*containerd) can(c testCase) bool { return !c.encrypted && !c.slow }

func (t *containerd) missing() string {
	for _, p := range []string{"containerd", "ctr"} {
		if _, missing := lookup(t.bin, p); missing != "" {
			return p
		}
	}
	for _, h := range t.helpers {
		if _, err := exec.LookPath(h); err != nil {
			return h
		}
	}
	return ""
}

// The daemons have what pulling needs, and what can be done at a time set to
// what helps on two cores.
const (
	containerd2 = `version = 3
root = "%[1]s/root"
state = "%[1]s/state"
disabled_plugins = ["io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri", "io.containerd.nri.v1.nri"]
[grpc]
address = "%[1]s/sock"
[ttrpc]
address = "%[1]s/sock.ttrpc"
[plugins."io.containerd.transfer.v1.local"]
max_concurrent_downloads = 3
max_concurrent_unpacks = 3
`
	containerd1 = `version = 2
root = "%[1]s/root"
state = "%[1]s/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "%[1]s/sock"
[ttrpc]
address = "%[1]s/sock.ttrpc"
`
)

func (t *containerd) start(ctx context.Context, s *session) (pulling, error) {
	config := s.path("config.toml")
	if err := os.WriteFile(config, fmt.Appendf(nil, t.config, s.dir), 0o600); err != nil {
		return nil, err
	}
	daemon, _ := lookup(t.bin, "containerd")
	p := &containerdPull{containerd: t, s: s, log: &strings.Builder{}}
	p.daemon = s.environment(s.group.join(exec.CommandContext(ctx, daemon, "--config", config)))
	p.daemon.Stderr = p.log
	p.daemon.Cancel = func() error { return p.daemon.Process.Signal(syscall.SIGTERM) }
	if err := p.daemon.Start(); err != nil {
		return nil, err
	}
	return p, p.ready(ctx)
}

type containerdPull struct {
	*containerd
	s      *session
	daemon *exec.Cmd
	log    *strings.Builder
}

func (p *containerdPull) ctr(ctx context.Context, args ...string) *exec.Cmd {
	ctr, _ := lookup(p.bin, "ctr")
	return p.s.environment(exec.CommandContext(ctx, ctr, append([]string{"--address", p.s.path("sock")}, args...)...))
}

func (p *containerdPull) ready(ctx context.Context) error {
	err := until(20*time.Second, func() (bool, error) {
		err := output(p.ctr(ctx, "version"))
		return err == nil, err
	})
	if err != nil {
		return errors.Join(err, p.stop())
	}
	return nil
}

func (p *containerdPull) pull(ctx context.Context) error {
	cmd := p.s.group.join(p.ctr(ctx, "images", "pull", "--plain-http", "--snapshotter", "overlayfs", p.s.ref()))
	return output(cmd)
}

func (p *containerdPull) tree(ctx context.Context) (string, error) {
	dir := filepath.Join(p.s.dir, "mounted")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	if err := output(p.ctr(ctx, "images", "mount", "--snapshotter", "overlayfs", p.s.ref(), dir)); err != nil {
		return "", err
	}
	return dir, nil
}

func (p *containerdPull) stop() error {
	_ = p.daemon.Process.Signal(syscall.SIGTERM)
	_ = p.daemon.Wait() // it says that it was told to end
	return nil
}
