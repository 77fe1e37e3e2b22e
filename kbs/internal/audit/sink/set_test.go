package sink

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/audit"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

var errDown = errors.New("down")

// pass lets time pass in a bubble of synctest.
func pass(d time.Duration) { <-time.After(d) }

func TestEveryEntryInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		s.fill(1300) // more than two batches
		var calls atomic.Int64
		m := &memory{receiver: newReceiver(), fail: func([]Event) error {
			if calls.Add(1)%2 == 0 {
				return errDown // taken, but not confirmed: it comes again
			}
			return nil
		}}
		set := s.open("one", Spec{Name: "m", Sink: m, Timeout: time.Second})
		stop := s.run(set)
		m.wait(t, 1300)
		s.fill(5)
		m.wait(t, 1305)
		for s.cursor("m").Next != 1305 {
			pass(time.Second)
		}
		stop()
		if c := s.cursor("m"); c.Holder != "" {
			t.Errorf("the lease was not given back: %+v", c)
		}
		again := &memory{receiver: newReceiver()}
		s.fill(1)
		s.run(s.open("two", Spec{Name: "m", Sink: again, Timeout: time.Second}))
		for again.count() == 0 {
			<-again.arrived
		}
		if len(again.seen) != 1 || again.seen[1305] != 1 {
			t.Errorf("a new process got %v", again.seen)
		}
	})
}

// A sink that is new gets what the log still has, from the first of it on.
func TestASinkAfterAnArchive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		s.fill(100)
		old := &memory{receiver: newReceiver()}
		set := s.open("one", Spec{Name: "old", Sink: old, Timeout: time.Second})
		if n := set.Confirmed(); n != 0 {
			t.Errorf("%d are confirmed before anything was delivered", n)
		}
		stop := s.run(set)
		old.wait(t, 100)
		for set.Confirmed() != 100 {
			pass(time.Second)
		}
		stop()
		tree, err := audit.NewTree(audit.Archived{})
		for raw, rerr := range s.log.All(t.Context(), 90) {
			err = errors.Join(err, rerr, tree.Add(raw))
		}
		_, cerr := s.log.Checkpoint(t.Context())
		root, rerr := tree.Root()
		_, aerr := s.log.Archive(t.Context(), 90, root, set.Confirmed(), api.AuditEntry{})
		_, derr := s.log.Drop(t.Context())
		if err := errors.Join(err, cerr, rerr, aerr, derr); err != nil {
			t.Fatal(err)
		}
		late := &memory{receiver: newReceiver()}
		s.run(s.open("two", Spec{Name: "old", Sink: old, Timeout: time.Second}, Spec{Name: "new", Sink: late, Timeout: time.Second, Required: true, MaxLag: time.Hour}))
		for late.count() < 11 {
			<-late.arrived
		}
		old.wait(t, 101)
		for i := range int64(11) {
			if late.seen[90+i] != 1 {
				t.Errorf("entry %d came %d times", 90+i, late.seen[90+i])
			}
		}
	})
}

// The pauses between attempts grow, have some chance in them, and honour what
// the receiver asks.
func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		s.fill(1)
		var at []time.Time
		enough := make(chan struct{})
		m := &memory{receiver: newReceiver(), lose: true, fail: func([]Event) error {
			if at = append(at, time.Now()); len(at) == 12 {
				close(enough)
			}
			if len(at) == 10 {
				return &retryError{after: 4 * time.Minute, err: errDown}
			}
			if len(at) == 11 {
				return &retryError{after: time.Hour, err: errDown}
			}
			return errDown
		}}
		stop := s.run(s.open("one", Spec{Name: "m", Sink: m, Timeout: time.Second}))
		<-enough
		stop()
		want := firstBackoff
		for i := 1; i < 10; i++ {
			if gap := at[i].Sub(at[i-1]); gap < want/2 || gap > want {
				t.Errorf("pause %d was %s, want from %s to %s", i, gap, want/2, want)
			}
			want = min(2*want, maxBackoff)
		}
		if gap := at[10].Sub(at[9]); gap != 4*time.Minute {
			t.Errorf("the receiver asked for 4m, and got %s", gap)
		}
		if gap := at[11].Sub(at[10]); gap != maxAsked {
			t.Errorf("the receiver asked for an hour, and got %s", gap)
		}
	})
}

// One replica delivers at a time. When it vanishes, another goes on where it
// stopped, but not before its lease ends.
func TestReplicasTakeOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		s.fill(10)
		dead := lease{st: s.st, name: "m", holder: "dead", length: leaseLength, now: time.Now}
		begin := time.Now()
		if _, err := dead.hold(t.Context(), 0, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := dead.hold(t.Context(), 0, 4); err != nil { // and now it dies
			t.Fatal(err)
		}
		got := newReceiver()
		var now, most atomic.Int64
		var sets []*Set
		for _, name := range []string{"a", "b", "c"} {
			m := &memory{receiver: got, active: func(d int) {
				if n := now.Add(int64(d)); n > most.Load() {
					most.Store(n)
				}
			}}
			set := s.open(name, Spec{Name: "m", Sink: m, Timeout: time.Second})
			sets = append(sets, set)
			s.run(set)
		}
		for got.count() < 6 {
			<-got.arrived
		}
		if d := time.Since(begin); d < leaseLength || d > 2*leaseLength {
			t.Errorf("taken over after %s", d)
		}
		for range 20 {
			s.fill(1)
			pass(7 * time.Second)
		}
		leading := 0
		for _, set := range sets {
			if set.Status()[0].Leading {
				leading++
			}
		}
		if leading != 1 || most.Load() != 1 {
			t.Errorf("%d replicas lead, and %d delivered at once", leading, most.Load())
		}
		for i := range int64(30) {
			if want := min(1, max(0, int(i)-3)); got.seen[i] != want {
				t.Errorf("entry %d was delivered %d times, want %d", i, got.seen[i], want)
			}
		}
		if _, err := dead.hold(t.Context(), 4, 1); !errors.Is(err, errLost) {
			t.Errorf("who came back from the dead moved the cursor: %v", err)
		}
	})
}

// A required sink that does not confirm closes the broker, and opens it again.
func TestFailClosed(t *testing.T) {
	for name, c := range map[string]struct {
		spec  Spec
		fill  int
		after time.Duration // until it is closed
	}{
		"too old":  {Spec{Required: true, MaxLag: 20 * time.Second}, 1, 20 * time.Second},
		"too many": {Spec{Required: true, MaxLag: time.Hour, MaxEntries: 5}, 6, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t)
				var up atomic.Bool
				m := &memory{receiver: newReceiver(), lose: true, fail: func([]Event) error {
					if up.Load() {
						return nil
					}
					return errDown
				}}
				c.spec.Name, c.spec.Sink, c.spec.Timeout = "m", m, time.Second
				set := s.open("one", c.spec)
				guarded := audit.Guard(s.log, set.Behind)
				stop := s.run(set)
				try := func(e api.AuditEntry) error {
					_, err := guarded.Append(t.Context(), e)
					return err
				}
				release := api.AuditEntry{Kind: api.AuditRelease, Decision: "allow"}
				change := api.AuditEntry{Kind: api.AuditPolicyPut, Decision: "change", Subject: "admin:x"}
				s.fill(c.fill)
				pass(c.after - time.Second)
				if c.after > 0 && set.Behind() != nil {
					t.Errorf("closed too early: %v", set.Behind())
				}
				pass(4 * time.Second)
				for _, e := range []api.AuditEntry{release, change} {
					if err := try(e); fault.CodeOf(err) != fault.Unavailable || !errors.Is(err, audit.ErrHeld) {
						t.Errorf("%s %s while the sink is behind: %v", e.Kind, e.Decision, err)
					}
				}
				for _, e := range []api.AuditEntry{
					{Kind: api.AuditRelease, Decision: "deny"}, {Kind: api.AuditAttest, Decision: "allow"}, {Kind: api.AuditBrokerStart, Decision: "change", Subject: "kbs"},
				} {
					if err := try(e); err != nil {
						t.Errorf("%s %s must be recorded: %v", e.Kind, e.Decision, err)
					}
				}
				err := s.st.Update(t.Context(), func(tx store.Tx) error { _, err := guarded.AppendTx(tx, change); return err })
				if !errors.Is(err, audit.ErrHeld) {
					t.Errorf("within a transaction: %v", err)
				}
				if st := set.Status()[0]; !st.Behind || st.Entries < int64(c.fill) || st.LastError == nil {
					t.Errorf("status %+v", st)
				}
				if other := s.open("two", c.spec); other.Behind() == nil {
					t.Error("a broker that starts now is open")
				}
				up.Store(true)
				pass(maxBackoff + 2*watchEvery)
				if err := errors.Join(set.Behind(), try(release), try(change)); err != nil {
					t.Errorf("after the sink came back: %v", err)
				}
				pass(2 * watchEvery)
				stop()
				kinds := s.kinds()
				if kinds[api.AuditSinkBehind] != 1 || kinds[api.AuditSinkCaught] != 1 {
					t.Errorf("the log tells of it %d and %d times", kinds[api.AuditSinkBehind], kinds[api.AuditSinkCaught])
				}
			})
		})
	}
}

// A sink that is not required closes nothing.
func TestOthersDoNotClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		s.fill(9)
		m := &memory{receiver: newReceiver(), lose: true, fail: func([]Event) error { return errDown }}
		set := s.open("one", Spec{Name: "m", Sink: m, Timeout: time.Second})
		stop := s.run(set)
		pass(time.Hour)
		if err := set.Behind(); err != nil {
			t.Error(err)
		}
		if st := set.Status()[0]; st.Entries != 9 || st.Age < time.Hour-watchEvery-time.Second || !errors.Is(st.LastError, errDown) || st.Behind {
			t.Errorf("status %+v", st)
		}
		stop()
	})
}

// What somebody wrote into the store is not passed on as the truth.
func TestForgedEntriesAreNotDelivered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		s.fill(6)
		err := s.st.Update(t.Context(), func(tx store.Tx) error {
			rs, err := tx.List("audit/entry/", "", 10)
			if err != nil {
				return err
			}
			r := rs[len(rs)-1-3] // keys fall: this is entry 3
			forged := strings.Replace(string(r.Value), "allow", "denyy", 1)
			_, err = tx.Put(r.Key, []byte(forged), store.Any)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		m := &memory{receiver: newReceiver()}
		set := s.open("one", Spec{Name: "m", Sink: m, Timeout: time.Second, Required: true, MaxLag: time.Hour})
		stop := s.run(set)
		m.wait(t, 3)
		pass(time.Minute)
		if m.count() != 3 || set.Behind() == nil || !errors.Is(set.Status()[0].LastError, audit.ErrTampered) {
			t.Errorf("%d delivered; status %+v", m.count(), set.Status()[0])
		}
		stop()
	})
}

// endless is a log of large entries without an end.
type endless struct{ leaf json.RawMessage }

func (e endless) Authentic(_ context.Context, _ int64, limit int) ([]json.RawMessage, error) {
	out := make([]json.RawMessage, limit)
	for i := range out {
		out[i] = e.leaf
	}
	return out, nil
}
func (endless) Size(context.Context) (int64, error) { return 1 << 40, nil }
func (endless) Appended() <-chan struct{}           { return nil }
func (endless) Archived(context.Context) (audit.Archived, error) {
	return audit.Archived{}, nil
}

// However far behind a sink is, a batch is bounded.
func TestBatchesAreBounded(t *testing.T) {
	leaf, err := json.Marshal(api.AuditEntry{Object: strings.Repeat("x", audit.MaxEntry-200)})
	if err != nil {
		t.Fatal(err)
	}
	r := &runner{log: endless{leaf}, batch: maxBatch}
	batch, err := r.read(t.Context(), 0)
	if err != nil || len(batch) > maxBatchBytes/len(leaf)+readAhead {
		t.Errorf("%d events of %d bytes: %v", len(batch), len(leaf), err)
	}
	r.log = endless{json.RawMessage(`{"index":1}`)}
	if batch, err = r.read(t.Context(), 0); err != nil || len(batch) != maxBatch {
		t.Errorf("%d events: %v", len(batch), err)
	}
}
