package audit

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// Changes in the scopes of two tenants and outside of any make one chain.
func TestTenantsShareOneChain(t *testing.T) {
	w := newWorld(t)
	scopes := []store.Store{store.Scope(w.st, "t/red/"), store.Scope(store.Scope(w.st, "t/blue/"), "x/"), w.st}
	for i, name := range []string{"red", "blue", DefaultTenant} {
		rec := ForTenant(w.log, name)
		if _, err := rec.Append(t.Context(), api.AuditEntry{Kind: "release", Tenant: "forged"}); err != nil {
			t.Fatal(err)
		}
		err := scopes[i].Update(t.Context(), func(tx store.Tx) error {
			_, err := rec.AppendTx(tx, api.AuditEntry{Kind: "policy.put"})
			return errors.Join(err, first(tx.Put("change", []byte("x"), store.Absent)))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	entries, err := w.log.Entries(t.Context(), 0, 100)
	if err != nil || len(entries) != 6 {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	for i, want := range []string{"red", "red", "blue", "blue", "", ""} {
		var e api.AuditEntry
		if err := json.Unmarshal(entries[i], &e); err != nil || e.Tenant != want || e.Index != int64(i) {
			t.Errorf("entry %d: %+v, %v; want tenant %q", i, e, err, want)
		}
	}
	if _, err := w.verify(w.checkpoint(t), 6); err != nil {
		t.Fatal(err)
	}
}

func first(_ store.Version, err error) error { return err }
