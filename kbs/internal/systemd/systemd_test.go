package systemd

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func env(m map[string]string) func(string) string { return func(k string) string { return m[k] } }

func TestNotify(t *testing.T) {
	if err := NewNotifier(env(nil)).Notify(Ready); err != nil {
		t.Errorf("without systemd: %v", err)
	}
	for _, name := range []string{filepath.Join(t.TempDir(), "notify"), "@vouchsafe-test-" + filepath.Base(t.TempDir()) + t.Name()} {
		ln, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		n := NewNotifier(env(map[string]string{"NOTIFY_SOCKET": name}))
		if err := n.Notify(Ready, "STATUS=serving"); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 100)
		k, err := ln.Read(buf)
		if err != nil || string(buf[:k]) != "READY=1\nSTATUS=serving" {
			t.Errorf("%q: %v", buf[:k], err)
		}
		_ = ln.Close()
	}
	if err := NewNotifier(env(map[string]string{"NOTIFY_SOCKET": "/does/not/exist"})).Notify(Ready); err == nil {
		t.Error("nobody listens, and nothing is said")
	}
}

func TestWatchdogInterval(t *testing.T) {
	for name, c := range map[string]struct {
		env  map[string]string
		want time.Duration
	}{
		"none":         {nil, 0},
		"mine":         {map[string]string{"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 15 * time.Second},
		"no pid":       {map[string]string{"WATCHDOG_USEC": "30000000"}, 15 * time.Second},
		"another's":    {map[string]string{"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, 0},
		"not a number": {map[string]string{"WATCHDOG_USEC": "x"}, 0},
		"negative":     {map[string]string{"WATCHDOG_USEC": "-5"}, 0},
	} {
		if got := WatchdogInterval(env(c.env), 7); got != c.want {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestListeners(t *testing.T) {
	passed := func(int, string) *os.File {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		f, err := ln.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		_ = ln.Close()
		return f
	}
	got, err := listeners(env(map[string]string{"LISTEN_PID": "7", "LISTEN_FDS": "3", "LISTEN_FDNAMES": "guests:guests:admins"}), 7, passed)
	if err != nil || len(got["guests"]) != 2 || len(got["admins"]) != 1 {
		t.Fatalf("%v: %v", got, err)
	}
	for _, lns := range got {
		for _, ln := range lns {
			c, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				t.Error(err)
				continue
			}
			_, _ = c.Close(), ln.Close()
		}
	}
	for name, vars := range map[string]map[string]string{
		"nothing passed": {}, "another's": {"LISTEN_PID": "8", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "x"}, "none": {"LISTEN_PID": "7", "LISTEN_FDS": "0"},
	} {
		if got, err := listeners(env(vars), 7, passed); got != nil || err != nil {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if _, err := listeners(env(map[string]string{"LISTEN_PID": "7", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "guests"}), 7, passed); err == nil {
		t.Error("sockets without names were taken")
	}
	for _, n := range []string{"x", "-1", "1000"} {
		if _, err := listeners(env(map[string]string{"LISTEN_PID": "7", "LISTEN_FDS": n}), 7, passed); err == nil {
			t.Errorf("%s sockets were taken", n)
		}
	}
	plain := func(int, string) *os.File {
		f, err := os.Create(filepath.Join(t.TempDir(), "file"))
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	if _, err := listeners(env(map[string]string{"LISTEN_PID": "7", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "guests"}), 7, plain); err == nil {
		t.Error("a file was taken for a socket")
	}
}
