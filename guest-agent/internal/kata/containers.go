package kata

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/container"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/oom"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/sandbox"
)

// record is one container of the sandbox. It is entered when its creation
// begins and can be used when ctr is set.
type record struct {
	name     string // in the pod; the host's word
	execID   string // what the runtime calls the first process, beside ""
	ctr      *container.Container
	volumes  *sandbox.Volumes
	memory   *oom.Watch // nil where the kernel does not tell
	message  *os.File   // the container's last words; nil if there are none
	removing bool
	leases   []func() // each gives one back
}

// CreateContainer makes a container and parks its first process until
// StartContainer. If a step fails, the ones before it are undone.
func (s *Server) CreateContainer(ctx context.Context, req *agent.CreateContainerRequest) (*emptypb.Empty, error) {
	if err := checkCreate(req); err != nil {
		return nil, err
	}
	if err := s.reserve(req); err != nil {
		return nil, err
	}
	defer s.creations.Done()
	ctx, stop := untilDone(ctx, s.destroying)
	defer stop()
	made, err := s.create(ctx, req)
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, errDestroyed) {
		return nil, cause
	}
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	reserved := s.containers[req.ContainerId]
	made.name, made.execID = reserved.name, reserved.execID
	s.containers[req.ContainerId] = made
	s.log.Info("container created", slog.String("container", req.ContainerId))
	return empty, nil
}

// checkCreate refuses what would otherwise be silently left out.
func checkCreate(req *agent.CreateContainerRequest) error {
	switch {
	case sandbox.CheckID(req.ContainerId) != nil:
		return sandbox.ErrBadID
	case len(req.ExecId) > maxExecID:
		return invalidf("the exec id is too long")
	}
	return checkProcess(req.StringUser, req.StdinPort, req.StdoutPort, req.StderrPort)
}

func checkProcess(user *agent.StringUser, ports ...uint32) error {
	if user.GetUid() != "" || user.GetGid() != "" || len(user.GetAdditionalGids()) > 0 {
		return invalidf("users by name are not supported")
	}
	for _, p := range ports {
		if p != 0 {
			return invalidf("standard streams over ports are not supported")
		}
	}
	return nil
}

func (s *Server) reserve(req *agent.CreateContainerRequest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != liveSandbox {
		return refusef(codes.FailedPrecondition, "there is no sandbox")
	}
	if s.containers[req.ContainerId] != nil {
		return refusef(codes.AlreadyExists, "container %q exists already", req.ContainerId)
	}
	s.containers[req.ContainerId] = &record{name: req.GetOCI().GetAnnotations()[containerName], execID: req.ExecId}
	s.creations.Add(1)
	return nil
}

// create makes what was reserved. If it cannot, also because it panics, nothing of
// it stays, and the id is free.
func (s *Server) create(ctx context.Context, req *agent.CreateContainerRequest) (_ *record, err error) {
	id := req.ContainerId
	r, restore, whole := &record{}, func() error { return nil }, false
	defer func() {
		if !whole {
			err = errors.Join(err, restore(), s.abandon(context.WithoutCancel(ctx), id, r))
		}
	}()
	bundle, err := s.sandbox.NewBundle(id)
	if err != nil {
		return nil, err
	}
	owned, err := s.owned(ctx, req)
	if err != nil {
		return nil, err
	}
	devices, err := s.plugged(ctx, req.Devices, owned.devices)
	if err != nil {
		return nil, err
	}
	if r.volumes, err = s.sandbox.PrepareWith(ctx, id, req.Storages, owned.keys); err != nil {
		return nil, err
	}
	placed, err := owned.place(ctx, req, r.volumes, devices)
	if err != nil {
		return nil, err
	}
	spec, sealedEnv, err := s.prepared(ctx, placed, r.volumes, devices)
	if err != nil {
		return nil, err
	}
	if err = s.measure(ctx, req, r.volumes.Image); err != nil {
		return nil, err
	}
	undo, err := s.parameters.set(takeNetworkParameters(spec))
	if err != nil {
		return nil, err
	}
	restore = undo
	r.message = s.openMessage(req.GetOCI())
	if r.ctr, err = s.runtime.Create(ctx, id, bundle, spec); err != nil {
		return nil, err
	}
	// The sandbox's first container holds the pid namespace that later ones may
	// ask to share.
	if err = s.sandbox.SharePID(r.ctr); err != nil {
		return nil, err
	}
	r.memory = s.watchMemory(id, r.ctr.PID())
	r.leases = s.hold(id, sealedEnv, placed.GetOCI().GetMounts())
	r.volumes.Keep()
	whole = true
	return r, nil
}

// abandon undoes what there is of a container that could not be made, and gives
// its id back.
func (s *Server) abandon(ctx context.Context, id string, r *record) error {
	var failed []error
	if r.ctr != nil {
		failed = append(failed, r.ctr.Delete(ctx))
	}
	r.close()
	if r.volumes != nil {
		failed = append(failed, r.volumes.Release(ctx))
	}
	failed = append(failed, s.sandbox.RemoveBundle(id))
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.containers, id)
	return errors.Join(failed...)
}

// prepared makes what the container has beside its storages: files and variables
// that were sealed, and what it shares with others. It returns the variables as
// they were, too.
func (s *Server) prepared(ctx context.Context, req *agent.CreateContainerRequest, v *sandbox.Volumes, devices plugged) (*specs.Spec, []string, error) {
	if err := s.unsealMounts(ctx, req.GetOCI().GetMounts()); err != nil {
		return nil, nil, err
	}
	spec, err := s.spec(req, v, devices)
	if err != nil {
		return nil, nil, err
	}
	if err := s.borrow(ctx, req, v, spec); err != nil {
		return nil, nil, err
	}
	sealed := spec.Process.Env
	spec.Process.Env, err = s.unsealEnv(ctx, sealed)
	return spec, sealed, err
}

// close gives up what the agent keeps open for a container.
func (r *record) close() {
	for _, release := range r.leases {
		release()
	}
	if r.memory != nil {
		_ = r.memory.Close()
	}
	if r.message != nil {
		_ = r.message.Close()
	}
}

// spec says where the container lives. After a guest pull its root is the
// image's, whatever the host wrote.
func (s *Server) spec(req *agent.CreateContainerRequest, v *sandbox.Volumes, devices plugged) (*specs.Spec, error) {
	s.mu.Lock()
	share, hostname, hooks := s.sharePID || req.SandboxPidns, s.hostname, s.run
	s.mu.Unlock()
	p := place{
		root: v.Rootfs, hostname: hostname, hooks: hooks, source: v.MountSource,
		ipc: s.sandbox.IPCNamespace(), uts: s.sandbox.UTSNamespace(),
	}
	if share {
		p.pid = s.sandbox.PIDNamespace()
	}
	if v.Pause {
		p.process = sandbox.PauseProcess()
	}
	if p.root == "" {
		var err error
		if p.root, err = s.sandbox.Rootfs(req.GetOCI().GetRoot().GetPath()); err != nil {
			return nil, err
		}
	}
	if err := confine(req.OCI); err != nil {
		return nil, err
	}
	sent := proto.CloneOf(req.OCI) // what the host sent is measured as it is
	if err := errors.Join(renumber(sent.GetLinux(), devices.disks), devices.readdress(sent.GetProcess())); err != nil {
		return nil, err
	}
	withoutStore(sent.GetLinux(), devices.disks)
	spec, err := runtimeSpec(sent, p)
	if err != nil {
		return nil, err
	}
	return spec, tame(spec.Mounts)
}

// container finds a container that can be used.
func (s *Server) container(id string) (*record, error) {
	if err := sandbox.CheckID(id); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.containers[id]; r != nil && r.ctr != nil {
		return r, nil
	}
	return nil, errUnknown(id)
}

// StartContainer lets the first process execute its program.
func (s *Server) StartContainer(ctx context.Context, req *agent.StartContainerRequest) (*emptypb.Empty, error) {
	r, err := s.container(req.ContainerId)
	if err != nil {
		return nil, err
	}
	return empty, r.ctr.Start(ctx)
}

// RemoveContainer kills what is left of a container and undoes its storages.
// After a timeout it may be asked for again.
func (s *Server) RemoveContainer(ctx context.Context, req *agent.RemoveContainerRequest) (*emptypb.Empty, error) {
	if _, err := s.container(req.ContainerId); err != nil {
		return nil, err
	}
	if req.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(req.Timeout)*time.Second)
		defer cancel()
	}
	return empty, s.remove(ctx, req.ContainerId)
}

func (s *Server) remove(ctx context.Context, id string) error {
	s.mu.Lock()
	r := s.containers[id]
	if r == nil || r.ctr == nil {
		s.mu.Unlock()
		return errUnknown(id)
	}
	if r.removing {
		s.mu.Unlock()
		return refusef(codes.FailedPrecondition, "container %q is being removed", id)
	}
	r.removing = true
	s.mu.Unlock()

	err := r.ctr.Delete(ctx)
	if err == nil {
		err = r.volumes.Release(ctx)
	}
	if err == nil {
		err = s.sandbox.RemoveBundle(id)
	}
	if err == nil {
		r.close()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r.removing = false
	if err != nil {
		return fmt.Errorf("remove container %q: %w", id, err)
	}
	delete(s.containers, id)
	s.log.Info("container removed", slog.String("container", id))
	return nil
}

// removeAll removes every container, all at the same time. No more are being
// created, but for those that did not give up.
func (s *Server) removeAll(ctx context.Context) error {
	s.mu.Lock()
	var ids []string
	for id, r := range s.containers {
		if r.ctr != nil { // or it was left behind while being created
			ids = append(ids, id)
		}
	}
	s.mu.Unlock()
	errs := make([]error, len(ids))
	var wg sync.WaitGroup
	for i, id := range ids {
		wg.Go(func() { errs[i] = s.remove(ctx, id) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// PauseContainer freezes a container.
func (s *Server) PauseContainer(ctx context.Context, req *agent.PauseContainerRequest) (*emptypb.Empty, error) {
	r, err := s.container(req.ContainerId)
	if err != nil {
		return nil, err
	}
	return empty, r.ctr.Pause(ctx)
}

// ResumeContainer thaws it.
func (s *Server) ResumeContainer(ctx context.Context, req *agent.ResumeContainerRequest) (*emptypb.Empty, error) {
	r, err := s.container(req.ContainerId)
	if err != nil {
		return nil, err
	}
	return empty, r.ctr.Resume(ctx)
}

// UpdateContainer changes limits.
func (s *Server) UpdateContainer(ctx context.Context, req *agent.UpdateContainerRequest) (*emptypb.Empty, error) {
	r, err := s.container(req.ContainerId)
	if err != nil {
		return nil, err
	}
	if req.Resources == nil {
		return nil, invalidf("no limits given")
	}
	return empty, r.ctr.Update(ctx, resources(req.Resources))
}

// StatsContainer tells what a container uses.
func (s *Server) StatsContainer(ctx context.Context, req *agent.StatsContainerRequest) (*agent.StatsContainerResponse, error) {
	r, err := s.container(req.ContainerId)
	if err != nil {
		return nil, err
	}
	stats, err := r.ctr.Stats(ctx)
	if err != nil {
		return nil, err
	}
	return statsResponse(stats), nil
}
