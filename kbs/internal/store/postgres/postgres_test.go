package postgres

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/postgrestest"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/sqlite"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/storetest"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if err := postgrestest.StopShared(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func open(t testing.TB, dsn string) store.Store {
	t.Helper()
	st, err := Open(t.Context(), dsn, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func fresh(t testing.TB) (*postgrestest.Server, string) {
	t.Helper()
	s := postgrestest.Shared(t)
	return s, s.NewDatabase(t)
}

func TestContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		s, db := fresh(t)
		return open(t, s.DSN(db))
	})
}

func TestDurable(t *testing.T) {
	s, db := fresh(t)
	storetest.RunDurable(t, func(t *testing.T, _ string) store.Store { return open(t, s.DSN(db)) })
}

func TestArchive(t *testing.T) {
	here := func(t *testing.T) store.Store {
		s, db := fresh(t)
		return open(t, s.DSN(db))
	}
	there := func(t *testing.T) store.Store {
		st, err := sqlite.Open(filepath.Join(t.TempDir(), "kbs.db"))
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	for name, open := range map[string][2]func(*testing.T) store.Store{"from SQLite": {there, here}, "to SQLite": {here, there}, "to PostgreSQL": {here, here}} {
		t.Run(name, func(t *testing.T) { storetest.RunArchive(t, open[0], open[1]) })
	}
}

func BenchmarkStore(b *testing.B) {
	storetest.Bench(b, func(b *testing.B) store.Store {
		s, db := fresh(b)
		return open(b, s.DSN(db))
	})
}

// What replicas that all append to one log cost each other.
func BenchmarkReplicas(b *testing.B) {
	storetest.BenchReplicas(b, func(b *testing.B, n int) []store.Store {
		s, db := fresh(b)
		var all []store.Store
		for range n {
			all = append(all, open(b, s.DSN(db)))
		}
		return all
	})
}
