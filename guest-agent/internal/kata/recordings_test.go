package kata

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

// call is one line of a recording of an unmodified Kata runtime.
type call struct {
	TMS    int64 `json:"t_ms"`
	DurMS  int64 `json:"dur_ms"`
	Side   string
	Method string
	Req    json.RawMessage
	Resp   json.RawMessage
	Err    string
}

// recordings returns the agent's side of every recording, in order of time.
// They lie beside the checkout and are not part of the repository.
func recordings(t *testing.T) map[string][]call {
	t.Helper()
	dir := os.Getenv("VOUCHSAFE_RECORDINGS")
	if dir == "" {
		dir = "../../../../shared/recordings"
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Skip("no recordings here; VOUCHSAFE_RECORDINGS names their directory")
	}
	all := map[string][]call{}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(bytes.NewReader(raw))
		lines.Buffer(nil, 16<<20)
		var calls []call
		for lines.Scan() {
			var c call
			if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			if c.Side == "agent" {
				calls = append(calls, c)
			}
		}
		slices.SortStableFunc(calls, func(a, b call) int { return cmp.Compare(a.TMS, b.TMS) })
		all[filepath.Base(file)] = calls
	}
	return all
}

func decode(t *testing.T, name protoreflect.FullName, raw json.RawMessage) proto.Message {
	t.Helper()
	kind, err := protoregistry.GlobalTypes.FindMessageByName(name)
	if err != nil {
		t.Fatal(err)
	}
	m := kind.New().Interface()
	if len(raw) == 0 || string(raw) == "null" {
		return m
	}
	if err := protojson.Unmarshal(raw, m); err != nil { // rejects unknown fields
		t.Fatalf("%s: %v\n%s", name, err, raw)
	}
	return m
}

func descriptor(t *testing.T, method string) protoreflect.MethodDescriptor {
	t.Helper()
	name := protoreflect.FullName(strings.ReplaceAll(strings.Trim(method, "/"), "/", "."))
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
	if err != nil {
		t.Fatalf("%s: %v", method, err)
	}
	return d.(protoreflect.MethodDescriptor)
}

// Every recorded message fits our definitions, with no field left over.
func TestRecordingsDecode(t *testing.T) {
	for file, calls := range recordings(t) {
		for _, c := range calls {
			d := descriptor(t, c.Method)
			decode(t, d.Input().FullName(), c.Req)
			if c.Err == "" {
				decode(t, d.Output().FullName(), c.Resp)
			}
		}
		t.Logf("%s: %d calls", file, len(calls))
	}
}

// Every recording is played to an agent, as the runtime called its stub. What
// the stub answered is not compared: it ran no containers.
func TestRecordingsReplay(t *testing.T) {
	for file, calls := range recordings(t) {
		var sandbox []call // a recording may hold several, one after the other
		n := 0
		for _, c := range calls {
			if path.Base(c.Method) == "Check" && len(sandbox) > 1 && path.Base(sandbox[len(sandbox)-1].Method) == "DestroySandbox" {
				n++
				t.Run(fmt.Sprintf("%s/%d", file, n), func(t *testing.T) { replay(t, sandbox) })
				sandbox = nil
			}
			sandbox = append(sandbox, c)
		}
		t.Run(fmt.Sprintf("%s/%d", file, n+1), func(t *testing.T) { replay(t, sandbox) })
	}
}

func replay(t *testing.T, calls []call, options ...podOption) {
	reg := &images{t: t}
	p := newPod(t, append([]podOption{withPause(t), func(c *Config) { c.Images = reg }}, options...)...)
	var parked sync.WaitGroup
	defer parked.Wait()
	for _, c := range calls {
		d := descriptor(t, c.Method)
		req := decode(t, d.Input().FullName(), c.Req)
		if create, ok := req.(*agent.CreateContainerRequest); ok {
			p.prepareRoot(create)
		}
		resp := decode(t, d.Output().FullName(), nil)
		run := func() {
			err := p.raw.Call(context.Background(), string(d.Parent().FullName()), string(d.Name()), req, resp)
			if !expected(d.Name(), err) {
				t.Errorf("%s %v: %v", d.Name(), req, err)
			}
		}
		// What took its time waited for something that a later call brings about.
		if waits := map[protoreflect.Name]bool{"GetOOMEvent": true, "WaitProcess": true, "ReadStdout": true, "ReadStderr": true}; waits[d.Name()] && c.DurMS > 0 || d.Name() == "GetOOMEvent" {
			parked.Go(run)
			continue
		}
		if d.Name() == "ReadStdout" && c.DurMS == 0 && !bytes.Contains(c.Resp, []byte("exec")) {
			parked.Go(run) // the stub said hello; real programs may have nothing to say
			continue
		}
		run()
	}
}

// prepareRoot is the host's part for containers that are not pulled: a root that
// holds what they run.
func (p *pod) prepareRoot(create *agent.CreateContainerRequest) {
	p.t.Helper()
	if proc := create.OCI.Process; proc.OOMScoreAdj < 0 && !mayLowerOOMScore(p.t) {
		proc.OOMScoreAdj = 0 // the machine, not the agent, would refuse it
	}
	if slices.ContainsFunc(create.Storages, func(s *agent.Storage) bool { return s.Driver == "image_guest_pull" }) {
		return
	}
	root := p.prepareRootfs(create.ContainerId)
	if create.OCI.Process.Args[0] != "/pause" {
		return
	}
	pause, err := pauseBinary()
	if err != nil {
		p.t.Fatal(err)
	}
	raw, err := os.ReadFile(pause)
	if err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.server.sandbox.Translate(root), "pause"), raw, 0o755); err != nil {
		p.t.Fatal(err)
	}
}

// mayLowerOOMScore tells whether this process has CAP_SYS_RESOURCE; some build
// machines take it from root.
func mayLowerOOMScore(t *testing.T) bool {
	t.Helper()
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		t.Fatal(err)
	}
	return data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}

// expected lists what differs from success in a replay.
func expected(method protoreflect.Name, err error) bool {
	switch status.Code(err) {
	case codes.OK:
		return true
	case codes.Unimplemented:
		return method == "GetDiagnosticData"
	case codes.NotFound: // parked until after the removal
		return method == "ReadStdout" || method == "ReadStderr"
	case codes.Unavailable:
		return method == "GetOOMEvent"
	}
	// The connection may be gone before the answer to a parked call.
	return method == "GetOOMEvent" && strings.Contains(err.Error(), "closed")
}
