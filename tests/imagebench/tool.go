package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

type kind int

const (
	ours kind = iota
	debian
	rebuilt       // the libraries of Debian's tools, built with the Go that builds ours
	newest        // containerd of today
	oneConnection // ours, but a layer comes over one connection
	anyPeer
)

// A tool pulls images.
type tool interface {
	name() string
	kind() kind
	isOurs() bool
	missing() string // what is needed and not there
	can(c testCase) bool
	// start prepares a pull into a fresh directory: daemons are up when it returns.
	start(ctx context.Context, s *session) (pulling, error)
}

// pulling is a tool at work on one image.
type pulling interface {
	pull(ctx context.Context) error
	// tree makes the image's root file system visible and returns its path.
	tree(ctx context.Context) (string, error)
	// stop ends what start began. Mounts and the directory are the caller's to remove.
	stop() error
}

// A session is one pull of one tool.
type session struct {
	testCase testCase
	dir      string // fresh, on the storage of the case
	host     string
	files    secrets
	group    *group
}

// secrets are the files with which encrypted images are opened, and the policy
// that Debian's tools want.
type secrets struct{ kek, private, policy string }

func (s *session) ref() string { return s.host + "/" + imageName + ":" + imageTag }

func (s *session) path(parts ...string) string {
	return filepath.Join(append([]string{s.dir}, parts...)...)
}

// run runs a program of the tool to its end, in the group.
func (s *session) run(ctx context.Context, program string, args ...string) error {
	cmd := s.group.join(exec.CommandContext(ctx, program, args...))
	return output(s.environment(cmd))
}

// environment keeps what a tool puts aside where its state is.
func (s *session) environment(cmd *exec.Cmd) *exec.Cmd {
	cmd.Env = append(os.Environ(), "TMPDIR="+s.dir, "XDG_RUNTIME_DIR="+s.dir, "GODEBUG=", "CONTAINERD_ADDRESS=")
	return cmd
}

func output(cmd *exec.Cmd) error {
	text, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, lastLines(string(text)))
	}
	return nil
}

func lastLines(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-3):], "; ")
}

// lookup finds a program: in dir or, if that is empty, on the path, where the
// ones of Debian are.
func lookup(dir, program string) (path, missing string) {
	path = filepath.Join(dir, program)
	if dir == "" {
		path = filepath.Join("/usr/bin", program)
	}
	if _, err := os.Stat(path); err != nil {
		return path, program
	}
	return path, ""
}

// unmountBelow undoes every mount in dir: those that a tool was asked for, and
// those that it made for itself. It does so also when the run is interrupted.
func unmountBelow(ctx context.Context, dir string) error {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	var all []string
	for line := range strings.Lines(string(mounts)) {
		if words := strings.Fields(line); len(words) > 1 && strings.HasPrefix(words[1], dir+"/") {
			all = append(all, words[1])
		}
	}
	for _, m := range slices.Backward(all) {
		err = errors.Join(err, output(exec.CommandContext(context.WithoutCancel(ctx), "umount", m)))
	}
	return err
}
