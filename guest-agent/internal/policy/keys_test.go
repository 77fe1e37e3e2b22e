package policy

import (
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

const allowAll = "CreateContainerRequest := true\n"

func TestVolumeKeys(t *testing.T) {
	m := &agent.CreateContainerRequest{ContainerId: "app", Storages: []*agent.Storage{{MountPoint: "/a"}, {MountPoint: "/b"}}}
	for name, c := range map[string]struct {
		text string
		want map[string]VolumeKey
		fail bool
	}{
		"no rule":    {text: allowAll},
		"undefined":  {text: allowAll + "volume_keys := {} if input.container_id == \"other\"\n"},
		"a constant": {text: allowAll + `volume_keys := {"/a": {"key": "kbs:///a/b/c", "format": true}}`, want: map[string]VolumeKey{"/a": {"kbs:///a/b/c", true}}},
		"by storage": {text: allowAll + "volume_keys[s.mount_point] := {\"key\": s.mount_point} if some s in input.storages\n", want: map[string]VolumeKey{"/a": {"/a", false}, "/b": {"/b", false}}},
		"no object":  {text: allowAll + "volume_keys := true\n", fail: true},
		"a text":     {text: allowAll + `volume_keys := {"/a": "kbs:///a/b/c"}`, fail: true},
		"no key":     {text: allowAll + `volume_keys := {"/a": {"format": true}}`, fail: true},
		"a number":   {text: allowAll + `volume_keys := {"/a": {"key": 1}}`, fail: true},
		"a word":     {text: allowAll + `volume_keys := {"/a": {"key": "x", "fromat": true}}`, fail: true},
		"two keys":   {text: allowAll + "volume_keys[\"/a\"] := {\"key\": s.mount_point} if some s in input.storages\n", fail: true},
	} {
		keys, err := engine(t, c.text).VolumeKeys(t.Context(), m)
		if c.fail != (err != nil) || err != nil && fault.CodeOf(err) != fault.PolicyError || len(keys) != len(c.want) {
			t.Errorf("%s: %v, %v", name, keys, err)
		}
		for place, want := range c.want {
			if keys[place] != want {
				t.Errorf("%s: %+v", name, keys)
			}
		}
	}
}
