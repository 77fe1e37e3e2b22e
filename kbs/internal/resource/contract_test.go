package resource_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/kek"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/resource"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/resource/backendtest"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/sqlite"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

func builtin(t *testing.T) resource.Backend {
	t.Helper()
	st, err := sqlite.Open(filepath.Join(t.TempDir(), "kbs.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	key, err := kek.NewLocal(secret.Random(kek.Size))
	if err != nil {
		t.Fatal(err)
	}
	return resource.NewBuiltin(resource.Config{Store: store.Scope(st, "t/x/"), Keys: key, Now: time.Now})
}

func TestBuiltin(t *testing.T) {
	backendtest.Run(t, func(t *testing.T) backendtest.Backend { return backendtest.Backend{Backend: builtin(t)} })
}

// Mounts keep the contract of what they mount.
func TestMounted(t *testing.T) {
	backendtest.Run(t, func(t *testing.T) backendtest.Backend {
		other := builtin(t)
		m, err := resource.NewMounts(
			resource.Mount{Backend: builtin(t)},
			resource.Mount{Name: "one", Prefix: "many/", Backend: other},
			resource.Mount{Name: "two", Prefix: "repo/type/", Backend: other},
		)
		if err != nil {
			t.Fatal(err)
		}
		return backendtest.Backend{Backend: m}
	})
}
