package kata

import (
	"log/slog"
	"net"
	"os"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/caller"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/fair"
)

// Who connects over loopback is told by container: its first process, one that
// was started in it later, and a program of the guest.
func TestCallers(t *testing.T) {
	p := newSandbox(t)
	finder := &caller.Finder{Containers: p.server.Containers}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	connect := []string{"/bin/busybox", "nc", "127.0.0.1", port}
	for _, id := range []string{"c1", "c2"} {
		req := p.request(id, "/bin/sleep", "1000")
		req.OCI.Annotations = map[string]string{containerName: "name-of-" + id}
		if id == "c2" {
			req.OCI.Process.Args = connect
		}
		p.create(req)
	}
	who := func() caller.Caller {
		t.Helper()
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		c, err := finder.TCP(conn.LocalAddr().(*net.TCPAddr).AddrPort(), conn.RemoteAddr().(*net.TCPAddr).AddrPort())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	p.start("c1")
	p.start("c2")
	if c := who(); c.Container == nil || c.Container.ID != "c2" || c.Container.Name != "name-of-c2" {
		t.Errorf("the first process of c2 is %+v", c.Container)
	}
	p.exec("c1", "e1", connect...)
	if c := who(); c.Container == nil || c.Container.Name != "name-of-c1" {
		t.Errorf("a process in c1 is %+v", c.Container)
	}
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if c := who(); c.Container != nil || c.PID != os.Getpid() {
		t.Errorf("this process is %+v", c)
	}
	p.wait("c2", "c2")
	for _, c := range p.server.Containers() {
		if c.ID == "c2" {
			t.Error("a container that has ended is said to run")
		}
	}
}

// A container that connects as often as it can does not keep another one out.
func TestContainersShareADoor(t *testing.T) {
	t.Parallel()
	p := newSandbox(t)
	finder := &caller.Finder{Containers: p.server.Containers}
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	who := func(conn net.Conn) (caller.Caller, error) {
		return finder.TCP(conn.LocalAddr().(*net.TCPAddr).AddrPort(), conn.RemoteAddr().(*net.TCPAddr).AddrPort())
	}
	crowd := &caller.Crowd{Finder: finder, Now: time.Now}
	const places = 16
	l := fair.Listen(inner, places, func(conn net.Conn) string {
		return crowd.TCP(conn.LocalAddr().(*net.TCPAddr).AddrPort(), conn.RemoteAddr().(*net.TCPAddr).AddrPort())
	}, slog.New(slog.DiscardHandler))
	defer func() { _ = l.Close() }()
	_, port, err := net.SplitHostPort(inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for id, command := range map[string]string{
		"hog":  "i=0; while [ $i -lt 24 ]; do sleep 1000 | nc 127.0.0.1 " + port + " & i=$((i+1)); done; wait; sleep 1000",
		"shy1": "nc 127.0.0.1 " + port, "shy2": "nc 127.0.0.1 " + port,
	} {
		p.create(p.request(id, "/bin/sh", "-c", command))
	}
	accept := func() net.Conn {
		t.Helper()
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	p.start("hog")
	for range places / 2 {
		accept()
	}
	for _, id := range []string{"shy1", "shy2"} {
		p.start(id)
		c, err := who(accept().(interface{ NetConn() net.Conn }).NetConn())
		if err != nil || c.Container == nil || c.Container.ID != id {
			t.Errorf("the connection is not that of %s: %+v, %v", id, c.Container, err)
		}
	}
}
