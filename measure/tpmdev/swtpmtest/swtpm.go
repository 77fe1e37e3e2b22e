// Package swtpmtest starts a software TPM for a test: a real TPM 2.0 in a process
// of its own, reached over a unix socket. It is for tests; no program links it.
package swtpmtest

import (
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"
)

// Start starts swtpm with a fresh state and returns what opens it. Without the
// program the test is skipped.
func Start(t testing.TB) func() (transport.TPMCloser, error) {
	t.Helper()
	program, err := exec.LookPath("swtpm")
	if err != nil {
		t.Skip("swtpm is not installed (Debian: swtpm), so nothing is shown of a real TPM")
	}
	// Paths of sockets are short; those of t.TempDir need not be.
	dir, err := os.MkdirTemp("", "swtpm-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "tpm")
	cmd := exec.CommandContext(t.Context(), program, "socket", "--tpm2", "--tpmstate", "dir="+dir, //nolint:gosec // the path is ours
		"--server", "type=unixio,path="+socket, "--ctrl", "type=unixio,path="+filepath.Join(dir, "control"),
		"--flags", "not-need-init,startup-clear")
	// Nobody reads this pipe before the end: the test ends when the process has.
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		said, _ := io.ReadAll(stderr)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("swtpm said: %s", said)
		}
	})
	deadline := time.After(20 * time.Second)
	for tick := time.NewTicker(5 * time.Millisecond); ; {
		var d net.Dialer
		if conn, err := d.DialContext(t.Context(), "unix", socket); err == nil {
			_ = conn.Close()
			tick.Stop()
			return func() (transport.TPMCloser, error) { return linuxudstpm.Open(socket) }
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("swtpm does not open its socket")
		}
	}
}
