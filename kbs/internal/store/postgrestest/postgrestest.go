// Package postgrestest runs a PostgreSQL server of a test's own: private
// socket, port and data, on disk as in production (fsync is on), gone with the
// test. It can crash the server and cut the connections to it.
//
// PostgreSQL refuses to run as root, so root starts it as the user postgres,
// whom Debian's package makes.
package postgrestest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Server is a running PostgreSQL.
type Server struct {
	dir  string
	bin  string
	log  *os.File
	as   *syscall.Credential // nil: as ourselves
	cmd  *exec.Cmd
	done chan error // of the running process

	databases atomic.Int64
}

// startTimeout is generous: initdb writes 40 MB.
const startTimeout = 2 * time.Minute

// Start starts a server that ends with the test. Where PostgreSQL is not
// installed the test is skipped, except under CI=true, where it fails.
func Start(t testing.TB) *Server {
	t.Helper()
	s, err := Run()
	if errors.Is(err, exec.ErrNotFound) {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// Installed reports whether there is a PostgreSQL to run. Under CI=true there
// must be.
func Installed() bool {
	_, err := binaries()
	return err == nil || os.Getenv("CI") == "true"
}

// shared is the server of a test binary whose TestMain calls Shared's stop.
var shared struct {
	sync.Mutex
	*Server
}

// Shared returns a server that the tests of a binary share, each with databases
// of its own. TestMain must call [StopShared].
func Shared(t testing.TB) *Server {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.Server != nil {
		return shared.Server
	}
	s, err := Run()
	if errors.Is(err, exec.ErrNotFound) && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	shared.Server = s
	return s
}

// StopShared stops the server that [Shared] started, if any.
func StopShared() error {
	shared.Lock()
	defer shared.Unlock()
	if shared.Server == nil {
		return nil
	}
	s := shared.Server
	shared.Server = nil
	return s.Stop()
}

// Run makes a new cluster and starts it. The error wraps exec.ErrNotFound where
// PostgreSQL is not installed.
func Run() (_ *Server, err error) {
	bin, err := binaries()
	if err != nil {
		return nil, err
	}
	s := &Server{bin: bin}
	if s.as, err = owner(); err != nil {
		return nil, err
	}
	if s.dir, err = os.MkdirTemp("", "pgtest-"); err != nil { // short: a socket's path has 107 bytes
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Stop())
		}
	}()
	if s.as != nil {
		if err := os.Chown(s.dir, int(s.as.Uid), int(s.as.Gid)); err != nil {
			return nil, err
		}
	}
	if s.log, err = os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	initdb := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "--pgdata="+s.data(), "--username=kbs", "--auth=trust",
		"--encoding=UTF8", "--locale=C", "--no-sync")
	initdb.Dir, initdb.SysProcAttr = s.dir, &syscall.SysProcAttr{Credential: s.as}
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return s, s.Start()
}

// binaries finds the newest PostgreSQL that Debian installed, or one in PATH.
func binaries() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil {
		return "", err
	}
	if len(found) > 0 {
		slices.SortFunc(found, func(a, b string) int { return len(a) - len(b) })
		return filepath.Dir(found[len(found)-1]), nil
	}
	path, err := exec.LookPath("initdb")
	if err != nil {
		return "", fmt.Errorf("PostgreSQL is not installed (apt-get install --no-install-recommends postgresql): %w", exec.ErrNotFound)
	}
	return filepath.Dir(path), nil
}

func owner() (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL does not run as root: %w: %w", exec.ErrNotFound, err)
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, errors.Join(err1, err2)
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// port names the socket only: the server listens on no network.
const port = 5432

// Socket is the path of the server's socket.
func (s *Server) Socket() string { return filepath.Join(s.dir, fmt.Sprintf(".s.PGSQL.%d", port)) }

// Start starts a server that was stopped or crashed, and returns when it
// answers.
func (s *Server) Start() error {
	// It lives until Crash or Stop.
	cmd := exec.CommandContext(context.Background(), filepath.Join(s.bin, "postgres"), "-D", s.data(), "-k", s.dir, "-p", strconv.Itoa(port),
		"-c", "listen_addresses=", "-c", "max_connections=100", "-c", "shared_buffers=32MB", "-c", "log_min_messages=warning")
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.dir, s.log, s.log
	// The server dies with its parent thread, which lives as long as the
	// goroutine that is locked to it: no killed test leaves a server behind.
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.as, Pdeathsig: syscall.SIGQUIT}
	started, done := make(chan error), make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			done <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start PostgreSQL: %w", err)
	}
	s.cmd, s.done = cmd, done
	return s.wait()
}

func (s *Server) wait() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		c, err := pgx.Connect(ctx, s.DSN("postgres"))
		if err == nil {
			return c.Close(ctx)
		}
		select {
		case e := <-s.done:
			s.cmd = nil
			return fmt.Errorf("PostgreSQL ended: %w\n%s", e, s.Log())
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-tick.C:
		}
	}
}

// Log returns what the server wrote so far.
func (s *Server) Log() []byte {
	raw, _ := os.ReadFile(s.log.Name()) // for messages of failed tests
	return bytes.TrimSpace(raw)
}

// Crash stops the server as a power cut would: no shutdown checkpoint, open
// transactions and connections gone.
func (s *Server) Crash() error { return s.end(syscall.SIGQUIT) }

func (s *Server) end(sig syscall.Signal) error {
	if s.cmd == nil {
		return nil
	}
	cmd := s.cmd
	s.cmd = nil
	if err := cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("stop PostgreSQL: %w", err)
	}
	err := <-s.done
	if _, ok := errors.AsType[*exec.ExitError](err); ok {
		return nil // SIGQUIT gives status 1 or 2
	}
	return err
}

// Stop stops the server and removes its files.
func (s *Server) Stop() error {
	err := s.end(syscall.SIGINT) // "fast": connections are cut, data is written
	if s.log != nil {
		err = errors.Join(err, s.log.Close())
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

// DSN names a database of the server.
func (s *Server) DSN(database string) string { return dsn(s.dir, database) }

func dsn(dir, database string) string {
	q := url.Values{"host": {dir}, "port": {strconv.Itoa(port)}, "user": {"kbs"}}
	u := url.URL{Scheme: "postgres", Path: "/" + database, RawQuery: q.Encode()}
	return u.String()
}

// NewDatabase makes an empty database and returns its name.
func (s *Server) NewDatabase(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("test%d", s.databases.Add(1))
	s.Exec(t, "postgres", "CREATE DATABASE "+name)
	return name
}

// Exec runs SQL beside the store.
func (s *Server) Exec(t testing.TB, database, sql string) {
	t.Helper()
	c, err := pgx.Connect(t.Context(), s.DSN(database))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(context.Background()) }()
	if _, err := c.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}
