package tenant_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/kek"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/sqlite"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/tenant"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time {
	return time.Unix(1_800_000_000, 0).Add(time.Duration(c.ahead.Load()))
}
func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

func openStore(t testing.TB) store.Store {
	t.Helper()
	st, err := sqlite.Open(filepath.Join(t.TempDir(), "kbs.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	return st
}

func quiet(store.Tx, tenant.Record) error { return nil }

func record(name string, version int64) tenant.Record {
	return tenant.Record{Tenant: api.Tenant{Name: name, Version: version}}
}

func TestNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"a": true, "team-a": true, "0": true, strings.Repeat("a", 40): true,
		"": false, "-a": false, "a-": false, "A": false, "a/b": false, "a.b": false, "..": false, "a b": false, "ä": false, "a\n": false, strings.Repeat("a", 41): false,
	} {
		if err := tenant.CheckName(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestRecords(t *testing.T) {
	st, c := openStore(t), &clock{}
	r := tenant.Open(st, c.now)
	put := func(rec tenant.Record) (tenant.Record, error) { return r.Put(t.Context(), rec, quiet) }
	a := record("a", 0)
	a.Hosts, a.Approvals = []string{"a.example", "a2.example"}, []string{"policy.*", "resource.delete"}
	stored, err := put(a)
	if err != nil || stored.Version != 1 || stored.State != api.TenantActive || stored.Created.IsZero() {
		t.Fatalf("%+v: %v", stored, err)
	}
	taken := record("b", 0)
	taken.Hosts = []string{"a2.example"}
	frozen := record(tenant.Default, 0)
	frozen.State = api.TenantSuspended
	for name, bad := range map[string]struct {
		rec  tenant.Record
		want error
	}{
		"exists":           {record("a", 0), store.ErrConflict},
		"stale":            {record("a", 7), store.ErrConflict},
		"name":             {record("A", 0), tenant.ErrName},
		"host of another":  {taken, tenant.ErrRecord},
		"default sleeps":   {frozen, tenant.ErrRecord},
		"state":            {tenant.Record{Tenant: api.Tenant{Name: "x", State: api.TenantDeleting}}, tenant.ErrRecord},
		"host with a port": {tenant.Record{Tenant: api.Tenant{Name: "x", Hosts: []string{"x:1"}}}, tenant.ErrRecord},
		"upper-case host":  {tenant.Record{Tenant: api.Tenant{Name: "x", Hosts: []string{"X.example"}}}, tenant.ErrRecord},
		"address":          {tenant.Record{Tenant: api.Tenant{Name: "x", Hosts: []string{"127.0.0.1"}}}, tenant.ErrRecord},
		"wildcard":         {tenant.Record{Tenant: api.Tenant{Name: "x", Hosts: []string{"*.example"}}}, tenant.ErrRecord},
		"mark":             {tenant.Record{Tenant: api.Tenant{Name: "x", Approvals: []string{"policy"}}}, tenant.ErrRecord},
		"quota":            {tenant.Record{Tenant: api.Tenant{Name: "x", Quotas: api.TenantQuotas{Bytes: -2}}}, tenant.ErrRecord},
	} {
		if _, err := put(bad.rec); !errors.Is(err, bad.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for host, want := range map[string]string{
		"a.example": "a", "A.EXAMPLE": "a", "a.example:8080": "a", "a.example.": "a", "a2.example.:1": "a",
		"b.example": "", "x.a.example": "", "": "", "[::1]:80": "", "a.example:80:80": "", "a.example\x00": "",
	} {
		if got, err := r.OfHost(t.Context(), host); got != want || err != nil {
			t.Errorf("host %q: %q, %v", host, got, err)
		}
	}
	for action, want := range map[string]bool{"policy.put": true, "policy.delete": true, "resource.delete": true, "resource.put": false, "policyx.put": false} {
		if stored.Marks(action) != want {
			t.Errorf("%s: %v", action, !want)
		}
	}
	if !(tenant.Record{Tenant: api.Tenant{Approvals: []string{"*"}}}).Marks("keys.rotate") {
		t.Error("* is all")
	}
	all, err := r.List(t.Context())
	if err != nil || len(all) != 2 || all[0].Name != "a" || all[1].Name != tenant.Default {
		t.Errorf("%+v: %v", all, err)
	}
}

// A change is there at once where it was made, and within a second on every
// other replica; a suspended tenant is as unknown as one that never was.
func TestReplicas(t *testing.T) {
	st, c := openStore(t), &clock{}
	here, there := tenant.Open(st, c.now), tenant.Open(st, c.now)
	lookup := func(r *tenant.Registry, want error) {
		t.Helper()
		if _, err := r.Lookup(t.Context(), "a"); !errors.Is(err, want) || (want == nil && err != nil) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	lookup(here, tenant.ErrUnknown)
	lookup(there, tenant.ErrUnknown)
	if _, err := here.Put(t.Context(), record("a", 0), quiet); err != nil {
		t.Fatal(err)
	}
	lookup(here, nil)
	c.advance(time.Second)
	lookup(there, nil)
	asleep := record("a", 1)
	asleep.State = api.TenantSuspended
	if _, err := here.Put(t.Context(), asleep, quiet); err != nil {
		t.Fatal(err)
	}
	lookup(here, tenant.ErrUnknown)
	c.advance(time.Second)
	lookup(there, tenant.ErrUnknown)
	failed := errors.New("no entry")
	if _, err := here.Put(t.Context(), record("a", 2), func(store.Tx, tenant.Record) error { return failed }); !errors.Is(err, failed) {
		t.Error(err)
	}
	lookup(here, tenant.ErrUnknown) // a change without an entry is none
}

// Deleting destroys all of one tenant and nothing of another, in batches, and
// goes on where it was cut short.
func TestDelete(t *testing.T) {
	st, c := openStore(t), &clock{}
	r := tenant.Open(st, c.now)
	const records = 300
	for _, name := range []string{"a", "a-b", "b"} {
		if _, err := r.Put(t.Context(), record(name, 0), quiet); err != nil {
			t.Fatal(err)
		}
		err := tenant.Scope(st, name).Update(t.Context(), func(tx store.Tx) error {
			for i := range records {
				if _, err := tx.Put(fmt.Sprintf("k/%d", i), []byte("v"), store.Absent); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	count := func(name string) (n int) {
		err := tenant.Scope(st, name).View(t.Context(), func(tx store.Tx) error {
			all, err := tx.List("", "", 10*records)
			n = len(all)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if _, err := r.Condemn(t.Context(), "a", -1, quiet); !errors.Is(err, tenant.ErrInUse) {
		t.Errorf("an active tenant: %v", err)
	}
	if err := r.Destroy(t.Context(), "a", quiet); !errors.Is(err, tenant.ErrInUse) || count("a") != records {
		t.Errorf("an active tenant: %v", err)
	}
	asleep := record("a", 1)
	asleep.State = api.TenantSuspended
	if _, err := r.Put(t.Context(), asleep, quiet); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Condemn(t.Context(), "a", 1, quiet); !errors.Is(err, store.ErrConflict) {
		t.Errorf("stale: %v", err)
	}
	if _, err := r.Condemn(t.Context(), "a", 2, quiet); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Put(t.Context(), record("a", -1), quiet); !errors.Is(err, store.ErrConflict) {
		t.Errorf("back from the dead: %v", err)
	}
	// Its owner goes away after the first batch, and comes back.
	ctx, cancel := context.WithCancel(t.Context())
	cut := tenant.Open(&cutting{Store: st, after: 2, cut: cancel}, c.now)
	if err := cut.Destroy(ctx, "a", quiet); !errors.Is(err, context.Canceled) {
		t.Errorf("cut short: %v", err)
	}
	if n := count("a"); n == 0 || n == records {
		t.Errorf("%d records after a cut", n)
	}
	if err := r.Destroy(t.Context(), "a", quiet); err != nil {
		t.Fatal(err)
	}
	if count("a") != 0 || count("a-b") != records || count("b") != records {
		t.Errorf("left: %d, %d, %d", count("a"), count("a-b"), count("b"))
	}
	if _, err := r.Get(t.Context(), "a"); !errors.Is(err, tenant.ErrUnknown) {
		t.Error(err)
	}
	if _, err := r.Condemn(t.Context(), "never", -1, quiet); !errors.Is(err, store.ErrNotFound) {
		t.Error(err)
	}
}

// cutting cancels a context after some transactions.
type cutting struct {
	store.Store

	after int
	cut   func()
}

func (s *cutting) Update(ctx context.Context, f func(store.Tx) error) error {
	if s.after--; s.after == 0 {
		s.cut()
	}
	return s.Store.Update(ctx, f)
}

func TestPool(t *testing.T) {
	built := map[string]int{}
	var fail error
	p := tenant.NewPool(2, func(_ context.Context, rec tenant.Record) (string, error) {
		built[rec.Name]++
		return fmt.Sprintf("%s@%d", rec.Name, rec.Version), fail
	})
	get := func(name string, version int64, want string) {
		t.Helper()
		if got, err := p.Get(t.Context(), record(name, version)); got != want || err != nil {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
	}
	get(tenant.Default, 0, "default@0")
	get("a", 1, "a@1")
	get("a", 1, "a@1")
	get("a", 2, "a@2") // changed
	get("b", 1, "b@1")
	get("a", 2, "a@2") // b is older now
	get("c", 1, "c@1")
	get("a", 2, "a@2")
	get(tenant.Default, 0, "default@0")
	get("b", 1, "b@1")
	if built["a"] != 2 || built["b"] != 2 || built[tenant.Default] != 1 || len(p.Held()) != 3 {
		t.Errorf("built %v, holds %v", built, p.Held())
	}
	fail = errors.New("no store")
	if _, err := p.Get(t.Context(), record("d", 1)); !errors.Is(err, fail) {
		t.Error(err)
	}
	fail = nil
	get("d", 1, "d@1")
}

// What is wrapped for one tenant opens for no other, and for nobody.
func TestWrapper(t *testing.T) {
	w, err := kek.NewLocal(secret.Random(kek.Size))
	if err != nil {
		t.Fatal(err)
	}
	key := secret.Random(kek.Size)
	wrapped, err := tenant.Wrapper(w, "a").Wrap(t.Context(), key, []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	if back, err := tenant.Wrapper(w, "a").Unwrap(t.Context(), wrapped, []byte("x")); err != nil || !back.Equal(key) {
		t.Error(err)
	}
	for _, other := range []kek.Wrapper{tenant.Wrapper(w, "b"), tenant.Wrapper(w, "a\x00x"), w} {
		if _, err := other.Unwrap(t.Context(), wrapped, []byte("x")); !errors.Is(err, kek.ErrUnwrap) {
			t.Errorf("%v", err)
		}
	}
}

func TestMeter(t *testing.T) {
	st := openStore(t)
	a := tenant.Scope(tenant.Meter(st, "a", api.TenantQuotas{Resources: 2, Bytes: 10}), "a")
	b := tenant.Scope(tenant.Meter(st, "b", api.TenantQuotas{}), "b")
	put := func(s store.Store, keysAndValues ...string) error {
		return s.Update(t.Context(), func(tx store.Tx) error {
			for i := 0; i < len(keysAndValues); i += 2 {
				if _, err := tx.Put(keysAndValues[i], []byte(keysAndValues[i+1]), store.Any); err != nil {
					return err
				}
			}
			return nil
		})
	}
	used := func(name string, want api.TenantUsage) {
		t.Helper()
		if got, err := tenant.Usage(t.Context(), st, name); err != nil || got != want {
			t.Errorf("%s uses %+v (%v), want %+v", name, got, err, want)
		}
	}
	for _, step := range []struct {
		st   store.Store
		do   []string
		over bool
		a, b api.TenantUsage
	}{
		{a, []string{"resource/head/1", "x", "resource/value/1", "12345"}, false, api.TenantUsage{Resources: 1, Bytes: 5}, api.TenantUsage{}},
		{a, []string{"resource/head/1", "y", "resource/value/1", "123"}, false, api.TenantUsage{Resources: 1, Bytes: 3}, api.TenantUsage{}},
		{a, []string{"resource/head/2", "y", "resource/value/2", "12345678"}, true, api.TenantUsage{Resources: 1, Bytes: 3}, api.TenantUsage{}},
		{a, []string{"resource/head/2", "y", "resource/value/2", "1234567"}, false, api.TenantUsage{Resources: 2, Bytes: 10}, api.TenantUsage{}},
		{a, []string{"resource/head/3", "y"}, true, api.TenantUsage{Resources: 2, Bytes: 10}, api.TenantUsage{}},
		{a, []string{"resource/value/2", "1"}, false, api.TenantUsage{Resources: 2, Bytes: 4}, api.TenantUsage{}},
		{a, []string{"session/1", "long long long long"}, false, api.TenantUsage{Resources: 2, Bytes: 4}, api.TenantUsage{}},
		{b, []string{"policy/head/x", "1", "refvalue/name/y", "2", "resource/head/1", "z"}, false, api.TenantUsage{Resources: 2, Bytes: 4}, api.TenantUsage{Policies: 1, RefValues: 1, Resources: 1}},
	} {
		if err := put(step.st, step.do...); errors.Is(err, tenant.ErrQuota) != step.over || (!step.over && err != nil) {
			t.Errorf("%v: %v", step.do, err)
		}
		used("a", step.a)
		used("b", step.b)
	}
	err := a.Update(t.Context(), func(tx store.Tx) error { return tx.Delete("resource/head/1", store.Any) })
	if err != nil {
		t.Fatal(err)
	}
	used("a", api.TenantUsage{Resources: 1, Bytes: 4})
	// Who is above a new limit can still get below it.
	tight := tenant.Scope(tenant.Meter(st, "a", api.TenantQuotas{Bytes: 1}), "a")
	if err := put(tight, "resource/value/2", "", "resource/value/1", "12"); err != nil {
		t.Errorf("smaller: %v", err)
	}
	used("a", api.TenantUsage{Resources: 1, Bytes: 2})
	err = a.Update(t.Context(), func(tx store.Tx) error {
		_, err := tx.PutUntil("refvalue/name/x", nil, store.Any, time.Now())
		return err
	})
	if err == nil {
		t.Error("a counted record may vanish by itself")
	}
}
