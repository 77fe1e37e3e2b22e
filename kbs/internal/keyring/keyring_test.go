package keyring_test

import (
	"errors"
	"path/filepath"
	"sync"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/kek"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/keyring"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/sqlite"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

func local(t *testing.T) kek.Wrapper {
	t.Helper()
	w, err := kek.NewLocal(secret.Random(kek.Size))
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func openStore(t *testing.T) store.Store {
	t.Helper()
	st, err := sqlite.Open(filepath.Join(t.TempDir(), "kbs.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	return st
}

func TestReplicasShareOneKey(t *testing.T) {
	st, by := openStore(t), local(t)
	const replicas = 8
	keys := make([]secret.Bytes, replicas)
	var wg sync.WaitGroup
	for i := range replicas {
		wg.Go(func() {
			var err error
			keys[i], err = keyring.Open(st, by).LoadOrCreate(t.Context(), "token/1", func() (secret.Bytes, error) { return secret.Random(100), nil })
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, k := range keys[1:] {
		if !k.Equal(keys[0]) {
			t.Fatal("two replicas have two keys")
		}
	}
}

func TestAKeyOpensOnlyInItsPlaceAndUnderItsKEK(t *testing.T) {
	st, by := openStore(t), local(t)
	ring := keyring.Open(st, by)
	if err := ring.Put(t.Context(), "a", secret.Random(32)); err != nil {
		t.Fatal(err)
	}
	if _, err := keyring.Open(st, local(t)).Get(t.Context(), "a"); !errors.Is(err, kek.ErrUnwrap) {
		t.Errorf("under another key: %v", err)
	}
	err := st.Update(t.Context(), func(tx store.Tx) error {
		r, err := tx.Get("keyring/a")
		if err != nil {
			return err
		}
		_, err = tx.Put("keyring/b", r.Value, store.Absent)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ring.Get(t.Context(), "b"); !errors.Is(err, kek.ErrUnwrap) {
		t.Errorf("moved: %v", err)
	}
	if _, err := ring.Get(t.Context(), "c"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("absent: %v", err)
	}
	for _, name := range []string{"", "A", "a b", "/a"} {
		if err := ring.Put(t.Context(), name, secret.Random(32)); err == nil {
			t.Errorf("%q was taken", name)
		}
	}
}
