package kata

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/device"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/sandbox"
)

var empty = &emptypb.Empty{}

// CreateSandbox makes what the pod's containers share, once.
func (s *Server) CreateSandbox(ctx context.Context, req *agent.CreateSandboxRequest) (*emptypb.Empty, error) {
	hooks, err := s.acceptHooks(req.GuestHookPath)
	if err != nil {
		return nil, err
	}
	if len(req.KernelModules) > 0 && s.policy == nil {
		return nil, unpermitted("a sandbox with kernel modules")
	}
	if s.policy == nil && !s.trust && slices.ContainsFunc(req.Storages, sandbox.Foreign) {
		return nil, unpermitted("a sandbox with disks or shares of the host's")
	}
	if err := s.beginSandbox(); err != nil {
		return nil, err
	}
	defer s.creations.Done()
	ctx, stop := untilDone(ctx, s.destroying)
	defer stop()
	err = s.machine.LoadModules(ctx, modules(req.KernelModules))
	if err == nil {
		err = s.sandbox.Setup(ctx, sandbox.Request{Hostname: req.Hostname, DNS: req.Dns, Storages: req.Storages})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		if s.state == creatingSandbox {
			s.state = absentSandbox
		}
		if cause := context.Cause(ctx); errors.Is(cause, errDestroyed) {
			return nil, cause
		}
		return nil, err
	}
	if s.state == creatingSandbox {
		s.state = liveSandbox
	}
	s.run = hooks
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
	err := errors.Join(s.endCreations(ctx), s.removeAll(ctx), s.sandbox.Close(ctx))
	s.log.Info("sandbox destroyed", slog.Any("err", err))
	return err
}

// creationPatience is how long creations may take to give up: what of it is left
// behind is less bad than a guest that does not end.
const creationPatience = 10 * time.Second

// endCreations waits until nothing is being created any more. That is short, for
// creations give up; one that does not is left behind.
func (s *Server) endCreations(ctx context.Context) error {
	ended := make(chan struct{})
	go func() { // ends with the last creation, whenever that is
		s.creations.Wait()
		close(ended)
	}()
	patience := time.NewTimer(s.patience)
	defer patience.Stop()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
	case <-patience.C:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for id, r := range s.containers {
		if r.ctr == nil {
			names = append(names, id)
		}
	}
	s.log.Error("creations go on although the sandbox is being destroyed: they are left behind", slog.Any("containers", names))
	return errors.New("what was being created did not give up")
}

// GetGuestDetails describes the guest and the agent.
func (s *Server) GetGuestDetails(_ context.Context, req *agent.GuestDetailsRequest) (*agent.GuestDetailsResponse, error) {
	resp := &agent.GuestDetailsResponse{AgentDetails: &agent.AgentDetails{
		Version:         s.version,
		InitDaemon:      os.Getpid() == 1,
		StorageHandlers: sandbox.Drivers(),
		DeviceHandlers:  append(device.Kinds(), device.Passed),
		SupportsSeccomp: s.seccomp(),
	}}
	if req.MemBlockSize {
		resp.MemBlockSizeBytes = s.machine.MemoryBlockSize()
	}
	if req.MemHotplugProbe {
		resp.SupportMemHotplugProbe = s.machine.HasProbe()
	}
	return resp, nil
}

// CopyFile takes a file from the host into the shared directory.
func (s *Server) CopyFile(_ context.Context, req *agent.CopyFileRequest) (*emptypb.Empty, error) {
	return empty, s.sandbox.CopyFile(req)
}

// RemoveStaleVirtiofsShareMounts has nothing to do: there is no virtio-fs here.
// Runtimes call it after every removal all the same (kata-agent 1.2).
func (s *Server) RemoveStaleVirtiofsShareMounts(context.Context, *agent.RemoveStaleVirtiofsShareMountsRequest) (*emptypb.Empty, error) {
	return empty, nil
}
