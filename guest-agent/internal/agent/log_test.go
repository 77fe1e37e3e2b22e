package agent

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/logport"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/settings"
)

// The log goes to the console, or to its port and then nowhere else; whoever
// connects there gets also what was said before, and the last line.
func TestLogPort(t *testing.T) {
	var console bytes.Buffer
	path := filepath.Join(t.TempDir(), "log")
	log, closeLog, err := newLogger(t.Context(), Options{Stderr: &console, LogListen: "unix://" + path, Version: "v"}, settings.Agent{})
	if err != nil {
		t.Fatal(err)
	}
	log.Info("the first")
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	lines := bufio.NewScanner(conn)
	next := func() (entry struct{ Msg, Level, Version string }) {
		t.Helper()
		if !lines.Scan() {
			t.Fatalf("the end: %v", lines.Err())
		}
		if err := json.Unmarshal(lines.Bytes(), &entry); err != nil {
			t.Fatal(err)
		}
		return entry
	}
	if e := next(); e.Msg != "the first" || e.Level != "INFO" || e.Version != "v" {
		t.Errorf("%+v", e)
	}
	log.Error("the last")
	if err := closeLog(); err != nil {
		t.Error(err)
	}
	if e := next(); e.Msg != "the last" || e.Level != "ERRO" {
		t.Errorf("%+v", e)
	}
	if console.Len() > 0 {
		t.Errorf("on the console: %s", &console)
	}
	plain, closePlain, err := newLogger(t.Context(), Options{Stderr: &console}, settings.Agent{})
	if err != nil {
		t.Fatal(err)
	}
	plain.Info("here")
	if err := closePlain(); err != nil || !strings.Contains(console.String(), `"msg":"here"`) {
		t.Errorf("%s, %v", &console, err)
	}
}

func TestLogAddress(t *testing.T) {
	at, wanted, err := logAddress(Options{}, settings.Agent{LogPort: 1025})
	if want := (address{network: "vsock", cid: unix.VMADDR_CID_ANY, port: 1025}); at != want || !wanted || err != nil {
		t.Errorf("%+v, %v, %v", at, wanted, err)
	}
	if _, wanted, err := logAddress(Options{}, settings.Agent{}); wanted || err != nil {
		t.Errorf("without: %v, %v", wanted, err)
	}
	for _, bad := range []string{"tcp://127.0.0.1:1", "1025"} {
		if _, _, err := logAddress(Options{LogListen: bad}, settings.Agent{}); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// from is a connection that says where it comes from.
type from struct {
	net.Conn
	addr   net.Addr
	closed *bool
}

func (f from) RemoteAddr() net.Addr { return f.addr }
func (f from) Close() error         { *f.closed = true; return nil }

type queueOf []net.Conn

func (q *queueOf) Accept() (net.Conn, error) {
	if len(*q) == 0 {
		return nil, io.EOF
	}
	c := (*q)[0]
	*q = (*q)[1:]
	return c, nil
}
func (*queueOf) Close() error   { return nil }
func (*queueOf) Addr() net.Addr { return nil }

// Over vsock's loopback a container would reach the agent's own ports.
func TestVsockIsForTheHost(t *testing.T) {
	var closed [3]bool
	q := &queueOf{
		from{addr: &vsock.Addr{ContextID: vsock.Local}, closed: &closed[0]}, from{addr: &vsock.Addr{ContextID: 3}, closed: &closed[1]},
		from{addr: &vsock.Addr{ContextID: vsock.Host}, closed: &closed[2]},
	}
	conn, err := hostOnly{q}.Accept()
	if err != nil || conn.RemoteAddr().(*vsock.Addr).ContextID != vsock.Host || closed != [3]bool{true, true, false} {
		t.Errorf("%v, %v, closed %v", conn, err, closed)
	}
	if _, err := (hostOnly{q}).Accept(); !errors.Is(err, io.EOF) {
		t.Errorf("the end: %v", err)
	}
}

// What configures the agent is a file of the image that only root can write.
func TestReadImage(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	dir, err := os.MkdirTemp("/", "vouchsafe-test-") // on the root file system for sure
	if err != nil {
		t.Skipf("the root file system cannot be written: %v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	file := func(name string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("text"), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := file("good", 0o644)
	if raw, err := readImage(good); err != nil || string(raw) != "text" {
		t.Errorf("%q, %v", raw, err)
	}
	others := file("others", 0o644)
	if err := os.Chown(others, 1, 1); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(good, link); err != nil {
		t.Fatal(err)
	}
	mounted := filepath.Join(dir, "mounted")
	if err := os.Mkdir(mounted, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", mounted, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(mounted, 0) })
	for name, path := range map[string]string{
		"elsewhere": file("mounted/x", 0o644), "of others": others, "for the group": file("group", 0o664), "for all": file("all", 0o646), "a link": link,
		"a directory": dir, "not there": dir + "/none", "relative": "etc/x", "not clean": dir + "/../" + filepath.Base(dir) + "/good", "a kernel's": "/proc/cmdline",
	} {
		if _, err := readImage(path); err == nil {
			t.Errorf("%s is read", name)
		}
	}
}

// Over a real vsock, where the kernel has its loopback: the agent's own listeners
// turn away what does not come from the host, and the log is had over such
// connections.
func TestVsock(t *testing.T) {
	const port = 51025
	at := address{network: "vsock", cid: unix.VMADDR_CID_ANY, port: port}
	guarded, err := at.listen(t.Context())
	if err != nil {
		t.Skipf("no vsock here (make test-kernel has it): %v", err)
	}
	accepted := make(chan error, 1)
	go func() {
		_, err := guarded.Accept()
		accepted <- err
	}()
	local, err := vsock.Dial(vsock.Local, port, nil)
	if err != nil {
		_ = guarded.Close()
		t.Skipf("no vsock loopback here: %v", err)
	}
	_ = local.SetReadDeadline(time.Now().Add(60 * time.Second))
	if n, err := local.Read(make([]byte, 1)); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a connection from inside is not closed: %d, %v", n, err)
	}
	if err := errors.Join(local.Close(), guarded.Close()); err != nil {
		t.Error(err)
	}
	if err := <-accepted; err == nil {
		t.Error("a connection from inside was accepted")
	}

	open, err := vsock.ListenContextID(vsock.Local, port, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	queue, served := logport.NewQueue(), make(chan error, 1)
	go func() { served <- queue.Serve(ctx, open) }()
	_, _ = fmt.Fprintln(queue, "one")
	reader, err := vsock.Dial(vsock.Local, port, nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = reader.SetReadDeadline(time.Now().Add(60 * time.Second))
	lines := bufio.NewScanner(reader)
	if !lines.Scan() || lines.Text() != "one" {
		t.Errorf("%q, %v", lines.Text(), lines.Err())
	}
	_, _ = fmt.Fprintln(queue, "two")
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if !lines.Scan() || lines.Text() != "two" {
		t.Errorf("%q, %v", lines.Text(), lines.Err())
	}
	_ = reader.Close()
}
