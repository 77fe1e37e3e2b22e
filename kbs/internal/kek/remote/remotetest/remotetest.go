// Package remotetest starts kbs-pkcs11 over a SoftHSM token that is made for
// one test. It serves a master key and values.
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

const softHSM = "/usr/lib/softhsm/libsofthsm2.so"

// Process is a kbs-pkcs11 that a test may kill and start again. Its token
// stays.
type Process struct {
	Socket string
	First  string // id of the key that it was given
	PIN    string // of the token
	t      *testing.T
	bin    string
	dir    string
	config string
	cmd    *exec.Cmd
	said   *bufio.Scanner // what it writes to stderr
}

var build = sync.OnceValues(func() ([]byte, error) {
	_, here, _, _ := runtime.Caller(0)
	dir, err := os.MkdirTemp("", "kbs-pkcs11-*")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	bin := filepath.Join(dir, "kbs-pkcs11")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", bin, "./cmd/kbs-pkcs11") // as the Makefile does;nolint:noctx // it belongs to no one test
	cmd.Dir, cmd.Env = filepath.Join(filepath.Dir(here), "../../../../../kbs-pkcs11"), append(os.Environ(), "CGO_ENABLED=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		return out, err
	}
	return os.ReadFile(bin)
})

// hanging is a PKCS#11 module over SoftHSM that hangs when an object is read,
// as long as a file is there. C_GetAttributeValue is the 25th of the functions
// (PKCS#11 2.40 section 3.6).
const hanging = `
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>
struct list { unsigned char version[2]; unsigned long (*f[68])(); };
static struct list ours, *theirs;
static unsigned long get(unsigned long s, unsigned long o, void *t, unsigned long n) {
	while (access(getenv("HANG_WHILE"), F_OK) == 0) usleep(1000);
	return theirs->f[24](s, o, t, n);
}
unsigned long C_GetFunctionList(struct list **out) {
	void *lib = dlopen("` + softHSM + `", RTLD_NOW | RTLD_LOCAL);
	unsigned long (*open)(struct list **);
	if (!lib || !(open = dlsym(lib, "C_GetFunctionList")) || open(&theirs)) return 5;
	ours = *theirs;
	ours.f[24] = get;
	*out = &ours;
	return 0;
}
`

// Start makes a token with one key and serves it.
func Start(t *testing.T) *Process {
	t.Helper()
	return start(t, func(*Process) string { return softHSM })
}

// StartHanging is Start with a module that hangs between Hang and Recover.
func StartHanging(t *testing.T) *Process {
	t.Helper()
	return start(t, func(p *Process) string {
		p.write("hang.c", hanging, 0o600)
		so := filepath.Join(p.dir, "hang.so")
		p.run("cc", "-w", "-shared", "-fPIC", "-o", so, filepath.Join(p.dir, "hang.c"), "-ldl")
		return so
	})
}

func start(t *testing.T, module func(*Process) string) *Process {
	t.Helper()
	if _, err := os.Stat(softHSM); err != nil {
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
	p := &Process{Socket: filepath.Join(dir, "s"), t: t, bin: filepath.Join(dir, "kbs-pkcs11"), dir: dir, PIN: "of-a-test"}
	p.write("kbs-pkcs11", string(raw), 0o700)
	p.write("softhsm2.conf", "directories.tokendir = "+dir+"/tokens\nlog.level = ERROR\n", 0o600)
	p.SetPIN(p.PIN)
	p.config = "socket = 's'\nmodule = '" + module(p) + "'\ntoken = 'kbs'\npin_file = 'pin'\nmaster_key = 'master'\n"
	p.Configure("resources = true\n")
	if err := os.Mkdir(filepath.Join(dir, "tokens"), 0o700); err != nil {
		t.Fatal(err)
	}
	p.run("softhsm2-util", "--init-token", "--free", "--label", "kbs", "--pin", p.PIN, "--so-pin", p.PIN)
	p.First = strings.TrimSpace(p.Run("init"))
	p.Serve()
	return p
}

// SetPIN changes what the process will say to the token.
func (p *Process) SetPIN(pin string) { p.write("pin", pin+"\n", 0o600) }

// Configure sets what a process that starts from now on serves beside the
// master key.
func (p *Process) Configure(more string) { p.write("c.toml", p.config+more, 0o600) }

// AddPair has the token make a key pair, which takes a second, and serves it
// too.
func (p *Process) AddPair() {
	p.t.Helper()
	p.Kill()
	p.Configure("resources = true\nlookup_label = 'wrap'\nrsa_mechanism = 'RsaPkcsOaepSha1'\n") // SoftHSM 2.6 has no other OAEP
	p.Run("init")
	p.Serve()
}

// Hang has the module hang.
func (p *Process) Hang() { p.write("hang", "", 0o600) }

// Recover ends that.
func (p *Process) Recover() {
	if err := os.Remove(filepath.Join(p.dir, "hang")); err != nil {
		p.t.Fatal(err)
	}
}

// Ended waits until the process ended by itself, and returns its exit code and
// what it said last.
func (p *Process) Ended() (code int, said string) {
	p.t.Helper()
	for p.said.Scan() {
		said = p.said.Text()
	}
	_ = p.cmd.Wait()
	code = p.cmd.ProcessState.ExitCode()
	p.cmd = nil
	return code, said
}

func (p *Process) write(name, text string, mode os.FileMode) {
	if err := os.WriteFile(filepath.Join(p.dir, name), []byte(text), mode); err != nil {
		p.t.Fatal(err)
	}
}

func (p *Process) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...) //nolint:noctx // Kill ends it
	cmd.Env = append(os.Environ(), "SOFTHSM2_CONF="+filepath.Join(p.dir, "softhsm2.conf"), "HANG_WHILE="+filepath.Join(p.dir, "hang"))
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
	if !p.TryServe() {
		p.t.Fatal("kbs-pkcs11 did not serve")
	}
}

// TryServe starts the process, and reports whether it came to listen; if not,
// see Ended.
func (p *Process) TryServe() bool {
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
	for p.said = bufio.NewScanner(log); p.said.Scan(); {
		if strings.Contains(p.said.Text(), "msg=serving") {
			return true
		}
		p.t.Log(p.said.Text())
	}
	return false
}

// Kill ends the process without a word to it.
func (p *Process) Kill() {
	if p.cmd != nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		p.cmd = nil
	}
}
