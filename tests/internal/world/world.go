// Package world sets the whole stage that the demo and the end-to-end tests
// play on: a broker, a registry, a vendor, images, guests. Every program is
// the real one, started as a person would start it; only the hardware is
// simulated, in the real formats.
package world

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/vouchsafe-cc/vouchsafe/tests/internal/ociregistry"
)

//go:embed policies
var policies embed.FS

// World is one stage. Its methods are steps; each says in its comment what it
// needs before.
type World struct {
	Dir      string // everything the stage writes lies below
	Bin      string // where the programs are
	Registry *ociregistry.Registry
	Broker   *Broker
	Key      []byte // wraps the image's layer keys; here so that tests can look for leaks
	// BrokerConfig is TOML that is put behind the stage's own configuration of
	// the broker.
	BrokerConfig string
	// Host is the address under which the guests reach broker and registry;
	// empty for loopback, which guests that are processes share.
	Host string
	// AttestationPolicy is the file of the policy that judges evidence; empty for
	// that of simulated guests.
	AttestationPolicy string
	// TPMs is where the TPMs of booted guests lie, and their manufacturer: several stages
	// may share them, for every machine has a copy. Empty for Dir.
	TPMs string
	// Beside are further containers of the pod of booted guests.
	Beside []Beside
	// Tell is told where the time of booted guests goes; nil for nobody.
	Tell func(format string, args ...any)

	mu      sync.Mutex // guests may be started at the same time
	closers []func() error
}

// New prepares a stage below dir with the programs in bin.
func New(dir, bin string) (*World, error) {
	for _, program := range []string{"kbs", "kbsctl", "guest-agent", "measure"} {
		if _, err := os.Stat(filepath.Join(bin, program)); err != nil {
			return nil, fmt.Errorf("%w (run `make build`)", err)
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return &World{Dir: dir, Bin: bin}, nil
}

// Close stops everything that was started, last first, and reports whatever
// did not end well.
func (w *World) Close() error {
	w.mu.Lock()
	closers := w.closers
	w.closers = nil
	w.mu.Unlock()
	var errs []error
	for i := len(closers) - 1; i >= 0; i-- {
		errs = append(errs, closers[i]())
	}
	return errors.Join(errs...)
}

func (w *World) onClose(f func() error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closers = append(w.closers, f)
}

// Path returns a path below the stage's directory.
func (w *World) Path(parts ...string) string {
	return filepath.Join(append([]string{w.Dir}, parts...)...)
}

// StartRegistry serves an OCI registry on loopback.
func (w *World) StartRegistry() error {
	r, err := ociregistry.Start(w.Path("registry"), "127.0.0.1:0", w.hosts()...)
	if err != nil {
		return err
	}
	w.Registry = r
	w.onClose(r.Close)
	return os.WriteFile(w.Path("registry-ca.pem"), r.CA, 0o600)
}

// hosts is Host as an address, if it is set.
func (w *World) hosts() []net.IP {
	if w.Host == "" {
		return nil
	}
	return []net.IP{net.ParseIP(w.Host)}
}

// reached returns the address under which guests reach a loopback address.
func (w *World) reached(addr string) string {
	if w.Host == "" {
		return addr
	}
	return strings.Replace(addr, "127.0.0.1", w.Host, 1)
}

// ExitError is a program that ended with another status than 0.
type ExitError struct {
	Command string
	Code    int
	Stderr  string
}

func (e *ExitError) Error() string {
	return fmt.Sprintf("%s: exit status %d: %s", e.Command, e.Code, strings.TrimSpace(e.Stderr))
}

// Run runs one of the programs to its end and returns its standard output.
func (w *World) Run(ctx context.Context, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(w.Bin, program), args...)
	cmd.Dir = w.Dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + w.Path("home"), "XDG_STATE_HOME=" + w.Path("home", "state")}
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return out.String(), &ExitError{program + " " + strings.Join(args, " "), exit.ExitCode(), stderr.String()}
	}
	return out.String(), err
}
