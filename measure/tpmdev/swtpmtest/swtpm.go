// Package swtpmtest starts a software TPM for a test: a real TPM 2.0 in a process
// of its own, reached over a unix socket. It is for tests; no program links it.
package swtpmtest

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"
)

// Start starts swtpm with a fresh state and returns what opens it. Without the
// program the test is skipped.
func Start(t testing.TB) func() (transport.TPMCloser, error) {
	t.Helper()
	path := Socket(t)
	return func() (transport.TPMCloser, error) { return linuxudstpm.Open(path) }
}

// Socket is Start for what opens the TPM by the path of its socket.
func Socket(t testing.TB) string {
	t.Helper()
	program, err := exec.LookPath("swtpm")
	if err != nil {
		t.Skipf("swtpm is absent (%v), so nothing is shown of a real TPM; the Debian package swtpm has it", err)
	}
	// Paths of sockets are short; those of t.TempDir need not be.
	dir, err := os.MkdirTemp("", "swtpm-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	serve(t, program, dir)
	return filepath.Join(dir, socketName)
}

// socketName is short, as paths of sockets are.
const socketName = "tpm"

// serve runs swtpm with its state in a directory, and its socket there too.
func serve(t testing.TB, program, dir string) {
	t.Helper()
	path := filepath.Join(dir, socketName)
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	socket, err := listener.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	// The socket listens before swtpm takes it over, so nobody waits for it.
	cmd := exec.Command(program, "socket", "--tpm2", "--tpmstate", "dir="+dir, "--server", "type=unixio,fd=3", "--flags", "not-need-init,startup-clear") //nolint:gosec,noctx // found above; it lives as long as the test
	cmd.ExtraFiles = []*os.File{socket}
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if err := socket.Close(); err != nil {
		t.Fatal(err)
	}
}
