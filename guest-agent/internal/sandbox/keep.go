package sandbox

import (
	"slices"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

// ofPod says whether a storage is a volume of the pod's and not of the container
// that names it: an emptyDir in memory, in a directory, or on a disk that is marked
// so (kata-agent 2.10, 2.12).
func ofPod(st *agent.Storage) bool {
	return st.GetDriver() == driverEphemeral || st.GetDriver() == driverLocal || st.GetShared()
}

// Keep keeps the pod's volumes until the sandbox ends. Each container names them
// anew; but what an init container leaves there is for those that come after it has
// gone, and a container that is started again finds what it had (Kubernetes,
// Volumes, emptyDir). It is called when the container stands: one that failed leaves
// nothing.
func (v *Volumes) Keep() {
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	for _, e := range v.pods {
		if !slices.Contains(v.s.kept, e) {
			v.s.storages.hold(e)
			v.s.kept = append(v.s.kept, e)
		}
	}
}
