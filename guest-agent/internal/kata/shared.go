package kata

import (
	"context"
	"path"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/sandbox"
)

// maxShared bounds the mounts that one container takes from others.
const maxShared = 64

// borrow gives a container what it shares with others (kata-agent 1.2,
// shared_mounts): what they see at a path, at the time it is made. Devices and
// privileged programs stay with whom they belong to.
func (s *Server) borrow(ctx context.Context, req *agent.CreateContainerRequest, v *sandbox.Volumes, spec *specs.Spec) error {
	if len(req.SharedMounts) > maxShared {
		return invalidf("%d mounts are shared between containers, at most %d are possible", len(req.SharedMounts), maxShared)
	}
	own := req.GetOCI().GetAnnotations()[containerName]
	for _, m := range req.SharedMounts {
		if m.DstCtr == "" || m.DstCtr != req.ContainerId && m.DstCtr != own {
			return invalidf("the mount %.64q is shared with another container than this one", m.Name)
		}
		if !path.IsAbs(m.DstPath) || path.Clean(m.DstPath) != m.DstPath || m.DstPath == "/" {
			return invalidf("the destination %.64q of a shared mount is not absolute and clean", m.DstPath)
		}
		from, err := s.lender(m.SrcCtr)
		if err != nil {
			return err
		}
		at, err := v.Borrow(ctx, req.ContainerId, from.ctr, m.SrcPath)
		if err != nil {
			return err
		}
		spec.Mounts = append(spec.Mounts, specs.Mount{
			Destination: m.DstPath, Type: "bind", Source: at, Options: []string{"rbind", "rprivate", "nosuid", "nodev"},
		})
	}
	return nil
}

// lender finds a container by its name in the pod, or its id.
func (s *Server) lender(name string) (*record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []*record
	for id, r := range s.containers {
		if name != "" && (id == name || r.name == name) && r.ctr != nil && !r.removing && !r.ctr.Exited() {
			found = append(found, r)
		}
	}
	if len(found) != 1 {
		return nil, invalidf("there are %d containers called %.64q to share a mount with", len(found), name)
	}
	return found[0], nil
}
