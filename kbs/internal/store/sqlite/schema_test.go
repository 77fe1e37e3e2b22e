package sqlite

import (
	"database/sql"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// A file of the first release opens: its records are there, and its deleted
// keys start above the versions they had.
func TestOpensTheFirstSchema(t *testing.T) {
	dir := t.TempDir()
	old := fmt.Sprintf(`PRAGMA application_id = %d; PRAGMA user_version = 1;
	CREATE TABLE records (key BLOB NOT NULL UNIQUE, version INTEGER NOT NULL, modified INTEGER NOT NULL, value BLOB NOT NULL) STRICT;
	CREATE TABLE tombstones (key BLOB NOT NULL PRIMARY KEY, version INTEGER NOT NULL) STRICT, WITHOUT ROWID;
	INSERT INTO records VALUES (CAST('a/kept' AS BLOB), 7, 1700000000000000, CAST('value' AS BLOB));
	INSERT INTO tombstones VALUES (CAST('a/gone' AS BLOB), 41), (CAST('a/other' AS BLOB), 3), (CAST('b/gone' AS BLOB), 1)`, applicationID)
	if err := execRaw(filepath.Join(dir, "kbs.db"), old); err != nil {
		t.Fatal(err)
	}
	st := openAt(t, dir)
	defer func() { _ = st.Close() }()
	err := st.Update(t.Context(), func(tx store.Tx) error {
		r, err := tx.Get("a/kept")
		if err != nil || r.Version != 7 || string(r.Value) != "value" || !r.Expires.IsZero() {
			t.Errorf("got %+v, %v", r, err)
		}
		for key, want := range map[string]store.Version{"a/gone": 42, "b/gone": 2, "c/new": 1} {
			if v, err := tx.Put(key, nil, store.Absent); err != nil || v != want {
				t.Errorf("%s starts at version %d (%v), want %d", key, v, err, want)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := count(t, filepath.Join(dir, "kbs.db"), "SELECT count(*) FROM sqlite_schema WHERE name = 'tombstones'"); n != 0 {
		t.Error("the tombstones stayed")
	}
}

// What is deleted leaves nothing behind but the floor of its folder.
func TestDeletedKeysLeaveNothing(t *testing.T) {
	dir := t.TempDir()
	st := openAt(t, dir)
	defer func() { _ = st.Close() }()
	for i := range 200 {
		key := fmt.Sprintf("session/%d", i)
		if err := write(st, key, "x"); err != nil {
			t.Fatal(err)
		}
		if err := st.Update(t.Context(), func(tx store.Tx) error { return tx.Delete(key, store.Any) }); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "kbs.db")
	if n := count(t, path, "SELECT (SELECT count(*) FROM records) * 1000 + (SELECT count(*) FROM floors)"); n != 1 {
		t.Errorf("records*1000+floors is %d, want 1", n)
	}
}

func count(t *testing.T, path, query string) (n int) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if err := db.QueryRow(query).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}
