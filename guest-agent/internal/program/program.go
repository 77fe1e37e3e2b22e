// Package program runs programs of the guest's image for the agent: few, by name,
// with nothing of the agent's own environment, and with bounds on what they say.
package program

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ErrAbsent says that the image has no such program.
var ErrAbsent = errors.New("the guest's image has no such program")

// Set is where programs are looked for. The zero value is where systems keep them:
// the first process of a machine has no PATH.
type Set struct {
	Dirs []string
}

var usual = []string{"/usr/sbin", "/sbin", "/usr/bin", "/bin"}

const (
	maxOutput = 1 << 20 // bytes that a program may write
	lastWords = 512     // bytes of a diagnosis that are told
)

// Run runs a program to its end and returns what it wrote to its standard output,
// which is an error beyond 1 MiB. Where it fails, the error has its last words.
func (s Set) Run(ctx context.Context, name string, stdin []byte, args ...string) ([]byte, error) {
	path, err := s.find(name)
	if err != nil {
		return nil, err
	}
	var out, diagnosis limited
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = []string{"PATH=" + strings.Join(usual, ":"), "LC_ALL=C"}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &diagnosis
	if err := cmd.Run(); err != nil {
		said := bytes.TrimSpace(diagnosis.kept.Bytes())
		return nil, fmt.Errorf("%s: %w: %q", name, err, said[max(0, len(said)-lastWords):])
	}
	if out.over {
		return nil, fmt.Errorf("%s says more than %d bytes", name, maxOutput)
	}
	return out.kept.Bytes(), nil
}

func (s Set) find(name string) (string, error) {
	dirs := s.Dirs
	if dirs == nil {
		dirs = usual
	}
	for _, d := range dirs {
		path := filepath.Join(d, name)
		if fi, err := os.Stat(path); err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s: %w", name, ErrAbsent)
}

// Below is the set of a tree that stands in for the root.
func Below(root string) Set {
	if root == "" {
		return Set{}
	}
	var s Set
	for _, d := range usual {
		s.Dirs = append(s.Dirs, filepath.Join(root, d))
	}
	return s
}

// limited keeps so much of a program's output. The buffer is not embedded: its
// ReadFrom would be used in place of Write.
type limited struct {
	kept bytes.Buffer
	over bool
}

// Write takes everything, and keeps what there is room for.
func (l *limited) Write(p []byte) (int, error) {
	room := maxOutput - l.kept.Len()
	l.over = l.over || len(p) > room
	l.kept.Write(p[:min(len(p), room)])
	return len(p), nil
}
