package kata

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/codes"
)

// kernel makes files that stand in for parameters, each with the value 0.
func kernel(t *testing.T, names ...string) (p *parameters, value func(name string) string) {
	t.Helper()
	root := t.TempDir()
	for _, name := range names {
		path := filepath.Join(root, file(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte("0\n"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return &parameters{root: root, writes: map[string]int{}}, func(name string) string {
		raw, err := os.ReadFile(filepath.Join(root, file(name)))
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
}

func TestParametersAreRestored(t *testing.T) {
	t.Parallel()
	p, value := kernel(t, "net.a.x", "net.a.y")
	undo, err := p.set(map[string]string{"net.a.x": "1\n", "net.a.y": "1\n"})
	if err != nil || value("net.a.x")+value("net.a.y") != "1\n1\n" {
		t.Fatalf("%q, %q, %v", value("net.a.x"), value("net.a.y"), err)
	}
	if _, err := p.set(map[string]string{"net.a.y": "2\n"}); err != nil { // by another container
		t.Fatal(err)
	}
	if err := undo(); err != nil || value("net.a.x")+value("net.a.y") != "0\n2\n" {
		t.Errorf("undone: %q, %q, %v", value("net.a.x"), value("net.a.y"), err)
	}
	_, err = p.set(map[string]string{"net.a.x": "3\n", "net.a.y": "3\n", "net.b": "3\n"})
	wantCode(t, wireError(err), codes.InvalidArgument)
	if value("net.a.x")+value("net.a.y") != "0\n2\n" {
		t.Errorf("half of them stay: %q, %q", value("net.a.x"), value("net.a.y"))
	}
}

// panicking panics at the first event.
type panicking struct{ n atomic.Int64 }

func (p *panicking) RecordOwn(context.Context, string, string) error {
	if p.n.Add(1) == 1 {
		panic("a bug")
	}
	return nil
}

// A creation that panics or fails leaves nothing: not its id, its bundle, its
// storages, nor what it set in the network.
func TestNothingStaysOfACreationThatFailed(t *testing.T) {
	t.Parallel()
	const name = "net.ipv4.ip_unprivileged_port_start"
	sys, value := kernel(t, name)
	runtime := dyingRuntime(t, "create", false)
	p := newSandbox(t, func(c *Config) { c.Events, c.KernelParameters, c.Runtime = new(panicking), sys.root, runtime })
	req := p.request("app1", "echo", "x")
	_, err := p.client.CreateContainer(t.Context(), req)
	wantCode(t, err, codes.Internal)
	if _, err := os.Stat(filepath.Join(p.dir, "app1")); err == nil {
		t.Error("a creation that panicked left its bundle")
	}
	req.OCI.Linux.Sysctl = map[string]string{name: "1\n"}
	if _, err = p.client.CreateContainer(t.Context(), req); err == nil {
		t.Fatal("a runtime that was killed made a container")
	}
	if got := value(name); got != "0\n" {
		t.Errorf("the network has %q", got)
	}
	p.run("app1", "echo", "x")
	p.wait("app1", "")
}
