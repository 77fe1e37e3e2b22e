package policy

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

func read(id string) *agent.ReadStreamRequest {
	return &agent.ReadStreamRequest{ContainerId: id, Len: 32 << 10}
}

// judged is the policy's answer, and whether it was at hand before and is after.
func judged(t *testing.T, e *Engine, m proto.Message) (before bool, answer fault.Code, after bool) {
	t.Helper()
	before = e.Consents(m)
	_, err := e.Judge(t.Context(), m)
	return before, code(err), e.Consents(m)
}

func wantJudged(t *testing.T, e *Engine, m proto.Message, before bool, want fault.Code, after bool) {
	t.Helper()
	if b, c, a := judged(t, e, m); b != before || c != want || a != after {
		t.Errorf("%v: %v %q %v, want %v %q %v", m, b, c, a, before, want, after)
	}
}

// A yes is remembered for that question alone, a no is not.
func TestConsents(t *testing.T) {
	e := engine(t, `ReadStreamRequest if { input.container_id in {"a", "b"}; input.exec_id in {"", "x"}; input.len > 1 }
		WriteStreamRequest if input.container_id == "a"`)
	wantJudged(t, e, read("a"), false, "", true)
	wantJudged(t, e, read("a"), true, "", true)
	for range 2 {
		wantJudged(t, e, read("c"), false, fault.PolicyDenied, false)
	}
	for name, other := range map[string]proto.Message{
		"another container":            read("b"),
		"another process":              &agent.ReadStreamRequest{ContainerId: "a", ExecId: "x", Len: 32 << 10},
		"names that join to the same":  &agent.ReadStreamRequest{ExecId: "a", Len: 32 << 10},
		"another length":               &agent.ReadStreamRequest{ContainerId: "a", Len: 1},
		"the same fields, other words": &agent.WriteStreamRequest{ContainerId: "a"},
	} {
		if e.Consents(other) {
			t.Errorf("%s: allowed by what was asked before", name)
		}
	}
	wantJudged(t, e, &agent.ReadStreamRequest{ContainerId: "a", Len: 1}, false, fault.PolicyDenied, false)
	// The bytes of a write are not looked at by this policy.
	wantJudged(t, e, &agent.WriteStreamRequest{ContainerId: "a", Data: []byte("one")}, false, "", true)
	wantJudged(t, e, &agent.WriteStreamRequest{ContainerId: "a", Data: []byte("two")}, true, "", true)
	// But by this one.
	e = engine(t, `WriteStreamRequest if input.data[0] == 49`)
	wantJudged(t, e, &agent.WriteStreamRequest{ContainerId: "a", Data: []byte("1")}, false, "", false)
	wantJudged(t, e, &agent.WriteStreamRequest{ContainerId: "a", Data: []byte("2")}, false, fault.PolicyDenied, false)
}

// A constant is at hand from the start, unless it notes something.
func TestConstantsConsent(t *testing.T) {
	for text, want := range map[string]bool{
		`ReadStreamRequest := true`:                         true,
		`ReadStreamRequest := false`:                        false,
		`ReadStreamRequest := 1`:                            false,
		`ReadStreamRequest := {"allowed": true, "ops": []}`: true,
		`ReadStreamRequest := {"allowed": true, "ops": [{"op": "add", "path": "/pstate/a", "value": 1}]}`: false,
		`AllowRequestsFailingPolicy := true`:                                                                   false,
		"AllowRequestsFailingPolicy := true\nReadStreamRequest := false":                                       false,
		"WriteStreamRequest := true\nReadStreamRequest if data.agent_policy.WriteStreamRequest":                true,
		"WriteStreamRequest := true\nReadStreamRequest if { data.agent_policy.WriteStreamRequest; not input }": false,
	} {
		if got := engine(t, text).Consents(read("a")); got != want {
			t.Errorf("%v, want %v: %s", got, want, text)
		}
	}
}

// Requests that change what runs are judged each time.
func TestOnlyStreamsAreRemembered(t *testing.T) {
	e := engine(t, "ExecProcessRequest if input.container_id == \"a\"\nCreateContainerRequest if input.container_id == \"a\"")
	for _, m := range []proto.Message{&agent.ExecProcessRequest{ContainerId: "a"}, &agent.CreateContainerRequest{ContainerId: "a"}} {
		wantJudged(t, e, m, false, "", false)
	}
}

// What an answer notes happens each time.
func TestAnswersWithNotesAreNotRemembered(t *testing.T) {
	e := engine(t, `ReadStreamRequest := {"allowed": true, "ops": [{"op": "add", "path": concat("", ["/pstate/", input.container_id]), "value": 1}]} if {
		not data.pstate[input.container_id]
	}`)
	wantJudged(t, e, read("a"), false, "", false)
	wantJudged(t, e, read("a"), false, fault.PolicyDenied, false)
}

// What is known is known of just these notes, and of just this policy.
func TestAnotherWorldKnowsNothing(t *testing.T) {
	e := engine(t, counting+"ReadStreamRequest if data.pstate[input.container_id]")
	allow := func(m proto.Message) func(bool) {
		t.Helper()
		done, err := e.Judge(t.Context(), m)
		if err != nil {
			t.Fatal(err)
		}
		return done
	}
	create := func(id string) func(bool) { return allow(&agent.CreateContainerRequest{ContainerId: id}) }
	created := create("a")
	wantJudged(t, e, read("a"), false, "", true)
	create("b")
	wantJudged(t, e, read("a"), false, "", true)
	removed := allow(&agent.RemoveContainerRequest{ContainerId: "b"})
	wantJudged(t, e, read("b"), false, "", true) // it is there until it is removed
	removed(true)
	wantJudged(t, e, read("b"), false, fault.PolicyDenied, false)
	wantJudged(t, e, read("a"), false, "", true)
	created(false) // it could not be created after all
	wantJudged(t, e, read("a"), false, fault.PolicyDenied, false)
	create("a")
	wantJudged(t, e, read("a"), false, "", true)
	// The same text again has none of its notes.
	if err := e.Replace(t.Context(), "package agent_policy\n"+counting+"ReadStreamRequest if data.pstate[input.container_id]"); err != nil {
		t.Fatal(err)
	}
	wantJudged(t, e, read("a"), false, fault.PolicyDenied, false)
	create("a")
	wantJudged(t, e, read("a"), false, "", true)
	if err := e.Replace(t.Context(), "package agent_policy\nbroken"); err == nil {
		t.Fatal("a broken policy was taken")
	}
	wantJudged(t, e, read("a"), true, "", true)
	if err := e.Replace(t.Context(), "package agent_policy\nReadStreamRequest := false"); err != nil {
		t.Fatal(err)
	}
	wantJudged(t, e, read("a"), false, fault.PolicyDenied, false)
}

// Nothing is remembered of a policy that could answer otherwise the next time, even
// if it is another rule that could.
func TestSteady(t *testing.T) {
	const reads = "\nReadStreamRequest if input.container_id == \"a\"\n"
	for text, want := range map[string]bool{
		reads:                        true,
		counting + reads:             true,
		"x := time.now_ns()" + reads: false,
		"ReadStreamRequest if { input.container_id == \"a\"; time.now_ns() > 0 }":                     false,
		"f(x) if x < time.now_ns()\nReadStreamRequest if f(input.len)":                                false,
		"ReadStreamRequest if { input.container_id == \"a\"; [x | x := time.now_ns()][0] > 0 }":       false,
		"f(x) := x\nReadStreamRequest if f(1) > 0 with f as time.parse_rfc3339_ns":                    false,
		"ReadStreamRequest if { input.container_id == \"a\"; time.clock(0)[0] == 0 }":                 false,
		"ReadStreamRequest if crypto.x509.parse_and_verify_certificates(input.container_id)[0]":       false,
		"ReadStreamRequest if io.jwt.decode_verify(input.container_id, {\"secret\": \"x\"})[0]":       false,
		"default x := false\nx if io.jwt.encode_sign({}, {}, {})" + reads:                             false,
		"ReadStreamRequest if crypto.sha256(input.container_id) == \"x\"":                             false, // steady, but of a family that is not
		"ReadStreamRequest if regex.match(`^a$`, input.container_id)":                                 true,
		"ReadStreamRequest if { some i, c in split(input.container_id, \"\"); print(i); c == \"a\" }": true,
	} {
		e := engine(t, text)
		if got := e.world.Load().program.steady; got != want {
			t.Errorf("steady %v, want %v: %s", got, want, text)
		}
		if _, err := e.Judge(t.Context(), read("a")); !want && (e.Consents(read("a")) || code(err) == fault.PolicyError) {
			t.Errorf("%v, and remembered: %s", err, text)
		}
	}
}

// A rule that asks the clock by way of a certificate is no constant.
func TestVaries(t *testing.T) {
	e := engine(t, `ReadStreamRequest if not crypto.x509.parse_and_verify_certificates("")[0]`)
	if e.world.Load().program.rules["ReadStreamRequest"].constant != nil {
		t.Error("a certificate's verification is taken for a constant")
	}
}

// All of a message that reaches the input document is in the question: a field that
// the protocol gets later must be, too.
func TestQuestionsAreWhole(t *testing.T) {
	for _, m := range []proto.Message{&agent.ReadStreamRequest{}, &agent.WriteStreamRequest{}} {
		for _, bytes := range []bool{false, true} {
			plain, ok := questionOf(m, bytes)
			if !ok {
				continue
			}
			if want := string(m.ProtoReflect().Descriptor().Name()); plain.request != want {
				t.Errorf("a %s is taken for a %s", want, plain.request)
			}
			fields := m.ProtoReflect().Descriptor().Fields()
			for i := range fields.Len() {
				f, other := fields.Get(i), proto.Clone(m)
				other.ProtoReflect().Set(f, something(t, f))
				q, _ := questionOf(other, bytes)
				if q == plain && !sameDocument(t, m, other, bytes) {
					t.Errorf("%s is seen by a policy, and not part of the question", f.FullName())
				}
			}
		}
	}
}

func something(t *testing.T, f protoreflect.FieldDescriptor) protoreflect.Value {
	t.Helper()
	switch f.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString("x")
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(7)
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte("x"))
	}
	t.Fatalf("%s is of a kind that this test does not know", f.FullName())
	return protoreflect.Value{}
}

func sameDocument(t *testing.T, a, b proto.Message, bytes bool) bool {
	t.Helper()
	x, err := document(a, bytes)
	if err != nil {
		t.Fatal(err)
	}
	y, err := document(b, bytes)
	if err != nil {
		t.Fatal(err)
	}
	return x.Compare(y) == 0
}

// The host says the names, and cannot have more remembered than there is room for.
func TestKnownIsBounded(t *testing.T) {
	e := engine(t, `ReadStreamRequest if input.len > 0`)
	for i := range 3 * maxKnown {
		if _, err := e.Judge(t.Context(), read(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
		if n := len(e.world.Load().known.yes); n == 0 || n > maxKnown {
			t.Fatalf("%d questions are known", n)
		}
	}
	wantJudged(t, e, read(strings.Repeat("i", maxQuestion)), false, "", true)
	wantJudged(t, e, read(strings.Repeat("i", maxQuestion+1)), false, "", false)
}

// Once another policy is in force, or a note is gone, nobody is allowed what was
// remembered before.
func TestNoStaleConsent(t *testing.T) {
	texts := map[bool]string{
		true:  "package agent_policy\n" + counting + "ReadStreamRequest if { input.len > 1; data.pstate.a }",
		false: "package agent_policy\n" + counting + "ReadStreamRequest if { input.len > 1; data.pstate.b }",
	}
	e := engine(t, "")
	var refusing atomic.Int64 // odd while every read must be refused
	ctx, stop := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for ctx.Err() == nil {
				since := refusing.Load()
				consents := e.Consents(read("a"))
				_, err := e.Judge(context.Background(), read("a"))
				if since%2 == 1 && refusing.Load() == since && (consents || err == nil) {
					t.Errorf("read by what was allowed before: %v, %v", consents, err)
					return
				}
			}
		})
	}
	change := func(m proto.Message) {
		t.Helper()
		done, err := e.Judge(t.Context(), m)
		if err != nil {
			t.Fatal(err)
		}
		done(true)
	}
	refused := func() {
		t.Helper()
		refusing.Add(1)
		defer refusing.Add(1)
		for range 20 {
			wantJudged(t, e, read("a"), false, fault.PolicyDenied, false)
		}
	}
	for range 10 {
		if err := e.Replace(t.Context(), texts[true]); err != nil {
			t.Fatal(err)
		}
		change(&agent.CreateContainerRequest{ContainerId: "a"})
		if _, c, after := judged(t, e, read("a")); c != "" || !after {
			t.Fatalf("%q, %v", c, after)
		}
		change(&agent.RemoveContainerRequest{ContainerId: "a"})
		refused()
		change(&agent.CreateContainerRequest{ContainerId: "a"})
		judged(t, e, read("a"))
		if err := e.Replace(t.Context(), texts[false]); err != nil {
			t.Fatal(err)
		}
		refused()
	}
	stop()
	readers.Wait()
}

// FuzzKnown compares an engine with one that remembers nothing, over the same
// requests.
func FuzzKnown(f *testing.F) {
	f.Add([]byte{0, 8, 16, 8, 24, 8, 16, 8})
	f.Add([]byte{0, 8, 8, 2, 10, 10, 32, 8, 8, 40, 10, 10, 255, 254, 253, 0})
	f.Add([]byte(strings.Repeat("\x00\x08\x18\x08\x10", 100)))
	const text = "package agent_policy\n" + counting + `
		ReadStreamRequest if { data.pstate[input.container_id]; input.exec_id in {"", "x"} }
		ReadStreamRequest := {"allowed": true, "ops": [{"op": "add", "path": "/pstate/c", "value": {"n": 1}}]} if { input.container_id == "c"; not data.pstate.c }
		WriteStreamRequest if count(data.pstate) > 1`
	compiled := func() *program {
		p, err := compile(f.Context(), text)
		if err != nil {
			f.Fatal(err)
		}
		return p
	}
	remembering, forgetting := compiled(), compiled()
	forgetting.steady = false
	f.Fuzz(func(t *testing.T, steps []byte) {
		engines := [2]*Engine{}
		for i, p := range []*program{remembering, forgetting} {
			engines[i] = &Engine{}
			engines[i].world.Store(&world{program: p, notes: map[string]any{}})
		}
		for _, b := range steps[:min(len(steps), 200)] {
			var codes [2]fault.Code
			for i, e := range engines {
				done, err := e.Judge(t.Context(), fuzzed(b))
				if codes[i] = code(err); err == nil {
					done(b&0x40 == 0)
				}
			}
			if codes[0] != codes[1] {
				t.Fatalf("%v: %q, and judged anew %q", fuzzed(b), codes[0], codes[1])
			}
		}
	})
}

// fuzzed makes a request of a byte.
func fuzzed(b byte) proto.Message {
	id, exec := string("abcd"[b&3]), strings.Repeat("x", int(b>>2&1))
	switch b >> 3 & 7 {
	case 0:
		return &agent.CreateContainerRequest{ContainerId: id}
	case 2:
		return &agent.RemoveContainerRequest{ContainerId: id}
	case 4:
		return &agent.WriteStreamRequest{ContainerId: id, Data: []byte{b}}
	default:
		return &agent.ReadStreamRequest{ContainerId: id, ExecId: exec, Len: uint32(b >> 7)}
	}
}

// What a piece of output costs to judge: by a constant, by what is known, and by an
// evaluation.
func BenchmarkRead(b *testing.B) {
	for name, text := range map[string]string{
		"constant":  "ReadStreamRequest := true",
		"known":     `ReadStreamRequest if input.container_id == "a"`,
		"evaluated": "ReadStreamRequest if input.container_id == \"a\"\nx := time.now_ns()",
	} {
		b.Run(name, func(b *testing.B) {
			e, err := New(b.Context(), "package agent_policy\n"+text, Config{})
			if err != nil {
				b.Fatal(err)
			}
			m := read("a")
			b.ReportAllocs()
			for b.Loop() {
				if e.Consents(m) {
					continue
				}
				if _, err := e.Judge(b.Context(), m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
