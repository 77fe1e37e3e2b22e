package policy

import (
	"encoding/json"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"google.golang.org/protobuf/proto"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/types"
)

func asJSON(t testing.TB, m proto.Message) string {
	t.Helper()
	d, err := Document(m)
	if err != nil {
		t.Fatal(err)
	}
	v, err := ast.JSON(d)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// The shapes that policies of the field rely on (kata-agent 3.5).
func TestDocument(t *testing.T) {
	tests := map[string]struct {
		m    proto.Message
		want string
	}{
		"unset message is null, empty list is []": {
			&agent.ExecProcessRequest{ContainerId: "a"},
			`{"container_id":"a","exec_id":"","process":null,"stderr_port":0,"stdin_port":0,"stdout_port":0,"string_user":null}`,
		},
		"type is type_, names as in the protocol": {
			&agent.Mount{Destination: "/x", Type: "bind", Options: []string{"ro"}},
			`{"destination":"/x","options":["ro"],"source":"","type_":"bind"}`,
		},
		"but Type is Type": {&agent.LinuxNamespace{Type: "ipc"}, `{"Path":"","Type":"ipc"}`},
		"64 bits are a number": {
			&agent.LinuxMemory{Limit: -1, Swappiness: 1<<64 - 1},
			`{"DisableOOMKiller":false,"Kernel":0,"KernelTCP":0,"Limit":-1,"Reservation":0,"Swap":0,"Swappiness":18446744073709551615}`,
		},
		"enumeration is a number": {
			&types.IPAddress{Family: types.IPFamily_v6, Address: "::1"},
			`{"address":"::1","family":1,"mask":""}`,
		},
		"bytes are numbers": {
			&agent.WriteStreamRequest{ContainerId: "a", Data: []byte{0, 255}},
			`{"container_id":"a","data":[0,255],"exec_id":""}`,
		},
		"maps": {
			&agent.Linux{Sysctl: map[string]string{"b": "2", "a": "1"}},
			`{"CgroupsPath":"","Devices":[],"GIDMappings":[],"IntelRdt":null,"MaskedPaths":[],"MountLabel":"","Namespaces":[],"ReadonlyPaths":[],"Resources":null,"RootfsPropagation":"","Seccomp":null,"Sysctl":{"a":"1","b":"2"},"UIDMappings":[]}`,
		},
		"optional scalar": {&agent.LinuxSyscall{Action: "x"}, `{"Action":"x","Args":[],"Names":[],"errnoret":null}`},
		"copied link": {
			&agent.CopyFileRequest{Path: "/run/x", FileMode: 0o120777, DirMode: 0o750, Data: []byte("..data/key"), Uid: 1},
			`{"dir_mode":488,"file_mode":41471,"file_size":0,"file_type":"Symlink","gid":0,"offset":0,"path":"/run/x","symlink_target":"..data/key","uid":1}`,
		},
		"copied file has no data": {
			&agent.CopyFileRequest{Path: "/run/x", FileMode: 0o100644, FileSize: 3, Data: []byte("abc"), Offset: 7},
			`{"dir_mode":0,"file_mode":33188,"file_size":3,"file_type":"Regular","gid":0,"offset":7,"path":"/run/x","symlink_target":"","uid":0}`,
		},
		"copied fifo": {
			&agent.CopyFileRequest{FileMode: 0o010644},
			`{"dir_mode":0,"file_mode":4516,"file_size":0,"file_type":"Unknown","gid":0,"offset":0,"path":"","symlink_target":"","uid":0}`,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := asJSON(t, tt.m); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// FuzzJudge takes any bytes for any request: a judgement, and never a panic.
func FuzzJudge(f *testing.F) {
	e, err := New(f.Context(), `package agent_policy
		CreateContainerRequest := {"allowed": true, "ops": [{"op": "add", "path": concat("/", ["", "pstate", input.container_id]), "value": input.OCI}]} if {
			every m in input.OCI.Mounts { regex.match("^[a-z/]+$", m.destination) }
		}
		CopyFileRequest if { startswith(input.path, "/run"); not contains(input.symlink_target, "..") }
		WriteStreamRequest if count(input.data) < 100
		SetPolicyRequest if input.policy == ""`, Config{})
	if err != nil {
		f.Fatal(err)
	}
	messages := []proto.Message{
		&agent.CreateContainerRequest{ContainerId: "a", OCI: &agent.Spec{Process: &agent.Process{Args: []string{"sh"}}, Mounts: []*agent.Mount{{Destination: "/x"}}}},
		&agent.CopyFileRequest{Path: "/run/x", FileMode: 0o120777, Data: []byte("\xff")},
		&agent.WriteStreamRequest{Data: []byte("x")},
		&agent.SetPolicyRequest{},
		&agent.UpdateContainerRequest{Resources: &agent.LinuxResources{}},
	}
	for i, m := range messages {
		raw, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), raw)
	}
	f.Fuzz(func(t *testing.T, which uint8, raw []byte) {
		m := messages[int(which)%len(messages)].ProtoReflect().New().Interface()
		if proto.Unmarshal(raw, m) != nil {
			return
		}
		if done, err := e.Judge(t.Context(), m); err == nil {
			done(false)
		} else if code(err) == "" {
			t.Fatalf("%v is no fault", err)
		}
	})
}

func BenchmarkDocument(b *testing.B) {
	m := &agent.ReadStreamRequest{ContainerId: "a", ExecId: "b", Len: 32768}
	for b.Loop() {
		if _, err := Document(m); err != nil {
			b.Fatal(err)
		}
	}
}
