// Package guestnet makes a network namespace that stands for a guest's: it has
// nothing but its own loopback, and on that loopback a few ports that lead to
// services of the host, as a hypervisor's user-mode network would offer them.
// What is not forwarded cannot be reached, and nothing on the host's network
// is touched.
package guestnet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Net is one guest's network. All of its work happens on one thread that lives
// in the namespace; the thread ends, and the namespace with it, on Close.
type Net struct {
	jobs  chan func()
	ended chan struct{}

	mu        sync.Mutex
	listeners []net.Listener
	wires     map[string]*wire // by the address that they lead to
	relays    sync.WaitGroup
}

// New makes a namespace with its loopback up. It needs CAP_SYS_ADMIN.
func New() (*Net, error) {
	n := &Net{jobs: make(chan func()), ended: make(chan struct{}), wires: map[string]*wire{}}
	ready := make(chan error, 1)
	go n.live(ready)
	if err := <-ready; err != nil {
		<-n.ended
		return nil, fmt.Errorf("network namespace: %w", err)
	}
	return n, nil
}

// live owns the namespace's thread. It never unlocks the thread, so that the
// runtime ends it instead of giving it to other goroutines.
func (n *Net) live(ready chan<- error) {
	defer close(n.ended)
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		ready <- err
		return
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	ready <- err
	if err != nil {
		return
	}
	for job := range n.jobs {
		job()
	}
}

// do runs f on the namespace's thread.
func (n *Net) do(f func()) {
	done := make(chan struct{})
	n.jobs <- func() { defer close(done); f() }
	<-done
}

// Forward makes the host's address reachable under the same address inside.
func (n *Net) Forward(addr string) error {
	var ln net.Listener
	var err error
	n.do(func() { ln, err = net.Listen("tcp", addr) })
	if err != nil {
		return err
	}
	w := newWire()
	n.mu.Lock()
	n.listeners, n.wires[addr] = append(n.listeners, ln), w
	n.mu.Unlock()
	n.relays.Go(func() {
		for {
			inside, err := ln.Accept()
			if err != nil {
				return
			}
			n.relays.Go(func() { w.relay(inside, addr) })
		}
	})
	return nil
}

// Start starts a command inside the namespace.
func (n *Net) Start(cmd *exec.Cmd) error {
	var err error
	n.do(func() { err = cmd.Start() })
	return err
}

// Get sends a GET request from inside the namespace and returns the body of a
// 200 answer, at most 1 MiB of it.
func (n *Net) Get(ctx context.Context, url string) (string, error) {
	transport := &http.Transport{DialContext: n.dial, DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return string(body), fmt.Errorf("%s answered %s", url, resp.Status)
	}
	return string(body), nil
}

// dial opens a connection whose socket is made on the namespace's thread: a
// socket stays in the namespace it was made in. Only literal addresses work,
// since the Go resolver would ask from another thread.
func (n *Net) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var conn net.Conn
	var err error
	n.do(func() {
		fd, serr := socket(addr)
		if serr != nil {
			err = serr
			return
		}
		file := os.NewFile(uintptr(fd), addr)
		conn, err = net.FileConn(file)
		err = errors.Join(err, file.Close())
	})
	if err == nil {
		err = ctx.Err()
	}
	return conn, err
}

func socket(addr string) (int, error) {
	tcp, err := net.ResolveTCPAddr("tcp4", addr)
	if err != nil {
		return 0, err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	to := &unix.SockaddrInet4{Port: tcp.Port}
	copy(to.Addr[:], tcp.IP.To4())
	if err := unix.Connect(fd, to); err != nil {
		_ = unix.Close(fd)
		return 0, fmt.Errorf("connect %s: %w", addr, err)
	}
	return fd, nil
}

// Close ends the forwarders and the namespace. Processes started inside keep
// it alive until they end.
func (n *Net) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var errs []error
	for _, ln := range n.listeners {
		errs = append(errs, ln.Close())
	}
	n.listeners = nil
	n.relays.Wait()
	close(n.jobs)
	<-n.ended
	return errors.Join(errs...)
}
