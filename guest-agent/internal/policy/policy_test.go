package policy

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

func engine(t *testing.T, text string) *Engine {
	t.Helper()
	e, err := New(t.Context(), "package agent_policy\n"+text, Config{})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func code(err error) fault.Code {
	if f, ok := errors.AsType[*fault.Fault](err); ok {
		return f.Code
	}
	return ""
}

func TestAnswers(t *testing.T) {
	req := &agent.ExecProcessRequest{ContainerId: "app", Process: &agent.Process{Args: []string{"/bin/true"}}}
	tests := map[string]struct {
		text string
		want fault.Code
	}{
		"true":                   {`ExecProcessRequest := true`, ""},
		"by default":             {`default ExecProcessRequest := true`, ""},
		"false":                  {`ExecProcessRequest := false`, fault.PolicyDenied},
		"no rule":                {`CreateContainerRequest := true`, fault.PolicyDenied},
		"undefined":              {`ExecProcessRequest if input.container_id == "other"`, fault.PolicyDenied},
		"by input":               {`ExecProcessRequest if input.process.Args == ["/bin/true"]`, ""},
		"older language":         {"import future.keywords.in\ndefault ExecProcessRequest := false\nExecProcessRequest { some a in input.process.Args; a == \"/bin/true\" }", ""},
		"an object":              {`ExecProcessRequest := {"allowed": true, "ops": []} if input.exec_id == ""`, ""},
		"an object that says no": {`ExecProcessRequest := {"allowed": false, "ops": []}`, fault.PolicyDenied},
		"an object without":      {`ExecProcessRequest := {"ops": []}`, fault.PolicyDenied},
		"not a boolean":          {`ExecProcessRequest := "true"`, fault.PolicyError},
		"a number":               {`ExecProcessRequest := 1`, fault.PolicyError},
		"conflict": {`ExecProcessRequest := true if input.container_id == "app"
			ExecProcessRequest := false if input.exec_id == ""`, fault.PolicyError},
		"ops elsewhere":  {`ExecProcessRequest := {"allowed": true, "ops": [{"op": "add", "path": "/other/x", "value": 1}]}`, fault.PolicyError},
		"unknown op":     {`ExecProcessRequest := {"allowed": true, "ops": [{"op": "copy", "path": "/pstate/x", "from": "/pstate/y"}]}`, fault.PolicyError},
		"op on nothing":  {`ExecProcessRequest := {"allowed": true, "ops": [{"op": "remove", "path": "/pstate/x"}]}`, fault.PolicyError},
		"builtin error":  {`ExecProcessRequest if to_number(input.container_id) > 1`, fault.PolicyDenied},
		"other function": {"ok(x) if x.container_id == \"app\"\nExecProcessRequest if ok(input)", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := engine(t, tt.text).Judge(t.Context(), req)
			if got := code(err); got != tt.want || (err == nil) != (tt.want == "") {
				t.Errorf("%v, want code %q", err, tt.want)
			}
		})
	}
}

func TestSyntax(t *testing.T) {
	for name, text := range map[string]string{
		"no Rego":           "package agent_policy\nthis is not Rego",
		"other package":     "package policy\nExecProcessRequest := true",
		"network":           "package agent_policy\nExecProcessRequest if http.send({\"method\": \"get\", \"url\": \"http://x\"}).status_code == 200",
		"environment":       "package agent_policy\nExecProcessRequest if opa.runtime().env.X == \"1\"",
		"recursion":         "package agent_policy\na if b\nb if a",
		"digests by input":  "package agent_policy\nimage_digests := [input.x]",
		"digests malformed": "package agent_policy\nimage_digests := [\"sha256:00\"]",
		"empty":             "",
	} {
		if err := Check(t.Context(), text); err == nil {
			t.Errorf("%s: taken", name)
		} else if _, ok := errors.AsType[*SyntaxError](err); !ok {
			t.Errorf("%s: %v is no syntax error", name, err)
		}
	}
}

// The owner reads which rule refused and what it printed last.
func TestDenialExplains(t *testing.T) {
	e := engine(t, `ExecProcessRequest if {
		print("the container", input.container_id)
		input.container_id == "other"
		print("not reached")
	}`)
	_, err := e.Judge(t.Context(), &agent.ExecProcessRequest{ContainerId: "app"})
	f, _ := errors.AsType[*fault.Fault](err)
	if f == nil || f.Cause() == nil {
		t.Fatal(err)
	}
	if got := f.Cause().Error(); got != "data.agent_policy.ExecProcessRequest: it says nothing; it printed, the last first: the container app" {
		t.Error(got)
	}
	if strings.Contains(f.Public(), "container") {
		t.Errorf("the host reads %q", f.Public())
	}
}

const counting = `
CreateContainerRequest := {"allowed": true, "ops": [{"op": "add", "path": concat("/", ["", "pstate", input.container_id]), "value": {"n": 1}}]} if {
	not data.pstate[input.container_id]
}
RemoveContainerRequest := {"allowed": true, "ops": [{"op": "remove", "path": concat("/", ["", "pstate", input.container_id])}]} if {
	data.pstate[input.container_id].n == 1
}
`

func TestNotes(t *testing.T) {
	e := engine(t, counting)
	create := func(id string) (func(bool), error) {
		return e.Judge(t.Context(), &agent.CreateContainerRequest{ContainerId: id})
	}
	done, err := create("a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := create("a"); code(err) != fault.PolicyDenied {
		t.Errorf("a second one of the same name: %v", err)
	}
	if _, err := create("b"); err != nil {
		t.Errorf("another: %v", err)
	}
	done(false) // it could not be created after all
	if _, err := create("a"); err != nil {
		t.Errorf("again: %v", err)
	}
	for _, removed := range []bool{false, true} {
		done, err := e.Judge(t.Context(), &agent.RemoveContainerRequest{ContainerId: "b"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := create("b"); code(err) != fault.PolicyDenied {
			t.Errorf("one that is being removed: %v", err)
		}
		done(removed)
		if _, err := create("b"); (err == nil) != removed {
			t.Errorf("removed %v, and then: %v", removed, err)
		}
	}
}

// Of many that ask at once for what may be had once, one gets it.
func TestNotesConcurrently(t *testing.T) {
	e := engine(t, counting)
	results := make(chan error)
	const n = 20
	for range n {
		go func() {
			_, err := e.Judge(context.Background(), &agent.CreateContainerRequest{ContainerId: "a"})
			results <- err
		}()
	}
	allowed := 0
	for range n {
		if err := <-results; err == nil {
			allowed++
		} else if code(err) != fault.PolicyDenied {
			t.Error(err)
		}
	}
	if allowed != 1 {
		t.Errorf("%d were allowed", allowed)
	}
}

func TestReplace(t *testing.T) {
	e := engine(t, counting)
	if _, err := e.Judge(t.Context(), &agent.CreateContainerRequest{ContainerId: "a"}); err != nil {
		t.Fatal(err)
	}
	if err := e.Replace(t.Context(), "package agent_policy\nbroken"); err == nil {
		t.Fatal("a broken policy was taken")
	}
	if _, err := e.Judge(t.Context(), &agent.CreateContainerRequest{ContainerId: "a"}); code(err) != fault.PolicyDenied {
		t.Errorf("after a failed replacement: %v", err)
	}
	if err := e.Replace(t.Context(), "package agent_policy\nStartContainerRequest := true"); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Judge(t.Context(), &agent.StartContainerRequest{}); err != nil {
		t.Error(err)
	}
	if _, err := e.Judge(t.Context(), &agent.CreateContainerRequest{}); code(err) != fault.PolicyDenied {
		t.Errorf("a rule of the old policy: %v", err)
	}
}

// Learning lets pass, and says so; but not the end of learning.
func TestLearn(t *testing.T) {
	for name, text := range map[string]string{
		"by setting": "package agent_policy\nStartContainerRequest := false",
		"by policy":  "package agent_policy\nAllowRequestsFailingPolicy := true\nStartContainerRequest := false",
	} {
		var log bytes.Buffer
		e, err := New(t.Context(), text, Config{UnsafeLearn: name == "by setting", Logger: slog.New(slog.NewJSONHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(log.String(), "NOTHING that it refuses is refused") {
			t.Errorf("%s: learning is not loud: %s", name, &log)
		}
		log.Reset()
		if _, err := e.Judge(t.Context(), &agent.StartContainerRequest{ContainerId: "app"}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !strings.Contains(log.String(), LearnMessage) || !strings.Contains(log.String(), `"input":{"container_id":"app"}`) {
			t.Errorf("%s: the log says %s", name, &log)
		}
		if err := e.CheckImage(t.Context(), "a", "sha256:b"); err != nil {
			t.Errorf("%s: image: %v", name, err)
		}
		if _, err := e.Judge(t.Context(), &agent.SetPolicyRequest{}); code(err) != fault.PolicyDenied {
			t.Errorf("%s: SetPolicy: %v", name, err)
		}
	}
}

// A constant is not evaluated again, and what only looks like one is.
func TestConstants(t *testing.T) {
	for text, want := range map[string]bool{
		"StartContainerRequest := true":                                                                true,
		"p := {\"a\": true}\nStartContainerRequest if p.a == true":                                     true,
		"default StartContainerRequest := false\nStartContainerRequest if input.container_id == \"a\"": false,
		"f(x) if x == input.container_id\nStartContainerRequest if f(\"a\")":                           false,
		"StartContainerRequest if not data.pstate.seen":                                                false,
		"StartContainerRequest if time.now_ns() > 0":                                                   false,
		"h if not input.container_id\nStartContainerRequest if h":                                      false,
		"h contains x if some x in input\nStartContainerRequest if count(h) == 0":                      false,
		"StartContainerRequest if data.agent_policy[\"x\"]\nx if input.container_id":                   false,
		"StartContainerRequest := true if false\nelse := true if input.container_id":                   false,
	} {
		e := engine(t, text)
		if got := e.world.Load().program.rules["StartContainerRequest"].constant != nil; got != want {
			t.Errorf("constant %v, want %v: %s", got, want, text)
		}
	}
}

func TestImages(t *testing.T) {
	a, b := "sha256:"+strings.Repeat("a", 64), "sha256:"+strings.Repeat("b", 64)
	tests := []struct {
		name, rule, ref, digest string
		allowed                 bool
	}{
		{"nothing named", "", "reg/app:1", a, false},
		{"named", `image_digests := {"reg/app:1": ["` + a + `"]}`, "reg/app:1", a, true},
		{"one", `image_digests := {"reg/app:1": "` + a + `"}`, "reg/app:1", a, true},
		{"other digest", `image_digests := {"reg/app:1": ["` + a + `"]}`, "reg/app:1", b, false},
		{"other reference", `image_digests := {"reg/app:1": ["` + a + `"]}`, "reg/app:2", a, false},
		{"any reference", `image_digests := ["` + a + `"]`, "reg/app:2", a, true},
		{"a set", `image_digests contains "` + a + `"`, "reg/app:2", a, true},
		{"index by reference", `image_digests := ["` + a + `"]`, "reg/app@" + a, b, true},
		{"index by another reference", `image_digests := ["` + a + `"]`, "reg/app@" + b, b, false},
	}
	for _, tt := range tests {
		err := engine(t, tt.rule).CheckImage(t.Context(), tt.ref, tt.digest)
		if (err == nil) != tt.allowed || (err != nil && code(err) != fault.PolicyDenied) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// What a request can make a policy cost is limited.
func TestLimits(t *testing.T) {
	e := engine(t, `
		StartContainerRequest if count([1 | some a in input.items; some b in input.items; some c in input.items; some d in input.items]) < 0
		ExecProcessRequest if count([x | some a in input.process.Args; some b in input.process.Args; some c in input.process.Args; x := concat("", [a, b, c])]) < 0`)
	args := make([]string, 3000)
	for i := range args {
		args[i] = strings.Repeat("x", 100)
	}
	_, err := e.Judge(t.Context(), &agent.ExecProcessRequest{Process: &agent.Process{Args: args}})
	if code(err) != fault.PolicyError {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := e.Judge(ctx, &agent.ExecProcessRequest{Process: &agent.Process{Args: args}}); code(err) != fault.PolicyError && err == nil {
		t.Errorf("a caller who is gone: %v", err)
	}
	big := engine(t, `WriteStreamRequest if input.data[0] == 1`)
	for n, want := range map[int]fault.Code{maxBytes: "", maxBytes + 1: fault.PolicyError} {
		if _, err := big.Judge(t.Context(), &agent.WriteStreamRequest{Data: bytes.Repeat([]byte{1}, n)}); code(err) != want {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	full := engine(t, `CreateContainerRequest := {"allowed": true, "ops": [{"op": "add", "path": concat("/", ["", "pstate", input.container_id]), "value": input.exec_id}]}`)
	var last error
	for i := range 20 {
		_, last = full.Judge(t.Context(), &agent.CreateContainerRequest{ContainerId: strings.Repeat("i", i+1), ExecId: strings.Repeat("x", maxNotes/10)})
	}
	if code(last) != fault.PolicyError {
		t.Errorf("notes without end: %v", last)
	}
}
