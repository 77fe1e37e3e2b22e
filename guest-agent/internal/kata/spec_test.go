package kata

import (
	"encoding/json"
	"fmt"
	"path"
	"reflect"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

// filler puts a value of its own into every field of a message.
type filler struct {
	next   int
	values map[string]string // field and what must be found of it
}

func (f *filler) fill(m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		d := fields.Get(i)
		switch {
		case d.IsMap():
			v := f.scalar(d.MapValue(), string(d.FullName()))
			f.next++
			m.Mutable(d).Map().Set(protoreflect.ValueOfString(fmt.Sprintf("k%d", f.next)).MapKey(), v)
		case d.IsList() && d.Message() != nil:
			f.fill(m.Mutable(d).List().AppendMutable().Message())
		case d.IsList():
			m.Mutable(d).List().Append(f.scalar(d, string(d.FullName())))
		case d.Message() != nil:
			f.fill(m.Mutable(d).Message())
		default:
			m.Set(d, f.scalar(d, string(d.FullName())))
		}
	}
}

func (f *filler) scalar(d protoreflect.FieldDescriptor, name string) protoreflect.Value {
	f.next++
	n := 20_000 + f.next // fits 16 bits
	f.values[name] = fmt.Sprint(n)
	switch d.Kind() {
	case protoreflect.StringKind:
		f.values[name] = fmt.Sprintf("s%d", n)
		return protoreflect.ValueOfString(f.values[name])
	case protoreflect.BoolKind:
		f.values[name] = `"` + lowerFirst(string(d.Name())) + `":true`
		return protoreflect.ValueOfBool(true)
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(n))
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(uint64(n))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(int64(n))
	}
	panic("kind " + d.Kind().String())
}

func lowerFirst(s string) string { return strings.ToLower(s[:1]) + s[1:] }

// Every field of the protocol's specification arrives in the runtime's.
func TestSpecIsComplete(t *testing.T) {
	in := &agent.Spec{}
	f := &filler{values: map[string]string{}}
	f.fill(in.ProtoReflect())
	in.Hooks, in.Solaris, in.Windows, in.Linux.Namespaces = nil, nil, nil, nil
	in.Mounts[0].Type, f.values["grpc.Mount.type"] = "bind", `"type":"bind"`
	out, err := runtimeSpec(in, place{root: "/r", ipc: "/ipc", uts: "/uts", source: func(s string) (string, error) { return s, nil }})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(out)
	if err != nil {
		t.Fatal(err)
	}
	decided := map[string]bool{"grpc.Spec.Version": true, "grpc.Root.Path": true} // by the agent
	for _, prefix := range []string{"grpc.Hook.", "grpc.Solaris.", "grpc.Windows.", "grpc.LinuxNamespace."} {
		for name := range f.values {
			if strings.HasPrefix(name, prefix) {
				decided[name] = true // refused or decided by the agent
			}
		}
	}
	for name, value := range f.values {
		if !decided[name] && !strings.Contains(string(raw), value) {
			t.Errorf("%s: %s is lost", name, value)
		}
	}
	if t.Failed() {
		t.Logf("%s", raw)
	}
	if len(f.values) < 100 {
		t.Errorf("only %d fields were tried", len(f.values))
	}
}

func TestNamespaces(t *testing.T) {
	p := place{ipc: "/ipc", uts: "/uts", pid: "/pid"}
	base := []specs.LinuxNamespace{{Type: "mount"}, {Type: "ipc", Path: "/ipc"}, {Type: "uts", Path: "/uts"}, {Type: "pid", Path: "/pid"}}
	tests := []struct {
		name string
		in   []*agent.LinuxNamespace
		want []specs.LinuxNamespace // beyond base; nil with fails
		ok   bool
	}{
		{"none", nil, nil, true},
		{"paths of the host are overridden", []*agent.LinuxNamespace{{Type: "ipc", Path: "/proc/1/ns/ipc"}, {Type: "pid", Path: "/proc/1/ns/pid"}, {Type: "mount", Path: "/proc/1/ns/mnt"}}, nil, true},
		{"a network by path", []*agent.LinuxNamespace{{Type: "network", Path: "/run/netns/podns"}}, []specs.LinuxNamespace{{Type: "network", Path: "/run/netns/podns"}}, true},
		{"a user namespace", []*agent.LinuxNamespace{{Type: "user"}}, []specs.LinuxNamespace{{Type: "user"}}, true},
		{"a user namespace by path", []*agent.LinuxNamespace{{Type: "user", Path: "/x"}}, nil, false},
		{"twice", []*agent.LinuxNamespace{{Type: "network"}, {Type: "network"}}, nil, false},
		{"unknown", []*agent.LinuxNamespace{{Type: "time"}}, nil, false},
	}
	for _, tt := range tests {
		got, err := namespaces(tt.in, p)
		if (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
		if want := append(append([]specs.LinuxNamespace{}, base...), tt.want...); tt.ok && !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, want %v", tt.name, got, want)
		}
	}
}

func TestDevicesAreDeniedFirst(t *testing.T) {
	in := &agent.Linux{
		Devices:   []*agent.LinuxDevice{{Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229}},
		Resources: &agent.LinuxResources{Devices: []*agent.LinuxDeviceCgroup{{Access: "rwm"}, {Allow: true, Type: "c", Major: 1, Minor: -1, Access: "r"}}},
	}
	out, err := linux(in, place{})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(out.Resources.Devices)
	if err != nil {
		t.Fatal(err)
	}
	const want = `[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":10,"minor":229,"access":"rwm"},{"allow":true,"type":"c","major":1,"access":"r"}]`
	if string(raw) != want {
		t.Errorf("%s, want %s", raw, want)
	}
}

func TestCgroupsPath(t *testing.T) {
	for in, want := range map[string]string{
		"":                                       "",
		"/kubepods/pod1/c":                       "/kubepods/pod1/c",
		"kubepods-pod1.slice:cri-containerd:abc": "/kubepods-pod1.slice/cri-containerd-abc",
		"../../x":                                "/x",
		"a/../..":                                "/",
	} {
		if got := cgroupsPath(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func FuzzCgroupsPath(f *testing.F) {
	f.Add("slice:prefix:name")
	f.Add("/../..")
	f.Add("a:..:b/../../..")
	f.Fuzz(func(t *testing.T, s string) {
		got := cgroupsPath(s)
		if s != "" && (got != path.Clean(got) || !path.IsAbs(got)) {
			t.Fatalf("%q becomes %q", s, got)
		}
	})
}
