// Package sandbox holds what the containers of one pod share: namespaces, DNS,
// storages, and the directory in which all of it lies.
//
// The host asks for each of these things and is not trusted. So every path it
// names is confined to two parts of the state directory, through os.Root (see
// layout.open), and every step has an undo that runs when a later step fails or
// when the pod ends.
package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

// Image is an image that was pulled for one bundle.
type Image struct {
	Digest string // of its manifest
	Rootfs string // where it is mounted: bundle/rootfs
}

// Images pulls images into bundles. internal/hub does the work.
type Images interface {
	// PullImage mounts the image at bundle/rootfs. Its refusals are faults.
	PullImage(ctx context.Context, ref, bundle string) (Image, error)
	// ReleaseImage takes it away. It may be tried again.
	ReleaseImage(ctx context.Context, bundle string) error
}

// Config says where the sandbox lives.
type Config struct {
	// Dir is the state directory, [GuestDir] in a guest. It must exist.
	Dir string
	// Images may be nil: then a container that needs a pull is refused.
	Images Images
	// Devices may be nil: then storages on disks are refused.
	Devices Devices
	// Encrypted may be nil: then no disk is encrypted.
	Encrypted Encrypted
	// WatchEvery is how often watched directories are copied; 0 for 2 s.
	WatchEvery time.Duration
	// HugePages is where the pools of large pages are; empty for the kernel's own.
	HugePages string
	// PauseBinary is a static program that understands [PauseArgument]: the
	// agent's own.
	PauseBinary string
	// ResolvConf is the file that the pod's DNS settings are bound over, so that
	// the agent itself uses them too. Empty leaves the system's alone.
	ResolvConf string
	Logger     *slog.Logger // nil discards
}

// Sandbox is the pod. Its methods may be called concurrently.
type Sandbox struct {
	layout
	cfg      Config
	log      *slog.Logger
	storages table
	copying  copyLocks
	opened   openedFiles

	mu    sync.Mutex
	ended bool     // Close has taken what there was
	undos []undo   // of Setup, in the order made
	kept  []*entry // volumes of the pod, see Keep
	pidNS string   // path of the pid namespace that containers may share
}

// New prepares the state directory.
func New(cfg Config) (*Sandbox, error) {
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil || cfg.Dir == "" {
		return nil, errors.New("the state directory is not usable")
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, fmt.Errorf("the state directory: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("the state directory: %w", err)
	}
	for _, name := range []string{sharedDir, sandboxDir, namespacesDir} {
		if err := root.MkdirAll(name, 0o711); err != nil {
			return nil, errors.Join(fmt.Errorf("the state directory: %w", err), root.Close())
		}
	}
	log := cfg.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Sandbox{layout: layout{dir: dir, root: root}, cfg: cfg, log: log}
	s.storages.entries = map[string]*entry{}
	return s, nil
}

// RuntimeDir is where the OCI runtime may keep its state.
func (s *Sandbox) RuntimeDir() string { return filepath.Join(s.dir, runtimeDir) }

// Translate returns where a path of the protocol lies on this machine; a path
// that is not below the state directory is left as it is.
func (s *Sandbox) Translate(path string) string { return s.translate(path) }

// Rootfs returns where a root path of the protocol really lies, and fails for
// one that leaves the parts of the state directory that are open to the host,
// also by way of symbolic links. The roots of pulled images are not among them:
// they belong to the containers that pulled them.
func (s *Sandbox) Rootfs(path string) (string, error) { return s.real("root path", path) }

// MountSource is Rootfs for the source of a container's bind mount, which may
// also be a file.
func (s *Sandbox) MountSource(path string) (string, error) { return s.real("mount source", path) }

// OpenSource opens what MountSource finds, for reading.
func (s *Sandbox) OpenSource(path string) (*os.File, error) {
	rel, err := s.rel(path)
	if err != nil {
		return nil, err
	}
	part, name, err := s.open(rel)
	if err != nil {
		return nil, err
	}
	defer func() { _ = part.Close() }()
	return part.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe must not hold us
}

func (s *Sandbox) real(what, path string) (string, error) {
	rel, err := s.rel(path)
	if err != nil {
		return "", err
	}
	f, err := s.openFile(rel)
	if err != nil {
		return "", invalidf("%s %q cannot be used: %v", what, path, err)
	}
	defer func() { _ = f.Close() }()
	return os.Readlink(fdPath(f))
}

// Request is what CreateSandbox asks for.
type Request struct {
	Hostname string
	DNS      []string // lines of resolv.conf
	Storages []*agent.Storage
}

// Setup makes what the pod's containers share. If a step fails, the ones before
// it are undone.
func (s *Sandbox) Setup(ctx context.Context, req Request) (err error) {
	var undos []undo
	defer func() {
		if err != nil {
			err = errors.Join(err, runUndos(context.WithoutCancel(ctx), undos))
			return
		}
		if !s.keep(undos) { // nobody would undo them
			err = errors.Join(errEnded, runUndos(context.WithoutCancel(ctx), undos))
		}
	}()
	for _, kind := range []namespace{ipcNamespace, utsNamespace} {
		u, err := s.persist(kind, req.Hostname)
		if err != nil {
			return err
		}
		undos = append(undos, u)
	}
	u, err := s.resolver(req.DNS)
	if err != nil {
		return err
	}
	undos = append(undos, u)
	volumes, err := s.Prepare(ctx, "", req.Storages)
	if err != nil {
		return err
	}
	undos = append(undos, volumes.Release)
	return nil
}

var errEnded = errors.New("the sandbox has ended")

// keep hands the undos of Setup to Close, unless that has been.
func (s *Sandbox) keep(undos []undo) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended {
		s.undos = undos
	}
	return !s.ended
}

// Close undoes Setup, the last step first, and gives up the state directory. The
// containers must be gone.
func (s *Sandbox) Close(ctx context.Context) error {
	s.mu.Lock()
	undos, kept := s.undos, s.kept
	s.undos, s.kept, s.ended = nil, nil, true
	if path := s.pidNS; path != "" {
		undos = append(undos, func(context.Context) error { return unmountFile(path) })
		s.pidNS = ""
	}
	s.mu.Unlock()
	for _, e := range kept {
		undos = append(undos, func(ctx context.Context) error { return s.storages.release(ctx, e) })
	}
	return errors.Join(runUndos(ctx, undos), s.root.Close())
}

func runUndos(ctx context.Context, undos []undo) error {
	var errs []error
	for _, u := range slices.Backward(undos) {
		errs = append(errs, u(ctx))
	}
	return errors.Join(errs...)
}

// Bounds of resolv.conf, generous beside the 32 search domains of Kubernetes.
const (
	maxDNSLines = 256
	maxDNSLine  = 4096
)

// resolver writes the pod's resolv.conf and, if so configured, binds it over the
// system's (kata-agent 3.1).
func (s *Sandbox) resolver(lines []string) (undo, error) {
	nothing := func(context.Context) error { return nil }
	if len(lines) == 0 {
		return nothing, nil
	}
	if len(lines) > maxDNSLines || slices.ContainsFunc(lines, func(l string) bool { return len(l) > maxDNSLine || strings.ContainsAny(l, "\n\x00") }) {
		return nil, invalidf("the DNS settings are malformed")
	}
	text := strings.TrimRight(strings.Join(lines, "\n"), "\n") + "\n"
	if err := s.root.WriteFile(sandboxDir+"/resolv.conf", []byte(text), 0o644); err != nil {
		return nil, fmt.Errorf("write resolv.conf: %w", err)
	}
	if s.cfg.ResolvConf == "" {
		return nothing, nil
	}
	if err := unix.Mount(filepath.Join(s.dir, sandboxDir, "resolv.conf"), s.cfg.ResolvConf, "", unix.MS_BIND, ""); err != nil {
		return nil, fmt.Errorf("put resolv.conf in force: %w", err)
	}
	return func(context.Context) error { return unmount(s.cfg.ResolvConf) }, nil
}
