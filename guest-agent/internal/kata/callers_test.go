package kata

import (
	"net"
	"os"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/caller"
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
