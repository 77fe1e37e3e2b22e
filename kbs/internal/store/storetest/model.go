package storetest

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// againstModel runs random transactions, some of which fail, and compares all
// that each call returns with a model that is a map.
func againstModel(t *testing.T, f fixture) {
	seed := time.Now().UnixNano()
	defer func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	}()
	m := model{t: t, rnd: &dice{seed: seed}, records: map[string]modelRecord{}, last: map[string]store.Version{}}
	for range 150 {
		before := m.clone()
		refused := errors.New("refused")
		fail := m.rnd.IntN(4) == 0
		err := f.update(func(tx store.Tx) error {
			m = before.clone() // an engine may run it again
			for range 1 + m.rnd.IntN(8) {
				if err := m.step(tx); err != nil {
					return err
				}
			}
			if fail {
				return refused
			}
			return nil
		})
		if fail {
			m.records, m.last = before.records, before.last
			if errors.Is(err, refused) {
				err = nil
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		f.view(m.list)
		if t.Failed() {
			return
		}
	}
}

type modelRecord struct {
	value   string
	version store.Version
	expires int64 // seconds after noon; 0: never
}

type model struct {
	t       *testing.T
	rnd     *dice
	records map[string]modelRecord
	last    map[string]store.Version // ever
}

// dice throw the same again for the same seed.
type dice struct{ seed, thrown int64 }

// IntN returns a number from 0 to n-1.
func (d *dice) IntN(n int) int {
	d.thrown++
	raw := binary.LittleEndian.AppendUint64(nil, uint64(d.seed))
	sum := sha256.Sum256(binary.LittleEndian.AppendUint64(raw, uint64(d.thrown)))
	return int(binary.LittleEndian.Uint64(sum[:]) % uint64(n))
}

func (m model) clone() model {
	m.records, m.last = maps.Clone(m.records), maps.Clone(m.last)
	return m
}

func (m model) key() string {
	return []string{"a", "a/", "a/b", "a/b/c", "b", "b/1", "b/10", "b/2"}[m.rnd.IntN(8)]
}

// wanted is often the right version.
func (m model) wanted(key string) store.Version {
	switch m.rnd.IntN(5) {
	case 0:
		return store.Any
	case 1:
		return store.Absent
	case 2:
		return store.Version(m.rnd.IntN(5))
	default:
		return m.records[key].version // 0 if it is absent
	}
}

func (m model) step(tx store.Tx) error {
	switch m.rnd.IntN(6) {
	case 0:
		return m.get(tx)
	case 1:
		return m.list(tx)
	case 2, 3:
		return m.put(tx)
	case 4:
		return m.remove(tx)
	default:
		return m.sweep(tx)
	}
}

func (m model) get(tx store.Tx) error {
	key := m.key()
	r, err := tx.Get(key)
	want, ok := m.records[key]
	if !ok {
		return expect(err, store.ErrNotFound, "get %q", key)
	}
	if err != nil || string(r.Value) != want.value || r.Version != want.version {
		return fmt.Errorf("get %q: %+v, %w; want %+v", key, r, err, want)
	}
	return nil
}

func (m model) list(tx store.Tx) error {
	prefix, after, limit := []string{"", "a", "a/", "b/1", "c"}[m.rnd.IntN(5)], "", 1+m.rnd.IntN(10)
	if m.rnd.IntN(2) == 0 {
		after = m.key()
	}
	var want []string
	for _, key := range slices.Sorted(maps.Keys(m.records)) {
		if strings.HasPrefix(key, prefix) && key > after && len(want) < limit {
			want = append(want, fmt.Sprint(key, m.records[key].version, m.records[key].value))
		}
	}
	rs, err := tx.List(prefix, after, limit)
	var got []string
	for _, r := range rs {
		got = append(got, fmt.Sprint(r.Key, r.Version, string(r.Value)))
	}
	if err != nil || !slices.Equal(got, want) {
		return fmt.Errorf("list %q after %q, %d: %q, %w; want %q", prefix, after, limit, got, err, want)
	}
	return nil
}

func (m model) put(tx store.Tx) error {
	key, value := m.key(), bytes.Repeat([]byte{'x'}, m.rnd.IntN(50))
	want, have := m.wanted(key), m.records[key].version
	expires := int64(m.rnd.IntN(3) * (1 + m.rnd.IntN(100)))
	var v store.Version
	var err error
	if expires == 0 {
		v, err = tx.Put(key, value, want)
	} else {
		v, err = tx.PutUntil(key, value, want, noon.Add(time.Duration(expires)*time.Second))
	}
	if want != store.Any && want != have {
		return expect(err, store.ErrConflict, "put %q at %d, which is at %d", key, want, have)
	}
	if err != nil || have > 0 && v != have+1 || v <= m.last[key] {
		return fmt.Errorf("put %q at %d, which is at %d and was at %d: %d, %w", key, want, have, m.last[key], v, err)
	}
	m.records[key], m.last[key] = modelRecord{string(value), v, expires}, v
	return nil
}

func (m model) remove(tx store.Tx) error {
	key := m.key()
	want, have := m.wanted(key), m.records[key].version
	err := tx.Delete(key, want)
	switch {
	case have == 0:
		return expect(err, store.ErrNotFound, "delete %q", key)
	case want != store.Any && want != have:
		return expect(err, store.ErrConflict, "delete %q at %d, which is at %d", key, want, have)
	}
	delete(m.records, key)
	return err
}

func (m model) sweep(tx store.Tx) error {
	now := int64(m.rnd.IntN(200))
	var due []string
	for key, r := range m.records {
		if r.expires != 0 && r.expires < now && strings.HasPrefix(key, "b") {
			due = append(due, key)
		}
	}
	n, err := tx.DeleteExpired("b", noon.Add(time.Duration(now)*time.Second), 100)
	if err != nil || n != len(due) {
		return fmt.Errorf("sweep: %d, %w; want %q", n, err, due)
	}
	for _, key := range due {
		delete(m.records, key)
	}
	return nil
}

func expect(err, want error, format string, args ...any) error {
	if errors.Is(err, want) {
		return nil
	}
	return fmt.Errorf("%s: %w, want %w", fmt.Sprintf(format, args...), err, want)
}
