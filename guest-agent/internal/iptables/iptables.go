// Package iptables reads and replaces the guest's packet filter by the programs
// of the guest's image, for service meshes that a host sets up (kata-agent 1.2).
// Whether a host may is for the pod's policy alone: by rules of its own it could
// lead a workload's requests to the agent, which are answered with secrets, to
// itself.
package iptables

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// ErrUnsupported says that the guest has no such program.
var ErrUnsupported = errors.New("the guest has no iptables")

// InvalidError is a request that cannot be met as it stands. Its text is meant
// for the host.
type InvalidError struct{ text string }

func (e *InvalidError) Error() string { return e.text }

// Tables are the programs. The zero value looks where systems keep them.
type Tables struct {
	// Dirs are looked through in this order.
	Dirs []string
}

const (
	maxRules = 1 << 20 // bytes, in and out
	timeout  = 10 * time.Second
)

// Save returns the rules in the form of iptables-save.
func (t Tables) Save(ctx context.Context, ipv6 bool) ([]byte, error) {
	return t.run(ctx, ipv6, "save", nil)
}

// Restore puts rules in place of those of the tables that are named in them,
// each table at once, and returns what the program says.
func (t Tables) Restore(ctx context.Context, ipv6 bool, rules []byte) ([]byte, error) {
	if len(rules) > maxRules || bytes.IndexByte(rules, 0) >= 0 {
		return nil, &InvalidError{fmt.Sprintf("rules of %d bytes are too many or not text", len(rules))}
	}
	return t.run(ctx, ipv6, "restore", rules, "--wait=5")
}

func (t Tables) run(ctx context.Context, ipv6 bool, verb string, stdin []byte, args ...string) ([]byte, error) {
	name := "iptables-" + verb
	if ipv6 {
		name = "ip6tables-" + verb
	}
	program, err := t.find(name)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var out, diagnosis limited
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = []string{"PATH=/usr/sbin:/sbin:/usr/bin:/bin"}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &diagnosis
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w: %.512q", name, err, diagnosis.Bytes())
	}
	if out.over {
		return nil, fmt.Errorf("%s says more than %d bytes", name, maxRules)
	}
	return out.Bytes(), nil
}

func (t Tables) find(name string) (string, error) {
	dirs := t.Dirs
	if dirs == nil {
		dirs = []string{"/usr/sbin", "/sbin", "/usr/bin", "/bin"}
	}
	for _, d := range dirs {
		path := filepath.Join(d, name)
		if fi, err := os.Stat(path); err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", ErrUnsupported
}

// limited keeps so much of a program's output.
type limited struct {
	bytes.Buffer
	over bool
}

func (l *limited) Write(p []byte) (int, error) {
	if l.Len()+len(p) > maxRules {
		l.over = true
		return len(p), nil
	}
	return l.Buffer.Write(p)
}
