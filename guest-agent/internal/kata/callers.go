package kata

import "github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/caller"

// containerName is the annotation with a container's name in its pod, as
// containerd's runtimes set it (kata-agent 2.3). It is the host's word, which a
// policy ties to what runs.
const containerName = "io.kubernetes.cri.container-name"

// Containers lists the containers that run, for those who want to know which one
// a process is in.
func (s *Server) Containers() []caller.Container {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []caller.Container
	for id, r := range s.containers {
		if r.ctr != nil && !r.removing && !r.ctr.Exited() {
			all = append(all, caller.Container{ID: id, Name: r.name, PID: r.ctr.PID()})
		}
	}
	return all
}
