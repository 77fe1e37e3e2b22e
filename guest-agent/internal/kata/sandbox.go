package kata

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/sandbox"
)

var empty = &emptypb.Empty{}

// CreateSandbox makes what the pod's containers share, once.
func (s *Server) CreateSandbox(ctx context.Context, req *agent.CreateSandboxRequest) (*emptypb.Empty, error) {
	if req.GuestHookPath != "" {
		return nil, invalidf("guest hooks are not supported")
	}
	if len(req.KernelModules) > 0 {
		return nil, invalidf("loading kernel modules is not supported")
	}
	if err := s.beginSandbox(); err != nil {
		return nil, err
	}
	defer s.creations.Done()
	err := s.sandbox.Setup(ctx, sandbox.Request{Hostname: req.Hostname, DNS: req.Dns, Storages: req.Storages})
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		if s.state == creatingSandbox {
			s.state = absentSandbox
		}
		return nil, err
	}
	if s.state == creatingSandbox {
		s.state = liveSandbox
	}
	s.sharePID, s.hostname = req.SandboxPidns, req.Hostname != ""
	s.log.Info("sandbox created", slog.String("sandbox", req.SandboxId))
	return empty, nil
}

func (s *Server) beginSandbox() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != absentSandbox {
		return refusef(codes.AlreadyExists, "there is a sandbox already; one agent serves one")
	}
	s.state = creatingSandbox
	s.creations.Add(1)
	return nil
}

// DestroySandbox ends all containers and undoes everything. Afterwards the agent
// has nothing left to do.
func (s *Server) DestroySandbox(ctx context.Context, _ *agent.DestroySandboxRequest) (*emptypb.Empty, error) {
	return empty, s.Destroy(ctx)
}

// Destroy is DestroySandbox for the agent itself. The first call does the work,
// further ones wait for it.
func (s *Server) Destroy(ctx context.Context) error {
	s.mu.Lock()
	first := s.state != destroyedSandbox
	s.state = destroyedSandbox
	s.mu.Unlock()
	if !first {
		select {
		case <-s.done:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	defer close(s.done)
	close(s.destroying)
	s.creations.Wait() // short: they give up
	err := errors.Join(s.removeAll(ctx), s.sandbox.Close(ctx))
	s.log.Info("sandbox destroyed", slog.Any("err", err))
	return err
}

// GetGuestDetails describes the guest and the agent.
func (s *Server) GetGuestDetails(_ context.Context, req *agent.GuestDetailsRequest) (*agent.GuestDetailsResponse, error) {
	resp := &agent.GuestDetailsResponse{AgentDetails: &agent.AgentDetails{
		Version:         s.version,
		InitDaemon:      os.Getpid() == 1,
		StorageHandlers: sandbox.Drivers(),
		SupportsSeccomp: s.seccomp(),
	}}
	if req.MemBlockSize {
		resp.MemBlockSizeBytes = memoryBlockSize()
	}
	if req.MemHotplugProbe {
		_, err := os.Stat("/sys/devices/system/memory/probe")
		resp.SupportMemHotplugProbe = err == nil
	}
	return resp, nil
}

// memoryBlockSize is 0 where memory cannot be hot-plugged.
func memoryBlockSize() uint64 {
	raw, err := os.ReadFile("/sys/devices/system/memory/block_size_bytes")
	if err != nil {
		return 0
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(raw)), 16, 64)
	if err != nil {
		return 0
	}
	return n
}

// CopyFile takes a file from the host into the shared directory.
func (s *Server) CopyFile(_ context.Context, req *agent.CopyFileRequest) (*emptypb.Empty, error) {
	return empty, s.sandbox.CopyFile(req)
}

// GetOOMEvent would tell of a container that ran out of memory. Such events are
// not collected, so it waits until the end; a runtime asks again at once after
// any other error (kata-agent 1.5).
func (s *Server) GetOOMEvent(ctx context.Context, _ *agent.GetOOMEventRequest) (*agent.OOMEvent, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.destroying:
		return nil, errDestroyed
	}
}

// RemoveStaleVirtiofsShareMounts has nothing to do: there is no virtio-fs here.
// Runtimes call it after every removal all the same (kata-agent 1.2).
func (s *Server) RemoveStaleVirtiofsShareMounts(context.Context, *agent.RemoveStaleVirtiofsShareMountsRequest) (*emptypb.Empty, error) {
	return empty, nil
}
