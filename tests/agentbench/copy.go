package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/containerd/ttrpc"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

// This program as a bare copy: what the agent does between the pipe and the
// socket, and nothing else. The first answers in the protocol that runtimes
// speak, with the protocol's own library; the second answers a size with that
// many bytes.
const (
	protocolCommand = "copy-in-protocol"
	relayCommand    = "copy"
)

func serveCopy(kind, socket string) error {
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	if kind == relayCommand {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		return relay(conn)
	}
	s, err := ttrpc.NewServer()
	if err != nil {
		return err
	}
	agent.RegisterAgentServiceService(s, copier{})
	return s.Serve(context.Background(), l) // until it is killed
}

// copier is an agent with one method.
type copier struct{ agent.AgentServiceService }

func (copier) ReadStdout(_ context.Context, req *agent.ReadStreamRequest) (*agent.ReadStreamResponse, error) {
	buf := make([]byte, req.Len)
	n, err := os.Stdin.Read(buf)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return &agent.ReadStreamResponse{Data: buf[:n]}, nil
}

// relay answers each request, a size, with that much of standard input at most.
func relay(conn net.Conn) error {
	var head [4]byte
	var buf []byte
	for {
		if _, err := io.ReadFull(conn, head[:]); err != nil {
			return err
		}
		if n := int(binary.BigEndian.Uint32(head[:])); len(buf) < n+4 {
			buf = make([]byte, n+4)
		}
		n, err := os.Stdin.Read(buf[4:])
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		binary.BigEndian.PutUint32(buf, uint32(n))
		if _, err := conn.Write(buf[:n+4]); err != nil || n == 0 {
			return err
		}
	}
}

// bareCopy is chatty without agent and container: the same writer, one of the
// copies above, and its reader.
func bareCopy(ctx context.Context, kind string, megabytes, size int, read reading) (rate float64, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp("", "copy-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	socket, args := filepath.Join(dir, "s"), writer(megabytes)
	from := exec.CommandContext(ctx, args[0], args[1:]...)
	to := exec.CommandContext(ctx, self, kind, socket)
	out, in, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	from.Stdout, to.Stdin, to.Stderr = in, out, os.Stderr
	if err := errors.Join(from.Start(), to.Start(), in.Close(), out.Close()); err != nil {
		return 0, err
	}
	defer func() {
		err = errors.Join(err, from.Wait())
		_ = to.Process.Kill()
		_ = to.Wait()
	}()
	var conn net.Conn
	for conn == nil && ctx.Err() == nil {
		conn, _ = (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	if conn == nil {
		return 0, ctx.Err()
	}
	begin := time.Now()
	n, err := read(ctx, conn, size)
	took := time.Since(begin)
	if err == nil && n != int64(megabytes)<<20 {
		err = fmt.Errorf("%d bytes of %d MiB arrived", n, megabytes)
	}
	return float64(n) / 1e6 / took.Seconds(), err
}

// reading takes all that comes in pieces of a size, closes the connection, and
// returns how much it was.
type reading func(ctx context.Context, conn net.Conn, size int) (int64, error)

// readLibrary reads a container's output with the library's client.
func readLibrary(id string) reading {
	return func(ctx context.Context, conn net.Conn, size int) (int64, error) {
		c := ttrpc.NewClient(conn)
		n, err := readAll(ctx, agent.NewAgentServiceClient(c), id, size)
		return n, errors.Join(err, c.Close())
	}
}

func readRelay(_ context.Context, conn net.Conn, size int) (total int64, err error) {
	defer func() { err = errors.Join(err, conn.Close()) }()
	buf := make([]byte, size+4)
	for {
		binary.BigEndian.PutUint32(buf, uint32(size))
		if _, err := conn.Write(buf[:4]); err != nil {
			return total, err
		}
		if _, err := io.ReadFull(conn, buf[:4]); err != nil {
			return total, err
		}
		n := int(binary.BigEndian.Uint32(buf))
		if n == 0 {
			return total, nil
		}
		if _, err := io.ReadFull(conn, buf[:n]); err != nil {
			return total, err
		}
		total += int64(n)
	}
}
