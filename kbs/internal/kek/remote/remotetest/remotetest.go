// Package remotetest starts kbs-pkcs11 over a SoftHSM token that is made for
// one test.
package remotetest

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

const module = "/usr/lib/softhsm/libsofthsm2.so"

// Process is a kbs-pkcs11 that a test may kill and start again. Its token
// stays.
type Process struct {
	Socket string
	First  string // id of the key that it was given
	t      *testing.T
	bin    string
	dir    string
	cmd    *exec.Cmd
}

var build = sync.OnceValues(func() ([]byte, error) {
	_, here, _, _ := runtime.Caller(0)
	dir, err := os.MkdirTemp("", "kbs-pkcs11-*")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	bin := filepath.Join(dir, "kbs-pkcs11")
	cmd := exec.Command("go", "build", "-o", bin, "./cmd/kbs-pkcs11") //nolint:noctx // it belongs to no one test
	cmd.Dir, cmd.Env = filepath.Join(filepath.Dir(here), "../../../../../kbs-pkcs11"), append(os.Environ(), "CGO_ENABLED=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		return out, err
	}
	return os.ReadFile(bin)
})

// Start makes a token with one key and serves it.
func Start(t *testing.T) *Process {
	t.Helper()
	if _, err := os.Stat(module); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("no SoftHSM, which CI must have (Debian: softhsm2)")
		}
		t.Skip("no SoftHSM (Debian: softhsm2)")
	}
	raw, err := build()
	if err != nil {
		t.Fatalf("build kbs-pkcs11: %v\n%s", err, raw)
	}
	dir, err := os.MkdirTemp("", "hsm-*") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	p := &Process{Socket: filepath.Join(dir, "s"), t: t, bin: filepath.Join(dir, "kbs-pkcs11"), dir: dir}
	p.write("kbs-pkcs11", string(raw), 0o700)
	p.write("softhsm2.conf", "directories.tokendir = "+dir+"/tokens\nlog.level = ERROR\n", 0o600)
	p.write("pin", "of-a-test\n", 0o600)
	p.write("c.toml", "socket = 's'\nmodule = '"+module+"'\ntoken = 'kbs'\npin_file = 'pin'\nmaster_key = 'master'\n", 0o600)
	if err := os.Mkdir(filepath.Join(dir, "tokens"), 0o700); err != nil {
		t.Fatal(err)
	}
	p.run("softhsm2-util", "--init-token", "--free", "--label", "kbs", "--pin", "of-a-test", "--so-pin", "of-a-test")
	p.First = strings.TrimSpace(p.Run("init"))
	p.Serve()
	return p
}

func (p *Process) write(name, text string, mode os.FileMode) {
	if err := os.WriteFile(filepath.Join(p.dir, name), []byte(text), mode); err != nil {
		p.t.Fatal(err)
	}
}

func (p *Process) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...) //nolint:noctx // Kill ends it
	cmd.Env = append(os.Environ(), "SOFTHSM2_CONF="+filepath.Join(p.dir, "softhsm2.conf"))
	return cmd
}

// Run runs another command of kbs-pkcs11, and returns what it prints.
func (p *Process) Run(args ...string) string {
	p.t.Helper()
	return p.run(p.bin, append([]string{"--config", filepath.Join(p.dir, "c.toml")}, args...)...)
}

func (p *Process) run(name string, args ...string) string {
	p.t.Helper()
	cmd := p.command(name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		p.t.Fatalf("%s %q: %v\n%s", name, args, err, stderr.Bytes())
	}
	return string(out)
}

// Serve starts the process again, and returns when it listens.
func (p *Process) Serve() {
	p.t.Helper()
	p.cmd = p.command(p.bin, "--config", filepath.Join(p.dir, "c.toml"), "serve")
	log, err := p.cmd.StderrPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(p.Kill)
	for lines := bufio.NewScanner(log); lines.Scan(); {
		if strings.Contains(lines.Text(), "msg=serving") {
			return
		}
		p.t.Log(lines.Text())
	}
	p.t.Fatal("kbs-pkcs11 did not serve")
}

// Kill ends the process without a word to it.
func (p *Process) Kill() {
	if p.cmd != nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		p.cmd = nil
	}
}
