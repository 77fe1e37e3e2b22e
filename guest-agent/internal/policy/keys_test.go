package policy

import (
	"maps"
	"strings"
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
		volumes, err := engine(t, c.text).Volumes(t.Context(), m)
		keys := volumes.Keys
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

// A request goes by the policy that has allowed it to its end, whatever comes into
// force meanwhile: its volumes have the keys that were meant, and its image must be
// one of either.
func TestPolicyReplacedMeanwhile(t *testing.T) {
	first, second := "sha256:"+strings.Repeat("a", 64), "sha256:"+strings.Repeat("b", 64)
	m := &agent.CreateContainerRequest{ContainerId: "app"}
	for name, rule := range map[string]string{
		"a constant": allowAll,
		"a rule":     "CreateContainerRequest if input.container_id == \"app\"\n",
		"with notes": "CreateContainerRequest := {\"allowed\": true, \"ops\": [{\"op\": \"add\", \"path\": \"/pstate/app\", \"value\": 1}]} if input.container_id == \"app\"\n",
	} {
		e := engine(t, rule+`volume_keys := {"/a": {"key": "kbs:///a/b/c"}}
image_digests := ["`+first+`", "`+second+`"]`)
		ctx := Hearing(t.Context())
		if _, err := e.Judge(ctx, m); err != nil {
			t.Fatal(err)
		}
		if err := e.Replace(t.Context(), "package agent_policy\n"+allowAll+`image_digests := ["`+second+`", "sha256:`+strings.Repeat("c", 64)+`"]`); err != nil {
			t.Fatal(err)
		}
		if v, err := e.Volumes(ctx, m); err != nil || v.Keys["/a"].Location == "" {
			t.Errorf("%s: %v, %v", name, v, err)
		}
		if v, err := e.Volumes(Hearing(t.Context()), m); err != nil || len(v.Keys) > 0 {
			t.Errorf("%s, another request: %v, %v", name, v, err)
		}
		for digest, want := range map[string]bool{first: false, second: true, "sha256:" + strings.Repeat("c", 64): false} {
			if err := e.CheckImage(ctx, "reg/app:1", digest); (err == nil) != want {
				t.Errorf("%s: image %s: %v", name, digest, err)
			}
		}
	}
}

// Keys of devices have the same form; what the policy says of emptyDir volumes has
// another.
func TestVolumes(t *testing.T) {
	m := &agent.CreateContainerRequest{ContainerId: "app", Devices: []*agent.Device{{ContainerPath: "/dev/raw"}}}
	const dir = allowAll + `empty_dirs["/a"] := `
	for name, c := range map[string]struct {
		text string
		want Volumes
		fail bool
	}{
		"nothing": {text: allowAll},
		"a device": {text: allowAll + "device_keys[d.container_path] := {\"key\": \"kbs:///a/b/c\"} if some d in input.devices\n",
			want: Volumes{Devices: map[string]VolumeKey{"/dev/raw": {"kbs:///a/b/c", false}}}},
		"a directory": {text: dir + `{"volume": "v", "kind": "disk", "path": "x/y", "group": 7}`,
			want: Volumes{EmptyDirs: map[string]EmptyDir{"/a": {"v", "x/y", false, 7}}}},
		"memory":             {text: dir + `{"volume": "v", "kind": "memory"}`, want: Volumes{EmptyDirs: map[string]EmptyDir{"/a": {"v", "", true, -1}}}},
		"a device's number":  {text: allowAll + `device_keys := {"/dev/raw": 1}`, fail: true},
		"no kind":            {text: dir + `{"volume": "v"}`, fail: true},
		"another kind":       {text: dir + `{"volume": "v", "kind": "tape"}`, fail: true},
		"no volume":          {text: dir + `{"kind": "disk"}`, fail: true},
		"a word":             {text: dir + `{"volume": "v", "kind": "disk", "pth": "x"}`, fail: true},
		"a group's name":     {text: dir + `{"volume": "v", "kind": "disk", "group": "root"}`, fail: true},
		"half a group":       {text: dir + `{"volume": "v", "kind": "disk", "group": 1.5}`, fail: true},
		"a group of nobody":  {text: dir + `{"volume": "v", "kind": "disk", "group": 4294967296}`, fail: true},
		"less than no group": {text: dir + `{"volume": "v", "kind": "disk", "group": -1}`, fail: true},
		"a text":             {text: dir + `"v"`, fail: true},
	} {
		got, err := engine(t, c.text).Volumes(t.Context(), m)
		if c.fail != (err != nil) || err != nil && fault.CodeOf(err) != fault.PolicyError || !maps.Equal(got.Devices, c.want.Devices) || !maps.Equal(got.EmptyDirs, c.want.EmptyDirs) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}
