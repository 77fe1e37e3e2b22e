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
	"time"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/program"
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
	maxRules = 1 << 20 // bytes
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
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	out, err := program.Set{Dirs: t.Dirs}.Run(ctx, name, stdin, args...)
	if errors.Is(err, program.ErrAbsent) {
		return nil, ErrUnsupported
	}
	return out, err
}
