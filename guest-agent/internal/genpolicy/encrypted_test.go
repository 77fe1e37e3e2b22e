package genpolicy

import (
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

// onDisk is the application's container with its emptyDir on a disk of the host's
// that the agent encrypts, the default of the field's confidential runtimes.
func onDisk(change func(*agent.CreateContainerRequest, *agent.Storage)) *agent.CreateContainerRequest {
	const volume = "/run/kata-containers/sandbox/storage/MDIvMDA="
	r := appRequest()
	for i, s := range r.Storages {
		if s.Driver == "local" {
			r.Storages[i] = &agent.Storage{
				Driver: "blk", Source: "02/00", Fstype: "ext4", MountPoint: volume, Shared: true,
				DriverOptions: []string{"encryption_key=ephemeral", "create_filesystem"},
			}
			s = r.Storages[i]
			for _, m := range r.OCI.Mounts {
				if m.Type == "local" {
					m.Type, m.Source = "bind", volume
				}
			}
			change(r, s)
		}
	}
	return r
}

func TestEncryptedEmptyDir(t *testing.T) {
	text := generate(t, podYAML, Options{})
	if err := judge(t, engine(t, text), onDisk(func(*agent.CreateContainerRequest, *agent.Storage) {})); err != nil {
		t.Errorf("not allowed: %s", why(err))
	}
	for name, change := range map[string]func(*agent.CreateContainerRequest, *agent.Storage){
		"in the clear":           func(_ *agent.CreateContainerRequest, s *agent.Storage) { s.DriverOptions = s.DriverOptions[1:] },
		"by a key of the host's": func(_ *agent.CreateContainerRequest, s *agent.Storage) { s.DriverOptions[0] = "encryption_key=mine" },
		"a share":                func(_ *agent.CreateContainerRequest, s *agent.Storage) { s.Driver = "virtio-fs" },
		"a layer": func(_ *agent.CreateContainerRequest, s *agent.Storage) {
			s.Options = []string{"X-kata.multi-layer=true"}
		},
		"elsewhere": func(_ *agent.CreateContainerRequest, s *agent.Storage) { s.MountPoint = shared + "x" },
		"not what is mounted": func(_ *agent.CreateContainerRequest, s *agent.Storage) {
			s.MountPoint = "/run/kata-containers/sandbox/storage/other"
		},
		"in another place": func(r *agent.CreateContainerRequest, s *agent.Storage) {
			for _, m := range r.OCI.Mounts {
				if m.Source == s.MountPoint {
					m.Destination = "/bin"
				}
			}
		},
		"beside it another": func(r *agent.CreateContainerRequest, s *agent.Storage) {
			r.Storages = append(r.Storages, &agent.Storage{Driver: "blk", Source: "03", Fstype: "ext4", MountPoint: s.MountPoint + "x"})
		},
	} {
		if err := judge(t, engine(t, text), onDisk(change)); err == nil {
			t.Errorf("%s: allowed", name)
		}
	}
}
