package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/vouchsafe-cc/vouchsafe/measure/efi"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/ownkernel"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/rootfstest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"rootfs": main})
}

func TestScripts(t *testing.T) {
	world := t.TempDir()
	if err := rootfstest.Write(t.Context(), world); err != nil {
		t.Fatal(err)
	}
	writeKeys(t, world, "release")
	writeKeys(t, world, "stranger")
	writeOwner(t, world)
	writeOwnKernel(t, world)
	writeArchive(t, world)
	testscript.Run(t, testscript.Params{
		Dir: "testdata", RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("WORLD", world)
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("GORACE", "atexit_sleep_ms=0") // else each command sleeps for a second when it ends
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "flip": flip, "alone": alone},
	})
}

func writeKeys(t *testing.T, dir, name string) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rawPrivate, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	rawPublic, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []struct {
		name, kind string
		raw        []byte
		mode       fs.FileMode
	}{{name + ".key", "PRIVATE KEY", rawPrivate, 0o600}, {name + ".pub", "PUBLIC KEY", rawPublic, 0o644}} {
		if err := os.WriteFile(filepath.Join(dir, f.name), pem.EncodeToMemory(&pem.Block{Type: f.kind, Bytes: f.raw}), f.mode); err != nil {
			t.Fatal(err)
		}
	}
}

// writeOwner writes owner.key, a key for Secure Boot, owner.pem with its
// certificate, and keys, a folder with the variables of machines that trust it;
// strange is one of machines that trust another.
func writeOwner(t *testing.T, dir string) {
	t.Helper()
	files := map[string][]byte{}
	for i, name := range []string{"keys", "strange"} {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Owner"}, NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1, 0)}
		certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		private, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			files["owner.key"] = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
			files["owner.pem"] = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})
		}
		for _, file := range []string{"PK.esl", "KEK.esl", "db.esl"} {
			files[filepath.Join(name, file)] = efi.SignatureList(efi.Signature{Kind: efi.CertX509, Data: certificate})
		}
	}
	for name, content := range files {
		name = filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, content, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
}

// writeOwnKernel writes a kernel that comes from no package, own.toml, the recipe
// with it, and own.lock, which pins it.
func writeOwnKernel(t *testing.T, dir string) {
	t.Helper()
	if err := rootfstest.WriteOwnKernel(dir); err != nil {
		t.Fatal(err)
	}
	k, err := ownkernel.Read(filepath.Join(dir, "bzImage"), filepath.Join(dir, "modules", rootfstest.OwnRelease))
	if err != nil {
		t.Fatal(err)
	}
	pin := fmt.Sprintf("kernel = ''\n[own_kernel]\nrelease = '%s'\nsize = %d\nsha256 = '%s'\nmodules = '%s'\n", k.Release, k.Size, k.SHA256, k.Modules)
	for file, c := range map[string]struct{ from, old, with string }{
		"own.toml": {"recipe.toml", `package = ["linux-image-test"]`, "file = \"bzImage\"\ndirectory = \"modules/" + rootfstest.OwnRelease + `"`},
		"own.lock": {"guest.lock", "kernel = 'linux-image-test'\n", pin},
	} {
		raw, err := os.ReadFile(filepath.Join(dir, c.from))
		if err != nil {
			t.Fatal(err)
		}
		text := strings.Replace(string(raw), c.old, c.with, 1)
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// exits CODE ARGUMENTS... runs rootfs and demands an exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: exits CODE ARGUMENTS OF ROOTFS...")
	}
	code := 0
	if err := ts.Exec("rootfs", args[1:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		code = exit.ExitCode()
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

// flip FILE OFFSET changes one bit; an offset below zero counts from the end.
func flip(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: flip FILE OFFSET")
	}
	name := ts.MkAbs(args[0])
	raw, err := os.ReadFile(name)
	ts.Check(err)
	at, err := strconv.Atoi(args[1])
	ts.Check(err)
	if at < 0 {
		at += len(raw)
	}
	raw[at] ^= 1
	ts.Check(os.WriteFile(name, raw, 0o644))
}

// alone leaves no program to be found but rootfs.
func alone(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: alone")
	}
	ts.Setenv("PATH", filepath.SplitList(ts.Getenv("PATH"))[0])
}
