package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// peers lists the tools that ours is held against.
func peers(o options) []tool {
	built := filepath.Join(o.cache, "bin")
	return []tool{
		&containerd{title: "containerd 2.4, igzip, parallel unpack", of: newest, bin: built, helpers: []string{"igzip"}, config: containerd2},
		&copying{title: "skopeo + umoci, current Go", of: rebuilt, copier: filepath.Join(built, "copier"), umoci: filepath.Join(built, "umoci")},
		&containerd{title: "containerd 1.6 of Debian", of: debian, helpers: []string{"unpigz"}, config: containerd1},
		&copying{title: "skopeo + umoci of Debian", of: debian, copier: "/usr/bin/skopeo", umoci: "/usr/bin/umoci"},
		&storing{program: "buildah", decrypts: true},
		&storing{program: "podman"},
	}
}

// copying is a copy into an OCI layout that umoci unpacks.
type copying struct {
	title         string
	of            kind
	copier, umoci string
}

func (t *copying) name() string      { return t.title }
func (t *copying) kind() kind        { return t.of }
func (*copying) isOurs() bool        { return false }
func (*copying) can(c testCase) bool { return !c.slow }

func (t *copying) missing() string {
	for _, p := range []string{t.copier, t.umoci} {
		if _, err := os.Stat(p); err != nil {
			return p
		}
	}
	return ""
}

func (t *copying) start(_ context.Context, s *session) (pulling, error) {
	return &copyPull{t, s}, nil
}

type copyPull struct {
	*copying
	s *session
}

func (p *copyPull) pull(ctx context.Context) error {
	var args []string
	if p.of == debian {
		args = []string{"--insecure-policy", "copy", "--src-tls-verify=false"}
		if p.s.testCase.encrypted {
			args = append(args, "--decryption-key", p.s.files.private)
		}
	} else if p.s.testCase.encrypted {
		args = []string{"--key", p.s.files.private}
	}
	args = append(args, "docker://"+p.s.ref(), "oci:"+p.s.path("oci")+":v1")
	if err := p.s.run(ctx, p.copier, args...); err != nil {
		return err
	}
	return p.s.run(ctx, p.umoci, "raw", "unpack", "--image", p.s.path("oci")+":v1", p.s.path("root"))
}

func (p *copyPull) tree(context.Context) (string, error) { return p.s.path("root"), nil }
func (p *copyPull) stop() error                          { return nil }

// storing is a tool over containers/storage.
type storing struct {
	program  string
	decrypts bool
}

func (t *storing) name() string        { return t.program + " of Debian" }
func (*storing) kind() kind            { return debian }
func (*storing) isOurs() bool          { return false }
func (t *storing) can(c testCase) bool { return (t.decrypts || !c.encrypted) && !c.slow }

func (t *storing) missing() string {
	_, missing := lookup("", t.program)
	return missing
}

func (t *storing) start(_ context.Context, s *session) (pulling, error) {
	return &storePull{storing: t, s: s}, nil
}

type storePull struct {
	*storing
	s *session
}

func (p *storePull) args(words ...string) []string {
	return append([]string{"--root", p.s.path("root"), "--runroot", p.s.path("run"), "--storage-driver", "overlay"}, words...)
}

func (p *storePull) pull(ctx context.Context) error {
	words := []string{"pull", "--quiet", "--tls-verify=false", "--signature-policy", p.s.files.policy}
	if p.s.testCase.encrypted {
		words = append(words, "--decryption-key", p.s.files.private)
	}
	return p.s.run(ctx, "/usr/bin/"+p.program, p.args(append(words, "docker://"+p.s.ref())...)...)
}

func (p *storePull) tree(ctx context.Context) (string, error) {
	words := []string{"image", "mount", p.s.ref()}
	if p.program == "buildah" {
		if _, err := p.answer(ctx, "from", "--pull-never", "--signature-policy", p.s.files.policy, "--name", "seen", p.s.ref()); err != nil {
			return "", err
		}
		words = []string{"mount", "seen"}
	}
	return p.answer(ctx, words...)
}

func (p *storePull) answer(ctx context.Context, words ...string) (string, error) {
	cmd := p.s.environment(exec.CommandContext(ctx, "/usr/bin/"+p.program, p.args(words...)...))
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
}

func (p *storePull) stop() error { return nil }
