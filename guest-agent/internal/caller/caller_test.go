package caller

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The other end of a connection of our own is this process.
func TestThisProcess(t *testing.T) {
	f := &Finder{Containers: func() []Container { return nil }}
	for network, at := range map[string]string{"tcp4": "127.0.0.1:0", "tcp6": "[::1]:0", "tcp": "127.0.0.1:0", "unix": filepath.Join(t.TempDir(), "s")} {
		l, err := net.Listen(network, at)
		if err != nil {
			t.Logf("%s: %v", network, err) // a machine without IPv6
			continue
		}
		client, err := net.Dial(l.Addr().Network(), l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		server, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		var who Caller
		if u, ok := server.(*net.UnixConn); ok {
			who, err = f.Unix(u)
		} else {
			who, err = f.TCP(server.LocalAddr().(*net.TCPAddr).AddrPort(), server.RemoteAddr().(*net.TCPAddr).AddrPort())
		}
		if err != nil || who.PID != os.Getpid() || int(who.UID) != os.Getuid() || who.Container != nil {
			t.Errorf("%s: %+v, %v", network, who, err)
		}
		for _, c := range []interface{ Close() error }{client, server, l} {
			_ = c.Close()
		}
	}
}

// tree is a /proc of two containers, whose processes are 100 and 200, and what
// else a test puts there.
func tree(t *testing.T, connections ...string) *Finder {
	t.Helper()
	f := &Finder{proc: t.TempDir(), Containers: func() []Container {
		return []Container{{ID: "1", Name: "app", PID: 100}, {ID: "2", Name: "side", PID: 200}, {ID: "3", Name: "gone", PID: 300}}
	}}
	text := "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n" + strings.Join(connections, "\n") + "\n"
	write(t, f, "thread-self/net/tcp", text)
	f.process(t, 1, "/", 0)
	f.process(t, 100, "/pod/1", 0)
	f.process(t, 200, "/pod/2", 0)
	return f
}

func write(t *testing.T, f *Finder, name, text string) {
	t.Helper()
	path := filepath.Join(f.proc, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// process adds a process in a cgroup of two hierarchies that holds a socket.
func (f *Finder) process(t *testing.T, pid int, cgroup string, inode int) {
	t.Helper()
	write(t, f, fmt.Sprintf("%d/cgroup", pid), fmt.Sprintf("4:memory:%s\n2:devices:%s\n1:name=systemd:/init\n0::/\n", cgroup, cgroup))
	fds := filepath.Join(f.proc, fmt.Sprint(pid), "fd")
	if err := os.MkdirAll(fds, 0o755); err != nil {
		t.Fatal(err)
	}
	_ = os.Symlink("/dev/null", filepath.Join(fds, "0"))
	if inode > 0 {
		if err := os.Symlink(fmt.Sprintf("socket:[%d]", inode), filepath.Join(fds, "3")); err != nil {
			t.Fatal(err)
		}
	}
}

var (
	server = netip.MustParseAddrPort("127.0.0.1:8006")
	client = netip.MustParseAddrPort("127.0.0.1:40000")
)

// A connection of inode 77, from 40000 to 8006, and the server's end of it.
const (
	clientRow = "   1: 0100007F:9C40 0100007F:1F46 01 00000000:00000000 00:00000000 00000000  1000        0 77 1 0 20 4 30 10 -1"
	serverRow = "   2: 0100007F:1F46 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 78 1 0 20 4 30 10 -1"
	closedRow = "   3: 0100007F:9C40 0100007F:1F46 06 00000000:00000000 03:00000000 00000000     0        0 0 3 0"
	mappedRow = "   1: 0000000000000000FFFF00000100007F:9C40 0000000000000000FFFF00000100007F:1F46 01 00000000:00000000 00:00000000 00000000  1000        0 77 1 0"
)

func TestContainerOfAConnection(t *testing.T) {
	for name, c := range map[string]struct {
		rows  []string
		setup func(f *Finder)
		want  string // "" is an error, "-" no container
	}{
		"a container":                    {[]string{serverRow, clientRow}, func(f *Finder) { f.process(t, 101, "/pod/1", 77) }, "app"},
		"below a container":              {[]string{clientRow}, func(f *Finder) { f.process(t, 201, "/pod/2/own", 77) }, "side"},
		"a program of the guest":         {[]string{clientRow}, func(f *Finder) { f.process(t, 9, "/system.slice", 77) }, "-"},
		"a name that begins alike":       {[]string{clientRow}, func(f *Finder) { f.process(t, 9, "/pod/10", 77) }, "-"},
		"two processes of one container": {[]string{clientRow}, func(f *Finder) { f.process(t, 101, "/pod/1", 77); f.process(t, 102, "/pod/1", 77) }, "app"},
		"processes of two containers":    {[]string{clientRow}, func(f *Finder) { f.process(t, 101, "/pod/1", 77); f.process(t, 201, "/pod/2", 77) }, ""},
		"a container and the guest":      {[]string{clientRow}, func(f *Finder) { f.process(t, 101, "/pod/1", 77); f.process(t, 9, "/x", 77) }, ""},
		"nobody holds it":                {[]string{clientRow}, func(*Finder) {}, ""},
		"no such connection":             {[]string{serverRow}, func(f *Finder) { f.process(t, 101, "/pod/1", 77) }, ""},
		"a connection that was":          {[]string{closedRow}, func(f *Finder) { f.process(t, 101, "/pod/1", 77) }, ""},
		"a table nobody can read":        {[]string{"garbage", "1: x y 01 a b c d e f"}, func(*Finder) {}, ""},
		"a cgroup the host gave to two":  {[]string{clientRow}, func(f *Finder) { f.process(t, 300, "/pod/1", 0); f.process(t, 101, "/pod/1", 77) }, ""},
		"half out of its cgroups": {[]string{clientRow}, func(f *Finder) {
			f.process(t, 101, "/pod/1", 77)
			write(t, f, "101/cgroup", "4:memory:/\n2:devices:/pod/1\n")
		}, "-"},
		"a container without any cgroups": {[]string{clientRow}, func(f *Finder) { write(t, f, "300/cgroup", "0::/\n"); f.process(t, 9, "/", 77) }, "-"},
	} {
		t.Run(name, func(t *testing.T) {
			f := tree(t, c.rows...)
			c.setup(f)
			who, err := f.TCP(server, client)
			got := "-"
			if who.Container != nil {
				got = who.Container.Name
			}
			if err != nil {
				got = ""
			}
			if got != c.want {
				t.Errorf("%q (%+v, %v), want %q", got, who, err, c.want)
			}
			if err == nil && who.UID != 1000 {
				t.Errorf("user %d", who.UID)
			}
		})
	}
}

// Who no longer holds a connection when its container is known may be another by
// then, who has the number of one that has ended.
func TestConnectionThatChangesHands(t *testing.T) {
	f := tree(t, clientRow)
	f.process(t, 101, "/pod/1", 77)
	all := f.Containers
	f.Containers = func() []Container {
		if err := os.Remove(filepath.Join(f.proc, "101/fd/3")); err != nil {
			t.Error(err)
		}
		return all()
	}
	if who, err := f.TCP(server, client); err == nil {
		t.Errorf("it is %+v", who)
	}
}

// A process connects, hands the connection to another and ends: whoever gets its
// number has not asked.
func TestPeerThatHasEnded(t *testing.T) {
	if at := os.Getenv("CONNECT_TO"); at != "" {
		handOver(t, at)
		return
	}
	at := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: at, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "theirs")
	cmd := exec.Command(os.Args[0], "-test.run", "^TestPeerThatHasEnded$")
	cmd.Env = append(os.Environ(), "CONNECT_TO="+at)
	cmd.ExtraFiles = []*os.File{theirs}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	conn, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	f := tree(t)
	f.process(t, cmd.Process.Pid, "/pod/1/sub", 0) // also whoever has the number later
	if who, err := f.Unix(conn); err != nil || who.Container == nil || who.Container.Name != "app" {
		t.Errorf("while it lives it is %+v, %v", who, err)
	}
	// The connection outlives it.
	oob := make([]byte, unix.CmsgSpace(4))
	if _, err := unix.Write(pair[0], []byte{1}); err != nil {
		t.Fatal(err)
	}
	if _, n, _, _, err := unix.Recvmsg(pair[0], make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC); err != nil || n == 0 {
		t.Fatalf("%d bytes, %v", n, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if who, err := f.Unix(conn); err == nil {
		t.Errorf("after its end it is %+v", who)
	}
}

// handOver connects, waits for a byte, passes the connection on and ends.
func handOver(t *testing.T, at string) {
	t.Helper()
	const starter = 3
	conn, err := net.Dial("unix", at)
	if err != nil {
		t.Fatal(err)
	}
	file, err := conn.(*net.UnixConn).File()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Read(starter, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := unix.Sendmsg(starter, []byte{1}, unix.UnixRights(int(file.Fd())), nil, 0); err != nil {
		t.Fatal(err)
	}
}

// A program may reach an IPv4 address over IPv6.
func TestMappedAddress(t *testing.T) {
	f := tree(t)
	write(t, f, "thread-self/net/tcp6", "header\n"+mappedRow+"\n")
	f.process(t, 101, "/pod/1", 77)
	if who, err := f.TCP(server, client); err != nil || who.Container == nil || who.Container.ID != "1" {
		t.Errorf("%+v, %v", who, err)
	}
}

// Containers are told apart, also where only their pid namespaces do; who cannot be
// told is one with all others who cannot.
func TestParty(t *testing.T) {
	f := tree(t, clientRow)
	namespaces := map[string]string{"self": "pid:[1]", "9": "pid:[1]", "10": "pid:[10]", "11": "pid:[10]", "101": "pid:[100]"}
	for process, ns := range namespaces {
		link := filepath.Join(f.proc, process, "ns/pid")
		if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(ns, link); err != nil {
			t.Fatal(err)
		}
	}
	known := errors.New("it is not")
	for name, c := range map[string]struct {
		who  Caller
		err  error
		want string
	}{
		"a container":                   {Caller{PID: 101, Container: &Container{ID: "1"}}, nil, "container 1"},
		"one that is not known":         {Caller{PID: 10}, known, "pid:[10]"},
		"its other process":             {Caller{PID: 11, UID: 7}, nil, "pid:[10]"},
		"a program of the guest":        {Caller{PID: 9, UID: 7}, nil, "user 7"},
		"one that has ended":            {Caller{PID: 12}, known, "unknown"},
		"nobody that is known":          {Caller{}, known, "unknown"},
		"no process, but no error":      {Caller{}, nil, "unknown"},
		"a container that is not known": {Caller{PID: 101, Container: &Container{ID: "1"}}, known, "pid:[100]"},
	} {
		if got := f.Party(c.who, c.err); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// A crowd is looked at once, and again for who comes later or when the look is old.
func TestCrowd(t *testing.T) {
	f := tree(t, clientRow, serverRow)
	f.process(t, 101, "/pod/1", 77)
	now := time.Unix(0, 0)
	c := &Crowd{Finder: f, Now: func() time.Time { return now }}
	check := func(what, want string, from netip.AddrPort) {
		t.Helper()
		if got := c.TCP(server, from); got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	check("a container", "container 1", client)
	looked := c.looked
	now = now.Add(lookLasts)
	f.process(t, 201, "/pod/2", 77)
	check("as it was seen", "container 1", client)
	if c.looked != looked {
		t.Error("who was seen is looked for again")
	}
	now = now.Add(1)
	check("held by two containers by now", unknown, client)
	check("nobody's", unknown, netip.MustParseAddrPort("127.0.0.1:40001"))
	late := strings.Replace(strings.Replace(clientRow, "9C40", "9C41", 1), " 77 ", " 79 ", 1)
	write(t, f, "thread-self/net/tcp", "header\n"+clientRow+"\n"+late+"\n")
	f.process(t, 202, "/pod/2", 79)
	check("who came later", "container 2", netip.MustParseAddrPort("127.0.0.1:40001"))
}

func TestDoors(t *testing.T) {
	if _, _, err := From(t.Context()); err == nil {
		t.Error("a request out of nowhere has a caller")
	}
	calls := 0
	ctx := Through(t.Context(), true, func() (Caller, error) { calls++; return Caller{PID: 7}, errors.New("half known") })
	for range 3 {
		if who, rooted, err := From(context.WithoutCancel(ctx)); err == nil || who.PID != 7 || !rooted {
			t.Errorf("%+v, %v, %v", who, rooted, err)
		}
	}
	if calls != 1 {
		t.Errorf("looked %d times", calls)
	}
}

func FuzzRow(f *testing.F) {
	f.Add(clientRow)
	f.Add(mappedRow)
	f.Fuzz(func(t *testing.T, line string) {
		if r, ok := parseRow(line); ok && (!r.local.IsValid() || !r.remote.IsValid()) {
			t.Fatalf("%q became %+v", line, r)
		}
	})
}
