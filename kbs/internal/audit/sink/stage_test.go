package sink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/audit"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/audit/ocsf"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/kek"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/keyring"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/sqlite"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

var source = ocsf.Source{Log: "vouchsafe-kbs/0123456789abcdef", Version: "test"}

// stage is a real log in a real store.
type stage struct {
	t   *testing.T
	st  store.Store
	log *audit.Log
}

func newStage(t *testing.T) *stage {
	t.Helper()
	st, err := sqlite.Open(filepath.Join(t.TempDir(), "kbs.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	by, err := kek.NewLocal(secret.Random(kek.Size))
	if err != nil {
		t.Fatal(err)
	}
	log, err := audit.Open(t.Context(), st, keyring.Open(st, by), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return &stage{t, st, log}
}

func (s *stage) fill(n int) {
	s.t.Helper()
	err := s.st.Update(s.t.Context(), func(tx store.Tx) error {
		for i := range n {
			e := api.AuditEntry{Kind: api.AuditRelease, Decision: "allow", Subject: "snp/1", Object: fmt.Sprintf("resource/a/b/%d", i)}
			if _, err := s.log.AppendTx(tx, e); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *stage) open(holder string, specs ...Spec) *Set {
	s.t.Helper()
	set, err := Open(s.t.Context(), Config{
		Store: s.st, Log: s.log, Recorder: s.log, Holder: holder, Now: time.Now, Logger: slog.New(slog.DiscardHandler),
	}, specs)
	if err != nil {
		s.t.Fatal(err)
	}
	return set
}

// run runs a set until the test, or the returned function, ends it.
func (s *stage) run(set *Set) (stop func()) {
	ctx, cancel := context.WithCancel(s.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		set.Run(ctx)
	}()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	s.t.Cleanup(stop)
	return stop
}

func (s *stage) cursor(name string) cursor {
	s.t.Helper()
	var c cursor
	err := s.st.View(s.t.Context(), func(tx store.Tx) (err error) {
		c, _, err = readCursor(tx, name)
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// kinds counts the entries of the log by kind.
func (s *stage) kinds() map[api.AuditKind]int {
	s.t.Helper()
	out := map[api.AuditKind]int{}
	size, err := s.log.Size(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	for raw, err := range s.log.All(s.t.Context(), size) {
		var e api.AuditEntry
		if err := errors.Join(err, json.Unmarshal(raw, &e)); err != nil {
			s.t.Fatal(err)
		}
		out[e.Kind]++
	}
	return out
}

// receiver keeps what arrived, and says when something did.
type receiver struct {
	mu      sync.Mutex
	seen    map[int64]int
	order   []int64 // of the first arrivals
	arrived chan struct{}
}

func newReceiver() *receiver {
	return &receiver{seen: map[int64]int{}, arrived: make(chan struct{}, 1)}
}

func (r *receiver) take(indexes ...int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, i := range indexes {
		if r.seen[i]++; r.seen[i] == 1 {
			r.order = append(r.order, i)
		}
	}
	select {
	case r.arrived <- struct{}{}:
	default:
	}
}

func (r *receiver) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.order)
}

// wait waits until n different entries arrived, and checks that they are the
// first n in order.
func (r *receiver) wait(t *testing.T, n int) {
	t.Helper()
	deadline := time.After(time.Minute)
	for r.count() < n {
		select {
		case <-r.arrived:
		case <-deadline:
			t.Fatalf("%d of %d entries arrived", r.count(), n)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, index := range r.order {
		if index != int64(i) {
			t.Fatalf("entry %d arrived as number %d: %v", index, i, r.order)
		}
	}
}

// memory is a sink that a test can make fail.
type memory struct {
	*receiver

	fail   func(batch []Event) error // after the events were taken or not: see lose
	lose   bool                      // a failing delivery takes nothing
	active func(int)
}

func (m *memory) Deliver(_ context.Context, batch []Event) error {
	if m.active != nil {
		m.active(1)
		defer m.active(-1)
	}
	var err error
	if m.fail != nil {
		err = m.fail(batch)
	}
	if err == nil || !m.lose {
		indexes := make([]int64, len(batch))
		for i, e := range batch {
			indexes[i] = e.Entry.Index
		}
		m.take(indexes...)
	}
	return err
}

func (m *memory) Close() error { return nil }
