package kata

import (
	"context"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/policy"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/sandbox"
)

// owned is what the pod's owner says of a container's volumes, by the policy. The
// host's word about these does not count.
type owned struct {
	keys    map[string]sandbox.Key // of volumes, by the mount points of their storages
	devices map[string]sandbox.Key // of volumes that are devices, by their paths
	dirs    map[string]policy.EmptyDir
}

func (s *Server) owned(ctx context.Context, req *agent.CreateContainerRequest) (owned, error) {
	if s.policy == nil {
		return owned{}, nil
	}
	v, err := s.policy.Volumes(ctx, req)
	if err != nil {
		return owned{}, s.denied(ctx, "CreateContainerRequest", err)
	}
	return owned{sandboxKeys(v.Keys), sandboxKeys(v.Devices), v.EmptyDirs}, nil
}

func sandboxKeys(named map[string]policy.VolumeKey) map[string]sandbox.Key {
	keys := map[string]sandbox.Key{}
	for name, k := range named {
		keys[name] = sandbox.Key(k)
	}
	return keys
}

// place opens the disks that have keys. It returns the request with the emptyDir
// volumes that are the agent's own in place of what the host has named for them;
// without any it is the same request.
func (o owned) place(ctx context.Context, req *agent.CreateContainerRequest, v *sandbox.Volumes, devices plugged) (*agent.CreateContainerRequest, error) {
	if err := devices.open(ctx, v); err != nil || len(o.dirs) == 0 {
		return req, err
	}
	out := proto.CloneOf(req) // what the host sent is measured as it is
	for at, d := range o.dirs {
		i := slices.IndexFunc(out.GetOCI().GetMounts(), func(m *agent.Mount) bool { return m.GetDestination() == at })
		if i < 0 {
			return nil, invalidf("nothing is mounted at %.128q, where a volume of the pod's own should be", at)
		}
		source, err := v.EmptyDir(ctx, req.ContainerId, sandbox.EmptyDir(d))
		if err != nil {
			return nil, err
		}
		for _, m := range out.OCI.Mounts[i:] { // all that lie there
			if m.Destination == at {
				m.Source, m.Type, m.Options = source, "bind", append([]string{"rbind"}, m.Options...)
			}
		}
	}
	return out, nil
}
