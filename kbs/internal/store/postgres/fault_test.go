package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/postgrestest"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/storetest"
)

func closing(t testing.TB, st store.Store) store.Store {
	t.Helper()
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return st
}

// unavailable checks that an error is one that callers may answer with 503.
func unavailable(t testing.TB, err error) {
	t.Helper()
	if !errors.Is(err, store.ErrUnavailable) || fault.CodeOf(err) != fault.Unavailable {
		t.Errorf("trouble of the database is %v (%v)", err, errors.Unwrap(err))
	}
}

// A connection cut at any point of an update leaves nothing or all of it, and
// is mostly not even noticed.
func TestCutAnywhere(t *testing.T) {
	s, db := fresh(t)
	p := s.NewProxy(t)
	st := closing(t, open(t, p.DSN(db)))
	if err := storetest.Link(t.Context(), st, "first"); err != nil {
		t.Fatal(err)
	}
	acknowledged := map[string]bool{"first": true}
	lost := 0
	for step := range 30 {
		name := fmt.Sprintf("cut-%d", step)
		p.CutAfter(step)
		if err := storetest.Link(t.Context(), st, name); err == nil {
			acknowledged[name] = true
		} else {
			unavailable(t, err)
			lost++
		}
		p.CutAfter(step / 3)
		err := st.View(t.Context(), func(tx store.Tx) error { _, err := tx.Get("chain/head"); return err })
		if err != nil {
			t.Errorf("a view behind a cut connection: %v", err)
		}
	}
	if cuts := p.CutAfter(-1); cuts < 20 || lost == 0 || lost > 10 {
		t.Errorf("%d cuts, %d updates lost", cuts, lost)
	}
	storetest.CheckChain(t, closing(t, open(t, s.DSN(db))), acknowledged)
}

// Writers of two replicas, of which one has its connections cut all the time
// while the server is killed and started again.
func TestCrashes(t *testing.T) {
	s := postgrestest.Start(t) // not the shared one
	db := s.NewDatabase(t)
	p := s.NewProxy(t)
	a, b := closing(t, open(t, s.DSN(db))), closing(t, open(t, p.DSN(db)))
	acknowledged := map[string]bool{}
	var mu sync.Mutex
	progress := make(chan struct{}, 1)
	note := func(name string) {
		mu.Lock()
		acknowledged[name] = true
		mu.Unlock()
		select {
		case progress <- struct{}{}:
		default:
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for name, st := range map[string]store.Store{"a": a, "b": b} {
		wg.Go(func() {
			storetest.WriteChain(ctx, st, name, note, func(err error) bool { unavailable(t, err); return true })
		})
	}
	wait := func(updates int) {
		for range updates {
			select {
			case <-progress:
			case <-time.After(time.Minute):
				t.Fatal("no update for a minute")
			}
		}
	}
	for range 3 {
		wait(20)
		p.Cut()
		wait(20)
		if err := s.Crash(); err != nil {
			t.Error(err)
		}
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
	}
	wait(20)
	stop()
	wg.Wait()
	storetest.CheckChain(t, a, acknowledged)
}

// While the server is away, callers learn so soon; when it is back, nobody has
// to be told.
func TestServerAway(t *testing.T) {
	s := postgrestest.Start(t)
	st := closing(t, open(t, s.DSN(s.NewDatabase(t))))
	if err := s.Crash(); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	unavailable(t, storetest.Link(t.Context(), st, "x"))
	unavailable(t, st.View(t.Context(), func(tx store.Tx) error { _, err := tx.Get("x"); return err }))
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("it took %v to learn that the server is away", took)
	}
	if _, err := Open(t.Context(), s.DSN("test1"), Options{}); err == nil {
		t.Error("opened without a server")
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	if err := storetest.Link(t.Context(), st, "x"); err != nil {
		t.Error(err)
	}
}

// stranger writes to the tables without the lock of the writers.
func stranger(t testing.TB, s *postgrestest.Server, db string) *pgx.Conn {
	t.Helper()
	c, err := pgx.Connect(t.Context(), s.DSN(db))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

// A transaction that a stranger's makes unserializable runs again.
func TestSerializationFailure(t *testing.T) {
	for name, interfere := range map[string]string{
		"write after write": "UPDATE kbs_records SET value = 'theirs' WHERE key = 'a'",
		"write skew":        "SELECT * FROM kbs_records WHERE key = 'a'; UPDATE kbs_records SET value = 'theirs' WHERE key = 'b'",
	} {
		t.Run(name, func(t *testing.T) {
			s, db := fresh(t)
			st := closing(t, open(t, s.DSN(db)))
			other := stranger(t, s, db)
			put := func(key, value string) func(store.Tx) error {
				return func(tx store.Tx) error { _, err := tx.Put(key, []byte(value), store.Any); return err }
			}
			for _, key := range []string{"a", "b"} {
				if err := st.Update(t.Context(), put(key, "ours")); err != nil {
					t.Fatal(err)
				}
			}
			runs := 0
			var seen []string
			err := st.Update(t.Context(), func(tx store.Tx) error {
				r, err := tx.Get("b")
				if err != nil {
					return err
				}
				seen = append(seen, string(r.Value))
				if runs++; runs == 1 {
					if _, err := other.Exec(t.Context(), "BEGIN ISOLATION LEVEL SERIALIZABLE; "+interfere+"; COMMIT", pgx.QueryExecModeSimpleProtocol); err != nil {
						return err
					}
				}
				return put("a", "after "+string(r.Value))(tx)
			})
			if err != nil || runs != 2 {
				t.Fatalf("%d runs: %v", runs, err)
			}
			err = st.View(t.Context(), func(tx store.Tx) error {
				r, err := tx.Get("a")
				if string(r.Value) != "after "+seen[1] {
					t.Errorf("a is %q after runs that saw %q", r.Value, seen)
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

// Whoever is always in the way is not waited for without end.
func TestGivesUp(t *testing.T) {
	s, db := fresh(t)
	st := closing(t, open(t, s.DSN(db)))
	if err := storetest.Link(t.Context(), st, "first"); err != nil {
		t.Fatal(err)
	}
	other := stranger(t, s, db)
	runs := 0
	err := st.Update(t.Context(), func(tx store.Tx) error {
		runs++
		if _, err := tx.Get("chain/head"); err != nil {
			return err
		}
		if _, err := other.Exec(t.Context(), "UPDATE kbs_records SET value = 'theirs' WHERE key = 'chain/head'"); err != nil {
			return err
		}
		_, err := tx.Put("chain/head", nil, store.Any)
		return err
	})
	unavailable(t, err)
	if runs != attempts {
		t.Errorf("%d runs, want %d", runs, attempts)
	}
}

// A replica that hangs in a transaction loses the lock, and its change.
func TestHangingReplica(t *testing.T) {
	s, db := fresh(t)
	hanging := closing(t, open(t, s.DSN(db)+"&idle_in_transaction_session_timeout=200"))
	other := closing(t, open(t, s.DSN(db)))
	began, released, ended := make(chan struct{}), make(chan struct{}), make(chan error)
	runs := 0
	go func() {
		ended <- hanging.Update(t.Context(), func(tx store.Tx) error {
			if runs++; runs == 1 {
				close(began)
				<-released
			}
			_, err := tx.Put("a", []byte("hanging"), store.Absent)
			return err
		})
	}()
	<-began
	err := other.Update(t.Context(), func(tx store.Tx) error { _, err := tx.Put("a", []byte("other"), store.Absent); return err })
	if err != nil {
		t.Errorf("the other replica: %v", err)
	}
	close(released)
	if err := <-ended; !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("the hanging replica: %v", err)
	}
	err = other.View(t.Context(), func(tx store.Tx) error {
		r, err := tx.Get("a")
		if string(r.Value) != "other" {
			t.Errorf("a is %q", r.Value)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// Replicas that start together make one schema, and one that is older than
// the schema does not start.
func TestSchema(t *testing.T) {
	s, db := fresh(t)
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			st, err := Open(t.Context(), s.DSN(db), Options{})
			if err != nil {
				t.Error(err)
				return
			}
			if err := storetest.Link(t.Context(), st, fmt.Sprint(i)); err != nil {
				t.Error(err)
			}
			_ = st.Close()
		})
	}
	wg.Wait()
	storetest.CheckChain(t, closing(t, open(t, s.DSN(db))), nil)
	s.Exec(t, db, fmt.Sprintf("UPDATE kbs_schema SET version = %d", len(steps)+1))
	if _, err := Open(t.Context(), s.DSN(db), Options{}); err == nil {
		t.Error("a newer schema was accepted")
	}
}
