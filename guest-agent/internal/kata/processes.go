package kata

import (
	"context"
	"math"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/container"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/rpc"
)

// maxExecID bounds the names that a runtime gives to processes; they are UUIDs.
const maxExecID = 256

// firstProcess maps the three ways to name a container's first process to the
// one of package container: the Go runtime uses the container's id, runtime-rs
// the empty string, and both may choose another at creation (kata-agent 2.16).
func (r *record) firstProcess(execID string) string {
	if execID == r.ctr.ID() || execID == r.execID {
		return ""
	}
	return execID
}

func (s *Server) process(containerID, execID string) (*container.Process, error) {
	r, err := s.container(containerID)
	if err != nil {
		return nil, err
	}
	return r.ctr.Process(r.firstProcess(execID))
}

// ExecProcess starts a further process in a container.
func (s *Server) ExecProcess(ctx context.Context, req *agent.ExecProcessRequest) (*emptypb.Empty, error) {
	r, err := s.container(req.ContainerId)
	if err != nil {
		return nil, err
	}
	switch {
	case req.Process == nil:
		return nil, invalidf("no process given")
	case len(req.ExecId) > maxExecID:
		return nil, invalidf("the exec id is too long")
	}
	if err := checkProcess(req.StringUser, req.StdinPort, req.StdoutPort, req.StderrPort); err != nil {
		return nil, err
	}
	if err := confineProcess(req.Process); err != nil {
		return nil, err
	}
	p := process(req.Process)
	if p.Env, err = s.unsealEnv(ctx, p.Env); err != nil {
		return nil, err
	}
	return empty, r.ctr.Exec(ctx, r.firstProcess(req.ExecId), p)
}

// SignalProcess sends a signal; see [container.Container.Signal].
func (s *Server) SignalProcess(ctx context.Context, req *agent.SignalProcessRequest) (*emptypb.Empty, error) {
	r, err := s.container(req.ContainerId)
	if err != nil {
		return nil, err
	}
	const lastSignal = 64
	if req.Signal > lastSignal {
		return nil, invalidf("%d is not a signal", req.Signal)
	}
	return empty, r.ctr.Signal(ctx, r.firstProcess(req.ExecId), unix.Signal(req.Signal))
}

// WaitProcess waits for a process and returns its status, also when it has been
// asked before.
func (s *Server) WaitProcess(ctx context.Context, req *agent.WaitProcessRequest) (*agent.WaitProcessResponse, error) {
	p, err := s.process(req.ContainerId, req.ExecId)
	if err != nil {
		return nil, err
	}
	code, err := p.Wait(ctx)
	if err != nil {
		return nil, err
	}
	return &agent.WaitProcessResponse{Status: int32(code)}, nil
}

// ReadStdout waits for output and puts it where it is answered from; none is the
// end.
func (s *Server) ReadStdout(ctx context.Context, req *agent.ReadStreamRequest, c *rpc.Call) (int, error) {
	return s.read(ctx, req, (*container.Process).Stdout, c)
}

// ReadStderr is like ReadStdout.
func (s *Server) ReadStderr(ctx context.Context, req *agent.ReadStreamRequest, c *rpc.Call) (int, error) {
	return s.read(ctx, req, (*container.Process).Stderr, c)
}

func (s *Server) read(
	ctx context.Context, req *agent.ReadStreamRequest, stream func(*container.Process, context.Context, int, container.Sink) (int, error), to container.Sink,
) (int, error) {
	p, err := s.process(req.ContainerId, req.ExecId)
	if err != nil {
		return 0, err
	}
	if req.Len == 0 {
		return 0, invalidf("a read of no bytes")
	}
	for {
		n, err := stream(p, ctx, int(min(req.Len, math.MaxInt32)), to)
		if err != nil || n == 0 || !muted(ctx) {
			return n, err
		}
	}
}

// WriteStdin writes to a process's input. Nothing to write means the end of the
// input: that is how runtime-rs closes it (kata-agent 2.16).
func (s *Server) WriteStdin(ctx context.Context, req *agent.WriteStreamRequest) (*agent.WriteStreamResponse, error) {
	p, err := s.process(req.ContainerId, req.ExecId)
	if err != nil {
		return nil, err
	}
	if len(req.Data) == 0 {
		return &agent.WriteStreamResponse{}, p.CloseStdin(ctx)
	}
	n, err := p.WriteStdin(ctx, req.Data)
	if err != nil {
		return nil, err
	}
	return &agent.WriteStreamResponse{Len: uint32(n)}, nil
}

// CloseStdin ends a process's input, the way of the Go runtime.
func (s *Server) CloseStdin(ctx context.Context, req *agent.CloseStdinRequest) (*emptypb.Empty, error) {
	p, err := s.process(req.ContainerId, req.ExecId)
	if err != nil {
		return nil, err
	}
	return empty, p.CloseStdin(ctx)
}

// TtyWinResize sets the size of a process's terminal.
func (s *Server) TtyWinResize(_ context.Context, req *agent.TtyWinResizeRequest) (*emptypb.Empty, error) {
	p, err := s.process(req.ContainerId, req.ExecId)
	if err != nil {
		return nil, err
	}
	if req.Row > math.MaxUint16 || req.Column > math.MaxUint16 {
		return nil, invalidf("a terminal cannot be %d by %d", req.Row, req.Column)
	}
	return empty, p.Resize(uint16(req.Row), uint16(req.Column))
}
