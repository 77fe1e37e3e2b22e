package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ownTool is our puller, as the agent uses it, in a process of its own.
type ownTool struct {
	program string
	small   bool
	one     bool   // every layer over one connection
	profile string // file for a CPU profile; empty: none
}

// own is our puller; small as a guest with little memory would have it.
func own(o options, small bool) *ownTool {
	return &ownTool{program: filepath.Join(o.bin, "imagepull"), small: small}
}

// ownOverOne is our puller without the means that the case of slow connections
// is about.
func ownOverOne(o options) *ownTool {
	t := own(o, false)
	t.one = true
	return t
}

func (t *ownTool) name() string {
	switch {
	case t.small:
		return "vouchsafe, small guest"
	case t.one:
		return "vouchsafe, one connection"
	}
	return "vouchsafe"
}

func (t *ownTool) kind() kind {
	if t.one {
		return oneConnection
	}
	return ours
}

func (*ownTool) isOurs() bool { return true }

// can leaves out what would say nothing: what a slow network costs small guests,
// and what one connection costs where layers have one each.
func (t *ownTool) can(c testCase) bool {
	return (!t.small || !c.slow) && (!t.one || c.size == single)
}

func (t *ownTool) missing() string {
	if _, err := os.Stat(t.program); err != nil {
		return t.program
	}
	return ""
}

type ownPull struct {
	cmd    *exec.Cmd
	mount  string
	in     io.WriteCloser
	out    *bufio.Reader
	stderr bytes.Buffer
}

func (t *ownTool) start(ctx context.Context, s *session) (pulling, error) {
	args := []string{"pull", "--store", s.path("store"), "--ref", s.ref(), "--mount", s.path("root")}
	if s.testCase.encrypted {
		args = append(args, "--kek", s.files.kek)
	}
	if t.profile != "" {
		args = append(args, "--profile", t.profile)
	}
	if t.small {
		args = append(args, "--parallel", "2")
	}
	if t.one {
		args = append(args, "--window", "-1")
	}
	p := &ownPull{mount: s.path("root")}
	if err := os.Mkdir(p.mount, 0o755); err != nil {
		return nil, err
	}
	p.cmd = s.environment(s.group.join(exec.CommandContext(ctx, t.program, args...)))
	if t.small {
		p.cmd.Env = append(p.cmd.Env, "GOMEMLIMIT=20MiB")
	}
	p.cmd.Stderr = &p.stderr
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	p.out = bufio.NewReader(out)
	return p, err
}

func (p *ownPull) pull(context.Context) error {
	if err := p.cmd.Start(); err != nil {
		return err
	}
	return p.wait("pulled")
}

func (p *ownPull) wait(word string) error {
	line, err := p.out.ReadString('\n')
	if strings.TrimSpace(line) != word {
		return errors.Join(err, fmt.Errorf("imagepull did not say %q: %s", word, lastLines(p.stderr.String())))
	}
	return nil
}

func (p *ownPull) tree(context.Context) (string, error) { return p.mount, p.wait("mounted") }

func (p *ownPull) stop() error {
	err := p.in.Close()
	if p.cmd.Process != nil {
		err = errors.Join(err, p.cmd.Wait())
	}
	return err
}
