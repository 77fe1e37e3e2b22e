package resource

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/kek"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// disk is what a thief of the store does to it, outside of every scope.
type disk struct {
	t  testing.TB
	tx store.Tx
}

func (d disk) read(key string) []byte {
	d.t.Helper()
	r, err := d.tx.Get(key)
	if err != nil {
		d.t.Fatalf("%s: %v", key, err)
	}
	return r.Value
}

func (d disk) write(key string, value []byte) {
	d.t.Helper()
	if _, err := d.tx.Put(key, value, store.Any); err != nil {
		d.t.Fatal(err)
	}
}

func (d disk) copy(to, from string) { d.write(to, d.read(from)) }

// A thief of the store, who can write to it, must not get the broker to hand
// out one secret in the place of another, an old one in the place of a new one,
// or one without its binding.
func TestTamperedRecordsDoNotOpen(t *testing.T) {
	const (
		ra, rb = "repo/type/a", "repo/type/b"
		ha, hb = "t/a/" + prefixHead + ra, "t/a/" + prefixHead + rb
		va, vb = "t/a/" + prefixValue + ra + "/", "t/a/" + prefixValue + rb + "/"
		other  = "t/b/"
	)
	var oldHead, oldValue []byte // of a, before its second value
	head := func(d disk, change func(*record)) {
		r, err := parseRecord(bytes.Clone(d.read(ha)))
		if err != nil {
			d.t.Fatal(err)
		}
		change(&r)
		d.write(ha, r.marshal())
	}
	replace := func(from, to string) func(disk) {
		return func(d disk) {
			head(d, func(r *record) {
				if !bytes.Contains(r.text, []byte(from)) {
					d.t.Fatalf("the head has no %q: %s", from, r.text)
				}
				r.text = bytes.ReplaceAll(r.text, []byte(from), []byte(to))
			})
		}
	}
	tests := map[string]func(disk){
		"value moved from another path":    func(d disk) { d.copy(va+"2", vb+"2") },
		"head moved from another path":     func(d disk) { d.copy(ha, hb) },
		"all moved from another path":      func(d disk) { d.copy(ha, hb); d.copy(va+"2", vb+"2") },
		"older value brought back":         func(d disk) { d.write(va+"2", oldValue) },
		"older head brought back":          func(d disk) { d.write(ha, oldHead) },
		"older head, whose value is there": func(d disk) { d.write(ha, oldHead); d.write(va+"1", oldValue) },
		"all moved from another tenant":    func(d disk) { d.copy(ha, other+prefixHead+ra); d.copy(va+"2", other+prefixValue+ra+"/2") },
		"value moved from another tenant":  func(d disk) { d.copy(va+"2", other+prefixValue+ra+"/2") },
		"value gone":                       func(d disk) { _ = d.tx.Delete(va+"2", store.Any) },
		"value empty":                      func(d disk) { d.write(va+"2", nil) },
		"value cut":                        func(d disk) { v := d.read(va + "2"); d.write(va+"2", v[:len(v)-1]) },
		"head empty":                       func(d disk) { d.write(ha, nil) },
		"head rewritten as it was":         func(d disk) { d.copy(ha, ha) },
		"binding to the image taken away":  replace(`"images":["reg.example/app"]`, `"images":[]`),
		"another image":                    replace("reg.example/app", "evil.example/ap"),
		"longer life":                      replace("2032-", "2099-"),
		"author altered":                   replace("alice", "mallo"),
		"time altered":                     replace("2031-02-03", "2031-02-04"),
		"size altered":                     replace(`"size":15`, `"size":16`),
		"tag altered":                      func(d disk) { head(d, func(r *record) { r.tag[3] ^= 1 }) },
		"data keys swapped": func(d disk) {
			head(d, func(r *record) { r.keys[0].wrapped, r.keys[1].wrapped = r.keys[1].wrapped, r.keys[0].wrapped })
		},
		"data key gone":                     func(d disk) { head(d, func(r *record) { r.keys = r.keys[:1] }) },
		"data key under an unknown KEK":     func(d disk) { head(d, func(r *record) { r.keys[1].wrapped[2] ^= 1 }) },
		"data key of an altered KEK's name": func(d disk) { head(d, func(r *record) { r.keys[1].wrapped[0] = 200 }) },
		"former version made the current":   replace(`"version":1,`, `"version":2,`),
	}
	for name, do := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c := putOf(t, ra, "old secret of a")
			c.Meta = &api.ResourceMeta{Images: []string{"reg.example/app"}, Expires: clock.AddDate(1, 0, 0)}
			if _, err := w.Apply(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			w.tamper(t, func(d disk) { oldHead, oldValue = d.read(ha), d.read(va+"1") })
			neighbour := world{Builtin: w.tenant(t, "b"), base: w.base}
			w.put(t, ra, "new secret of a")
			for _, v := range []string{"old secret of b", "new secret of b"} { // same lengths and versions as a
				w.put(t, rb, v)
				neighbour.put(t, ra, v)
			}
			w.want(t, ra, "new secret of a")
			w.tamper(t, do)
			if got, err := w.Get(context.Background(), path(t, ra), 0); !errors.Is(err, ErrSealed) {
				t.Fatalf("get: %q, %v; want ErrSealed", got.Value.Reveal(), err)
			}
			// Nor does a later change put its seal under what was altered.
			for _, c := range []Change{
				{Op: OpMeta, Path: path(t, ra), Want: -1, Meta: &api.ResourceMeta{}},
				{Op: OpRollback, Path: path(t, ra), Want: -1, Version: 1},
			} {
				if _, err := w.Apply(t.Context(), c); err == nil && !valueOnly(name) {
					t.Errorf("change %d was made", c.Op)
				}
			}
			if _, err := w.Apply(t.Context(), putOf(t, ra, "over it")); err == nil && !valueOnly(name) {
				t.Error("a value was stored over it")
			}
			w.want(t, rb, "new secret of b")
			neighbour.want(t, ra, "new secret of b")
			if _, err := w.Apply(t.Context(), Change{Op: OpDelete, Path: path(t, ra), Want: -1}); err != nil {
				t.Fatalf("the damaged resource cannot be deleted: %v", err)
			}
			w.put(t, ra, "repaired")
			w.want(t, ra, "repaired")
		})
	}
}

// valueOnly reports whether a test leaves the head whole: then what is said
// about the resource is still to be trusted, and a new value mends it.
func valueOnly(test string) bool {
	return bytes.Contains([]byte(test), []byte("value "))
}

func (w world) tamper(t testing.TB, do func(disk)) {
	t.Helper()
	err := w.base.Update(context.Background(), func(tx store.Tx) error {
		do(disk{t, tx})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// An old version is as safe as the current one.
func TestTamperedFormerVersion(t *testing.T) {
	w := newWorld(t)
	for _, v := range []string{"one", "two", "six"} {
		w.put(t, "a/b/c", v)
	}
	const at = "t/a/" + prefixValue + "a/b/c/"
	w.tamper(t, func(d disk) { d.copy(at+"1", at+"2") })
	if _, err := w.Get(t.Context(), path(t, "a/b/c"), 1); !errors.Is(err, ErrSealed) {
		t.Errorf("a former value in the place of another: %v", err)
	}
	w.want(t, "a/b/c", "six")
	if _, err := w.Apply(t.Context(), Change{Op: OpRollback, Path: path(t, "a/b/c"), Want: -1, Version: 1}); !errors.Is(err, ErrSealed) {
		t.Errorf("rolled back to it: %v", err)
	}
}

// Under another master key nothing opens.
func TestAnotherMasterKey(t *testing.T) {
	w := newWorld(t)
	w.put(t, "a/b/c", "v")
	stranger, err := kek.NewLocal(secret.Random(kek.Size))
	if err != nil {
		t.Fatal(err)
	}
	b := NewBuiltin(Config{Store: w.Store, Keys: stranger, Now: now})
	if _, err := b.Get(t.Context(), path(t, "a/b/c"), 0); !errors.Is(err, ErrSealed) {
		t.Error(err)
	}
}

func FuzzParseRecord(f *testing.F) {
	f.Add(record{text: []byte(`{"version":1,"versions":[{"version":1}]}`), tag: make([]byte, sizeTag), keys: []wrappedKey{{1, []byte("k")}, {7, nil}}}.marshal())
	f.Add([]byte{1, 0, 0, 0, 0})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRecord(b)
		if err != nil {
			return
		}
		if got := r.marshal(); !bytes.Equal(got, b) {
			t.Fatalf("accepted %x but it means %x", b, got)
		}
		if h, err := r.parseHead(); err == nil {
			_, _ = h.find(0)
			_ = h.full("a/b/c")
		}
		_, _ = r.key(1)
	})
}

// Whatever stands in the place of a sealed value, only the seal opens.
func FuzzOpenValue(f *testing.F) {
	key, err := newDataKey(secret.Random(kek.Size))
	if err != nil {
		f.Fatal(err)
	}
	v := version{Version: 3, Size: 1}
	sealed := key.sealValue(secret.Copy([]byte("v")), "a/b/c", v)
	f.Add(sealed)
	f.Add(sealed[:len(sealed)-1])
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := key.openValue(b, "a/b/c", v); err == nil && !bytes.Equal(b, sealed) {
			t.Fatal("a seal came out of nowhere")
		}
	})
}
