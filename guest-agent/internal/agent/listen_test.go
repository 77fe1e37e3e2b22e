package agent

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseAddress(t *testing.T) {
	good := map[string]address{
		"unix:///run/agent.sock":  {network: "unix", path: "/run/agent.sock"},
		"unix://@agent":           {network: "unix", path: "@agent"},
		"vsock://-1:1024":         {network: "vsock", cid: unix.VMADDR_CID_ANY, port: 1024},
		"vsock://3:1":             {network: "vsock", cid: 3, port: 1},
		"virtio-serial://agent.0": {network: "virtio-serial", path: "agent.0"},
		"tcp://:15150":            {network: "tcp", path: ":15150"},
		"tcp://[::1]:15150":       {network: "tcp", path: "[::1]:15150"},
	}
	for s, want := range good {
		if got, err := parseAddress(s); err != nil || got != want {
			t.Errorf("%s: %+v, %v", s, got, err)
		}
	}
	for _, s := range []string{
		"", "/run/agent.sock", "unix://", "unix:///", "unix://relative", "unix://@", "vsock://1024", "vsock://-1:", "vsock://-1:0",
		"vsock://-2:1024", "vsock://-1:99999999999", "tcp://127.0.0.1", "tcp://127.0.0.1:0", "tcp://name:1", "tcp://127.0.0.1:70000", "vsock://-1:1024/x", "virtio-serial://", "virtio-serial:///dev/vport0p1",
	} {
		if got, err := parseAddress(s); err == nil {
			t.Errorf("%q accepted as %+v", s, got)
		}
	}
}

func TestListenReplacesOnlyADeadSocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "sock-")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	a := address{network: "unix", path: filepath.Join(dir, "s")}
	first, err := a.listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(a.path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
	if _, err := a.listen(t.Context()); err == nil {
		t.Error("a live socket was replaced")
	}
	first.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second, err := a.listen(t.Context())
	if err != nil {
		t.Fatalf("a dead socket was not replaced: %v", err)
	}
	_ = second.Close()
	if err := os.WriteFile(a.path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := a.listen(t.Context()); err == nil {
		t.Error("a file was replaced")
	}
}
