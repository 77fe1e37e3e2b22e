package dhcp

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// onWire runs f in a network namespace whose link ends at a dnsmasq in another.
func onWire(t *testing.T, f func(link netlink.Link)) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("making a network namespace needs root")
	}
	for _, program := range []string{"dnsmasq", "busybox"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("needs %s (make test installs it)", program)
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with its namespace
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("unshare: %v", err)
			return
		}
		pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "host0"}
		if err := netlink.LinkAdd(pair); err != nil {
			t.Errorf("add two links: %v", err)
			return
		}
		stop, err := startServer(t)
		if err != nil {
			t.Error(err)
			return
		}
		defer stop()
		link, err := netlink.LinkByName("eth0")
		if err == nil {
			err = netlink.LinkSetUp(link)
		}
		if err != nil {
			t.Error(err)
			return
		}
		f(link)
	}()
	<-done
}

// startServer moves the other end into a namespace of dnsmasq's own.
func startServer(t *testing.T) (stop func(), err error) {
	script := `read x && busybox ip address add 10.77.0.1/24 dev host0 && busybox ip link set host0 up && exec dnsmasq --keep-in-foreground \
		--conf-file=/dev/null --port=0 --user=root --interface=host0 --bind-interfaces --dhcp-authoritative --no-ping --dhcp-range=10.77.0.50,10.77.0.60,10m \
		--dhcp-option=option:dns-server,9.9.9.9 --dhcp-leasefile=` + filepath.Join(t.TempDir(), "leases") + ` --pid-file= --log-facility=-`
	var log bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	cmd.Stdout, cmd.Stderr = &log, &log
	begin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("dnsmasq: %s", &log)
		}
	}
	peer, err := netlink.LinkByName("host0")
	if err == nil {
		err = netlink.LinkSetNsPid(peer, cmd.Process.Pid)
	}
	if err == nil {
		_, err = fmt.Fprintln(begin, "go")
	}
	if err != nil {
		stop()
		return nil, err
	}
	return stop, nil
}

// A real server lends an address, and renews it once it is set up.
func TestAgainstDnsmasq(t *testing.T) {
	onWire(t, func(link netlink.Link) {
		c := &Client{MAC: [6]byte(link.Attrs().HardwareAddr), Logger: slog.New(slog.DiscardHandler), Dial: func() (Transport, error) { return Dial(link.Attrs().Index) }}
		ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second) // the server may still be starting
		defer cancel()
		l, err := c.Obtain(ctx)
		if err != nil {
			t.Errorf("obtain: %v", err)
			return
		}
		if !netip.MustParsePrefix("10.77.0.0/24").Contains(l.Address.Addr()) || l.Address.Bits() != 24 || l.Gateway.String() != "10.77.0.1" ||
			len(l.DNS) != 1 || l.DNS[0].String() != "9.9.9.9" || l.Expire != 10*time.Minute || l.Renew <= 0 || l.Renew >= l.Expire {
			t.Errorf("%+v", l)
		}
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: l.Address.Addr().AsSlice(), Mask: net.CIDRMask(24, 32)}}
		if err := netlink.AddrAdd(link, addr); err != nil {
			t.Error(err)
		}
		again, err := c.renew(ctx, l)
		if err != nil || again.Address != l.Address || !again.Begin.After(l.Begin) {
			t.Errorf("renewed: %+v, %v", again, err)
		}
	})
}

// Without a server the end of the context ends the wait at once, also on a real
// socket.
func TestNobodyOnTheWire(t *testing.T) {
	onWire(t, func(link netlink.Link) {
		other := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth7"}, PeerName: "eth8"}
		if err := netlink.LinkAdd(other); err != nil {
			t.Error(err)
			return
		}
		alone, err := netlink.LinkByName("eth7")
		if err != nil {
			t.Error(err)
			return
		}
		c := &Client{Logger: slog.New(slog.DiscardHandler), Dial: func() (Transport, error) { return Dial(alone.Attrs().Index) }}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		begin := time.Now()
		if l, err := c.Obtain(ctx); err == nil || time.Since(begin) > 20*time.Second {
			t.Errorf("%+v, %v after %v", l, err, time.Since(begin))
		}
	})
}
