package refvalue

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/sqlite"
)

type clock struct{ time.Time }

func (c *clock) now() time.Time { return c.Time }

func newRegistry(t testing.TB) (*Registry, *clock) {
	t.Helper()
	st, err := sqlite.Open(filepath.Join(t.TempDir(), "kbs.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	c := &clock{time.Date(2031, 2, 3, 4, 5, 6, 7000, time.UTC)}
	return Open(st, c.now), c
}

func put(t testing.TB, r *Registry, v api.RefValue) api.RefValue {
	t.Helper()
	out, err := r.Put(context.Background(), v)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// What a policy compares with must be what was registered, to the byte.
func TestValuesKeepTheirTypes(t *testing.T) {
	r, c := newRegistry(t)
	for _, raw := range []string{
		`1`, `1.0`, `"1"`, `12345678901234567890123`, `1e2`, `true`, `[]`, `["abcde", "<&>"]`, "{ \"b\" : [1,\n2], \"a\":\"\u2028\" }", `"\u003c"`, ` 7 `, `""`,
	} {
		in := json.RawMessage(raw)
		got := put(t, r, api.RefValue{Name: "svn", Version: -1, Value: in, Author: "alice"})
		if !got.Time.Equal(c.Time) || got.Author != "alice" {
			t.Errorf("provenance of %s: %+v", raw, got)
		}
		in[0] = 'X' // the caller's slice stays the caller's
		q, err := r.Query(context.Background(), "svn")
		if err != nil || string(q) != raw {
			t.Errorf("registered %s, queried %s, %v", raw, q, err)
		}
		full, err := r.Get(context.Background(), "svn")
		if err != nil || string(full.Value) != raw || full.Version != got.Version || full.Author != "alice" || !full.Time.Equal(c.Time) {
			t.Errorf("registered %s, got %+v, %v", raw, full, err)
		}
	}
}

func TestExpiryIsEnforced(t *testing.T) {
	r, c := newRegistry(t)
	start := c.Time
	def := put(t, r, api.RefValue{Name: "default", Value: json.RawMessage(`1`)})
	if want := time.Date(2032, 2, 3, 4, 5, 6, 0, time.UTC); !def.Expires.Equal(want) {
		t.Errorf("expires %v, want %v", def.Expires, want)
	}
	put(t, r, api.RefValue{Name: "soon", Value: json.RawMessage(`1`), Expires: start.Add(time.Hour)})
	for _, tt := range []struct {
		after           time.Duration
		soon, byDefault bool
	}{
		{0, true, true}, {time.Hour - 2*time.Second, true, true}, {time.Hour, false, true}, {365*24*time.Hour - 2*time.Second, false, true}, {365 * 24 * time.Hour, false, false},
	} {
		c.Time = start.Add(tt.after)
		for name, want := range map[string]bool{"soon": tt.soon, "default": tt.byDefault} {
			v, err := r.Query(context.Background(), name)
			if err != nil || (v != nil) != want {
				t.Errorf("after %v, %s: %s, %v; want it: %v", tt.after, name, v, err, want)
			}
			if _, err := r.Get(context.Background(), name); err != nil {
				t.Errorf("an administrator no longer sees %s: %v", name, err)
			}
		}
	}
	for at, want := range map[time.Time]bool{def.Expires: false, def.Expires.Add(-1): true} {
		c.Time = at
		if v, err := r.Query(context.Background(), "default"); err != nil || (v != nil) != want {
			t.Errorf("at %v: %s, %v; want it: %v", at, v, err, want)
		}
	}
	if _, err := r.Put(context.Background(), api.RefValue{Name: "late", Value: json.RawMessage(`1`), Expires: c.Time}); !errors.Is(err, ErrValue) {
		t.Errorf("a value that has expired already: %v", err)
	}
}

func TestVersions(t *testing.T) {
	r, _ := newRegistry(t)
	ctx := context.Background()
	v := api.RefValue{Name: "a/b.c", Value: json.RawMessage(`1`)}
	if got := put(t, r, v); got.Version != 1 {
		t.Fatalf("version %d", got.Version)
	}
	for _, stale := range []int64{0, 2} {
		v.Version = stale
		if _, err := r.Put(ctx, v); !errors.Is(err, store.ErrConflict) {
			t.Errorf("put at %d: %v", stale, err)
		}
	}
	v.Version = 1
	if got := put(t, r, v); got.Version != 2 {
		t.Fatalf("version %d", got.Version)
	}
	if err := r.Delete(ctx, v.Name); err != nil {
		t.Fatal(err)
	}
	if err := r.Delete(ctx, v.Name); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("second delete: %v", err)
	}
	if _, err := r.Get(ctx, v.Name); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("get after delete: %v", err)
	}
	if q, err := r.Query(ctx, v.Name); q != nil || err != nil {
		t.Errorf("query after delete: %s, %v", q, err)
	}
}

func TestWhatIsRefused(t *testing.T) {
	r, _ := newRegistry(t)
	ctx := context.Background()
	for _, name := range []string{"", "a b", "a:b", "é", "a\n", "a\x00", strings.Repeat("n", 257), "rvps:///a"} {
		if _, err := r.Put(ctx, api.RefValue{Name: name, Value: json.RawMessage(`1`)}); !errors.Is(err, ErrName) {
			t.Errorf("put %q: %v", name, err)
		}
		if _, err := r.Get(ctx, name); !errors.Is(err, ErrName) {
			t.Errorf("get %q: %v", name, err)
		}
		if err := r.Delete(ctx, name); !errors.Is(err, ErrName) {
			t.Errorf("delete %q: %v", name, err)
		}
		if q, err := r.Query(ctx, name); q != nil || err != nil {
			t.Errorf("query %q: %s, %v", name, q, err)
		}
	}
	for _, value := range []string{"", "nul", "null", " null\n", "1 2", "{", `{"a":1}x`, "\"\xff\"", `"` + strings.Repeat("x", MaxValue) + `"`} {
		if _, err := r.Put(ctx, api.RefValue{Name: "a", Value: json.RawMessage(value)}); !errors.Is(err, ErrValue) {
			t.Errorf("value %.20q: %v", value, err)
		}
	}
	put(t, r, api.RefValue{Name: strings.Repeat("n", 256), Value: json.RawMessage(`"` + strings.Repeat("x", MaxValue-2) + `"`)})
}

func TestList(t *testing.T) {
	r, c := newRegistry(t)
	err := r.st.Update(context.Background(), func(tx store.Tx) error {
		for i := range page + 2 {
			if _, err := r.PutTx(tx, api.RefValue{Name: fmt.Sprintf("many/%05d", i), Value: json.RawMessage(`1`)}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	put(t, r, api.RefValue{Name: "expired", Value: json.RawMessage(`2`), Expires: c.Add(time.Minute)})
	c.Time = c.Add(time.Hour)
	for prefix, want := range map[string]int{"": page + 3, "many/": page + 2, "many/00001": 1, "exp": 1, "_": 0} {
		got, err := r.List(context.Background(), prefix)
		if err != nil || len(got) != want {
			t.Errorf("list(%q): %d of them, %v; want %d", prefix, len(got), err, want)
		}
	}
}

func TestTransactions(t *testing.T) {
	r, _ := newRegistry(t)
	put(t, r, api.RefValue{Name: "old", Value: json.RawMessage(`1`)})
	mine := errors.New("mine")
	err := r.st.Update(context.Background(), func(tx store.Tx) error {
		_, err := r.PutTx(tx, api.RefValue{Name: "new", Value: json.RawMessage(`1`)})
		return errors.Join(err, r.DeleteTx(tx, "old", store.Any), mine)
	})
	if !errors.Is(err, mine) || errors.Is(err, store.ErrNotFound) {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"old": "1", "new": ""} {
		if q, err := r.Query(context.Background(), name); string(q) != want || err != nil {
			t.Errorf("%s: %q, %v; want %q", name, q, err, want)
		}
	}
}

func message(kind, payload string) string {
	return fmt.Sprintf(`{"version":"0.1.0","type":%q,"payload":%q}`, kind, base64.StdEncoding.EncodeToString([]byte(payload)))
}

func TestParseRVPSMessage(t *testing.T) {
	// The example of kbs-protocol 7.
	got, err := ParseRVPSMessage([]byte(`{"version":"0.1.0","type":"sample","payload":"eyJsYXVuY2hfZGlnZXN0IjpbImFiY2RlIl19"}`))
	if err != nil || len(got) != 1 || got[0].Name != "launch_digest" || string(got[0].Value) != `["abcde"]` || got[0].Version != -1 {
		t.Fatalf("the specification's example: %+v, %v", got, err)
	}
	got, err = ParseRVPSMessage([]byte(message("sample", `{"z": 1.0, "a/b": {"x":[ ]}, "m":"1"}`)))
	if err != nil || len(got) != 3 || got[0].Name != "z" || string(got[0].Value) != "1.0" || string(got[1].Value) != `{"x":[ ]}` || string(got[2].Value) != `"1"` {
		t.Fatalf("three values: %+v, %v", got, err)
	}
	r, _ := newRegistry(t)
	for range 2 { // registration overwrites
		for _, v := range got {
			put(t, r, v)
		}
	}
	if got, err := ParseRVPSMessage([]byte(`{"type":"sample","payload":"e30="}`)); err != nil || len(got) != 0 {
		t.Errorf("default version and empty object: %+v, %v", got, err)
	}

	var many strings.Builder
	for i := range MaxMessageValues {
		fmt.Fprintf(&many, `"n%d":1,`, i)
	}
	for _, tt := range []struct {
		name, body string
		want       error
	}{
		{"nothing", "", ErrMessage},
		{"not an object", "[]", ErrMessage},
		{"trailing data", message("sample", "{}") + "{}", ErrMessage},
		{"another version", `{"version":"0.2.0","type":"sample","payload":"e30="}`, ErrMessageType},
		{"empty version", `{"version":"","type":"sample","payload":"e30="}`, ErrMessageType},
		{"two types", `{"type":"swid","Type":"sample","payload":"e30="}`, ErrMessage},
		{"no type", `{"version":"0.1.0","payload":"e30="}`, ErrMessageType},
		{"swid", message("swid", "<x/>"), ErrMessageType},
		{"corim", message("corim", "x"), ErrMessageType},
		{"no payload", `{"type":"sample"}`, ErrMessage},
		{"URL-safe base64", `{"type":"sample","payload":"eyJhIjoiPz8_In0="}`, ErrMessage},
		{"base64 without padding", `{"type":"sample","payload":"e30"}`, ErrMessage},
		{"payload is an array", message("sample", `["a"]`), ErrMessage},
		{"payload is cut", message("sample", `{"a":1`), ErrMessage},
		{"data after the payload", message("sample", `{"a":1}{}`), ErrMessage},
		{"a name twice", message("sample", `{"a":1,"a":2}`), ErrMessage},
		{"a name that is none", message("sample", `{"a:b":1}`), ErrName},
		{"a null", message("sample", `{"a":null}`), ErrValue},
		{"a value too large", message("sample", `{"a":"`+strings.Repeat("x", MaxValue)+`"}`), ErrValue},
		{"too many values", message("sample", "{"+many.String()+`"last":1}`), ErrMessage},
		{"too large", strings.Repeat(" ", MaxMessage+1), ErrMessage},
	} {
		if got, err := ParseRVPSMessage([]byte(tt.body)); !errors.Is(err, tt.want) {
			t.Errorf("%s: %d values, %v; want %v", tt.name, len(got), err, tt.want)
		}
	}
}

func FuzzParseRVPSMessage(f *testing.F) {
	f.Add([]byte(message("sample", `{"launch_digest":["abcde"],"n":1.0}`)))
	f.Add([]byte(message("swid", "x")))
	f.Add([]byte(`{"type":"sample","payload":"e30="}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		values, err := ParseRVPSMessage(body)
		if err != nil {
			return
		}
		check(t, values)
	})
}

func FuzzParseSample(f *testing.F) {
	f.Add([]byte(`{"launch_digest":["abcde"],"n":1.0}`))
	f.Add([]byte(`{"a":{"b":[null]}} `))
	f.Fuzz(func(t *testing.T, payload []byte) {
		values, err := parseSample(payload)
		if err != nil {
			return
		}
		check(t, values)
		var whole map[string]json.RawMessage
		if err := json.Unmarshal(payload, &whole); err != nil || len(whole) != len(values) {
			t.Fatalf("accepted %q: %d values, %v", payload, len(values), err)
		}
		for _, v := range values {
			if !bytes.Equal(whole[v.Name], v.Value) {
				t.Fatalf("%s is %q, and %q in another reading", v.Name, v.Value, whole[v.Name])
			}
		}
	})
}

// check is what Put would ask of accepted values.
func check(t *testing.T, values []api.RefValue) {
	for _, v := range values {
		if !nameForm.MatchString(v.Name) || checkValue(v.Value) != nil || v.Version != -1 {
			t.Fatalf("accepted %+v", v)
		}
	}
}

func TestNearest(t *testing.T) {
	r, c := newRegistry(t)
	put(t, r, api.RefValue{Name: "guest-1.3", Value: json.RawMessage(`["2F19AABBCCDD"]`), Expires: c.Add(time.Minute)})
	put(t, r, api.RefValue{Name: "guest-1.4", Value: json.RawMessage(`["2f19aabbccff", 7]`)})
	put(t, r, api.RefValue{Name: "guest-1.5", Value: json.RawMessage(`"77"`)})
	put(t, r, api.RefValue{Name: "svn", Value: json.RawMessage(`7`)})
	c.Time = c.Add(time.Hour)
	for _, tt := range []struct {
		seen string
		want Match
	}{
		{"2f19aabbccdd", Match{Name: "guest-1.3", Exact: true, Expired: true}},
		{"2f19aabbccff", Match{Name: "guest-1.4", Exact: true}},
		{"2f19aabbcc00", Match{Name: "guest-1.4"}},
		{"2f19aab", Match{}},
		{"77", Match{Name: "guest-1.5", Exact: true}},
		{"ffffffffffff", Match{}},
		{"", Match{}},
	} {
		got, err := r.Nearest(context.Background(), "", tt.seen)
		if err != nil || got != tt.want {
			t.Errorf("nearest to %q: %+v, %v; want %+v", tt.seen, got, err, tt.want)
		}
	}
	if got, err := r.Nearest(context.Background(), "svn", "2f19aabbccff"); err != nil || got.Name != "" {
		t.Errorf("outside the prefix: %+v, %v", got, err)
	}
}

func BenchmarkQuery(b *testing.B) {
	r, _ := newRegistry(b)
	put(b, r, api.RefValue{Name: "n", Value: json.RawMessage(`["2f19"]`)})
	for b.Loop() {
		if _, err := r.Query(b.Context(), "n"); err != nil {
			b.Fatal(err)
		}
	}
}
