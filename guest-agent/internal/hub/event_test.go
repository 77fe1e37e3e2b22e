package hub

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/image/trust"
	"github.com/vouchsafe-cc/vouchsafe/measure/aael"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
)

// recording keeps what was recorded, or fails.
type recording struct {
	events []eventlog.RuntimeEvent
	err    error
}

func (r *recording) Record(_ context.Context, e eventlog.RuntimeEvent) error {
	if r.err == nil {
		r.events = append(r.events, e)
	}
	return r.err
}

// What is measured is what upstream's agents measure.
func TestPullEvent(t *testing.T) {
	got := pulled("docker.io/library/busybox:1.36", "sha256:5d1c")
	if want := `{"image":"docker.io/library/busybox:1.36", "digest":"sha256:5d1c"}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestPullIsRecorded(t *testing.T) {
	var events recording
	w := newWorld(t, func(c *Config) { c.Events = &events })
	img, err := w.hub.PullImage(t.Context(), w.ref, w.bundle())
	if err != nil {
		t.Fatalf("pull: %v\n%s", err, w.journalText())
	}
	want := eventlog.RuntimeEvent{Domain: "github.com/confidential-containers", Operation: "PullImage", Content: pulled(w.ref, img.Digest)}
	if len(events.events) != 2 || events.events[0] != want {
		t.Fatalf("recorded %+v, want %+v", events.events, want)
	}
	w.checkVerdict(events.events[1], img.Digest)
	if _, err := w.hub.PullImage(t.Context(), w.registry.host+"/shop/plain:1", w.bundle()); err == nil {
		t.Error("an unsigned image is pulled")
	}
	if len(events.events) != 2 {
		t.Errorf("a refused image is recorded: %+v", events.events)
	}
}

// checkVerdict compares the event of a verdict with the one in the journal.
func (w *world) checkVerdict(e eventlog.RuntimeEvent, image string) {
	w.t.Helper()
	var line struct {
		Verdict json.RawMessage `json:"verdict"`
	}
	if err := json.Unmarshal([]byte(w.journalText()), &line); err != nil {
		w.t.Fatalf("journal: %v\n%s", err, w.journalText())
	}
	var v trust.Verdict
	if err := json.Unmarshal(line.Verdict, &v); err != nil {
		w.t.Fatal(err)
	}
	if v.Digest != image || len(v.Signatures) != 1 || v.Signatures[0].Signer != v.Signers[0] || v.Scope == "" {
		w.t.Errorf("the journal has the verdict %+v", v)
	}
	want := eventlog.RuntimeEvent{Domain: "cc.vouchsafe", Operation: "ImageVerdict", Content: fmt.Sprintf(
		`{"image":%q,"verdict":"sha256:%x","waived":false,"signers":[%q]}`, image, sha256.Sum256(line.Verdict), v.Signers[0])}
	if e != want {
		w.t.Errorf("recorded %+v, want %+v", e, want)
	}
	// What a policy of the broker reads, once the log has come with evidence.
	logged, err := e.Event(4, eventlog.SHA384)
	if err != nil {
		w.t.Fatal(err)
	}
	claims, err := json.Marshal((&eventlog.Log{Events: []eventlog.Event{logged}}).ClaimsIn(eventlog.SHA384))
	if err != nil {
		w.t.Fatal(err)
	}
	if part := fmt.Sprintf(`"signers":[%q],"verdict":"sha256:%x","waived":false}`, v.Signers[0], sha256.Sum256(line.Verdict)); !strings.Contains(string(claims), part) {
		w.t.Errorf("the claims %s lack %s", claims, part)
	}
}

// A container that records events without end leaves the agent's own their room.
func TestWorkloadsDoNotFillTheLog(t *testing.T) {
	var events recording
	w := newWorld(t, func(c *Config) { c.Events = &events })
	e := eventlog.RuntimeEvent{Domain: "example", Operation: "op", Content: strings.Repeat("c", 8<<10)}
	total := 0
	for ; total <= aael.MaxSize; total += len(e.Content) {
		if err := w.hub.Record(t.Context(), e); err != nil {
			if fault.CodeOf(err) != fault.TooMany {
				t.Fatal(err)
			}
			break
		}
	}
	if total < aael.MaxSize/8 || total > aael.MaxSize/2 {
		t.Errorf("workloads may record %d bytes of %d", total, aael.MaxSize)
	}
	if err := w.hub.RecordOwn(t.Context(), "CreateContainer", "{}"); err != nil {
		t.Errorf("the agent's own: %v", err)
	}
	// What could not be recorded takes no room.
	w = newWorld(t, func(c *Config) { c.Events = &recording{err: aael.ErrNotSupported} })
	for range 2 * aael.MaxSize / len(e.Content) {
		if err := w.hub.Record(t.Context(), e); !errors.Is(err, aael.ErrNotSupported) {
			t.Fatal(err)
		}
	}
}

// A verdict that the journal does not take is not acted upon.
func TestVerdictThatIsNotKept(t *testing.T) {
	var events recording
	w := newWorld(t, func(c *Config) { c.Events, c.Journal = &events, fullJournal{} })
	if _, err := w.hub.PullImage(t.Context(), w.ref, w.bundle()); fault.CodeOf(err) != fault.Internal || len(events.events) != 0 {
		t.Errorf("got %v, recorded %+v", err, events.events)
	}
}

type fullJournal struct{}

func (fullJournal) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

// An image that cannot be recorded does not run, unless the platform has no
// register at all, which evidence shows.
func TestPullThatIsNotRecorded(t *testing.T) {
	events := recording{err: errors.New("RTMR3: input/output error")}
	w := newWorld(t, func(c *Config) { c.Events = &events })
	bundle := w.bundle()
	_, err := w.hub.PullImage(t.Context(), w.ref, bundle)
	f, ok := errors.AsType[*fault.Fault](err)
	if !ok || f.Ticket == "" || !strings.Contains(err.Error(), "internal") {
		t.Fatalf("got %v", err)
	}
	if left, err := os.ReadDir(filepath.Join(bundle, "rootfs")); err != nil || len(left) != 0 {
		t.Errorf("the image is still mounted: %v, %v", left, err)
	}
	events.err = aael.ErrNotSupported
	if _, err := w.hub.PullImage(t.Context(), w.ref, bundle); err != nil {
		t.Errorf("a platform without registers: %v", err)
	}
}

func TestRecord(t *testing.T) {
	event := eventlog.RuntimeEvent{Domain: "shop", Operation: "Open", Content: "till 3"}
	var events recording
	w := newWorld(t, nil)
	if err := w.hub.Record(t.Context(), event); !errors.Is(err, aael.ErrDisabled) {
		t.Errorf("without a log: %v", err)
	}
	w.hub.events = &events
	if err := w.hub.Record(t.Context(), event); err != nil || len(events.events) != 1 {
		t.Errorf("%v, %+v", err, events.events)
	}
	for name, tc := range map[string]struct {
		event eventlog.RuntimeEvent
		err   error
		code  fault.Code
	}{
		"malformed": {eventlog.RuntimeEvent{Domain: "a b", Operation: "Open"}, nil, fault.InvalidRequest},
		"failed":    {event, errors.New("EIO"), fault.Internal},
	} {
		events.err = tc.err
		f, ok := errors.AsType[*fault.Fault](w.hub.Record(t.Context(), tc.event))
		if !ok || f.Code != tc.code || f.Ticket == "" {
			t.Errorf("%s: %v", name, f)
		}
	}
	w.hub.events = NoEvents{}
	if err := w.hub.Record(t.Context(), event); !errors.Is(err, aael.ErrNotSupported) {
		t.Errorf("no register: %v", err)
	}
}

// What the agent says of itself, a workload cannot say in its name.
func TestTheAgentsEventsAreItsOwn(t *testing.T) {
	var events recording
	w := newWorld(t, func(c *Config) { c.Events = &events })
	for _, e := range []eventlog.RuntimeEvent{
		{Domain: "cc.vouchsafe", Operation: "ImageVerdict", Content: "{}"},
		{Domain: "cc.vouchsafe", Operation: "CreateContainer", Content: "{}"},
		{Domain: "github.com/confidential-containers", Operation: "PullImage", Content: "{}"},
	} {
		f, ok := errors.AsType[*fault.Fault](w.hub.Record(t.Context(), e))
		if !ok || f.Code != fault.Forbidden || f.Ticket == "" {
			t.Errorf("%s %s: %v", e.Domain, e.Operation, f)
		}
	}
	if len(events.events) != 0 {
		t.Errorf("recorded %+v", events.events)
	}
	if err := w.hub.RecordOwn(t.Context(), "CreateContainer", "{}"); err != nil || len(events.events) != 1 || events.events[0].Domain != "cc.vouchsafe" {
		t.Errorf("recorded %+v, %v", events.events, err)
	}
	for err, want := range map[error]bool{aael.ErrNotSupported: true, errors.New("a broken register"): false} {
		w := newWorld(t, func(c *Config) { c.Events = &recording{err: err} })
		if err := w.hub.RecordOwn(t.Context(), "CreateContainer", "{}"); (err == nil) != want {
			t.Errorf("%v", err)
		}
	}
}
