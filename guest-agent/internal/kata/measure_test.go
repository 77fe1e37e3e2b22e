package kata

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
)

// register keeps events, or refuses them.
type register struct {
	mu     sync.Mutex
	events []string
	err    error
}

func (r *register) RecordOwn(_ context.Context, operation, content string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return r.err
	}
	if err := (eventlog.RuntimeEvent{Domain: "d", Operation: operation, Content: content}).Validate(); err != nil {
		return err
	}
	r.events = append(r.events, operation+" "+content)
	return nil
}

func TestContainersAreMeasured(t *testing.T) {
	r := new(register)
	p := newSandbox(t, func(c *Config) { c.Events = r })
	p.run("c1", "echo", "a\nb\u200b\U000e0001")
	p.wait("c1", "")
	p.run("c2", "echo", strings.Repeat("x", maxMeasuredArgs+1))
	p.wait("c2", "")
	if len(r.events) != 2 {
		t.Fatalf("%d events", len(r.events))
	}
	var first, second struct {
		Container, Image, Spec string
		Args                   []string
	}
	for event, into := range map[string]any{r.events[0]: &first, r.events[1]: &second} {
		text, ok := strings.CutPrefix(event, eventCreate+" ")
		if err := json.Unmarshal([]byte(text), into); !ok || err != nil {
			t.Fatalf("%q: %v", event, err)
		}
	}
	if first.Container != "c1" || strings.Join(first.Args, "|") != "echo|a\nb\u200b\U000e0001" || !strings.HasPrefix(first.Spec, "sha256:") {
		t.Errorf("%+v", first)
	}
	if second.Args != nil || second.Spec == first.Spec {
		t.Errorf("%+v", second)
	}
}

// What cannot be recorded does not start.
func TestAContainerThatCannotBeMeasured(t *testing.T) {
	p := newSandbox(t, func(c *Config) {
		c.Events = &register{err: fault.New(fault.Internal, errors.New("a broken register")).With("T-1")}
	})
	_, err := p.client.CreateContainer(t.Context(), p.request("c1", "true"))
	wantCode(t, err, codes.Internal)
	if err == nil || strings.Contains(err.Error(), "register") {
		t.Errorf("the host was told %v", err)
	}
}
