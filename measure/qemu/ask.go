package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// Question is the machine that QEMU is asked about.
type Question struct {
	// Program is that QEMU, for example qemu-system-x86_64.
	Program string
	// Arguments describe the machine as for a run of the guest: -machine, -cpu,
	// -smp, -m and the devices. Accelerators and TEEs are left out.
	Arguments []string
	// ConfigurationBase is where the firmware puts the configuration space of PCI
	// Express. The tables name it; see [ConfigurationBase].
	ConfigurationBase uint32
}

// grace is how long QEMU may take to end when it is told to.
const grace = 5 * time.Second

// Ask starts QEMU with a machine whose processors never run, does to its chipset
// what a firmware does before it reads the tables, and reads them. It takes a
// second or two. The machine's disks and networks are opened as for a run.
func Ask(ctx context.Context, q Question) (m Machine, err error) {
	dir, err := os.MkdirTemp("", "measure-qemu-")
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	socket := filepath.Join(dir, "qtest")
	listener, err := new(net.ListenConfig).Listen(ctx, "unix", socket)
	if err != nil {
		return m, err
	}
	defer func() { _ = listener.Close() }() // nothing is accepted any more
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	arguments := append(append([]string{}, q.Arguments...), "-S", "-display", "none", "-accel", "tcg", "-qtest", "unix:"+socket, "-qtest-log", os.DevNull)
	cmd := exec.CommandContext(ctx, q.Program, arguments...) //nolint:gosec // the caller's own program
	var complaint bytes.Buffer
	cmd.Stderr, cmd.WaitDelay = &complaint, grace
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	if err := cmd.Start(); err != nil {
		return m, err
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it is told to end; whether it answered is what counts
		close(ended)
		_ = listener.Close() // so that nobody waits for a program that is gone
	}()
	m, err = answer(ctx, listener, q.ConfigurationBase)
	cancel()
	<-ended
	if err != nil && complaint.Len() > 0 {
		err = fmt.Errorf("%w; it said: %s", err, bytes.TrimSpace(complaint.Bytes()))
	}
	return m, err
}

func answer(ctx context.Context, listener net.Listener, base uint32) (m Machine, err error) {
	conn, err := listener.Accept()
	if err != nil {
		return m, errors.New("QEMU ended before it answered")
	}
	defer func() { _ = conn.Close() }() // all is read
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if m, err = readMachine(conn, base); err != nil {
		return m, err
	}
	return m, m.check()
}
