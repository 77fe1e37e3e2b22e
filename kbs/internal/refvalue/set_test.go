package refvalue

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/measure/refvalue"
)

type author struct {
	key  ed25519.PrivateKey
	text string
}

func newAuthor(t *testing.T) author {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return author{key, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))}
}

func (r *Registry) trust(t *testing.T, name string, a author, prefixes ...string) {
	t.Helper()
	err := r.st.Update(t.Context(), func(tx store.Tx) error {
		_, err := r.PutSignerTx(tx, api.Signer{Name: name, PublicKey: a.text, Prefixes: prefixes, Version: -1})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func signed(t *testing.T, a author, id string, values map[string]string, until time.Time) []byte {
	t.Helper()
	d := refvalue.Document{ID: id, NotAfter: until}
	for name, v := range values {
		d.Values = append(d.Values, refvalue.Value{Name: name, Value: json.RawMessage(v)})
	}
	raw, err := d.Sign(a.key, "hint")
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func (r *Registry) register(t *testing.T, raw []byte) {
	t.Helper()
	i, err := r.Judge(t.Context(), raw, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.st.Update(t.Context(), func(tx store.Tx) error { _, err := r.RegisterTx(tx, i, "admin:x", store.Any); return err }); err != nil {
		t.Fatal(err)
	}
}

func (r *Registry) wants(t *testing.T, name, want string) {
	t.Helper()
	if got, err := r.Query(t.Context(), name); err != nil || string(got) != want {
		t.Errorf("%s is %s, %v; want %s", name, got, err, want)
	}
}

// Each source counts while it is in force, and none stands in another's way.
func TestSourcesOfAName(t *testing.T) {
	r, c := newRegistry(t)
	a := newAuthor(t)
	r.trust(t, "ci", a, "")
	put(t, r, api.RefValue{Name: "digest", Value: json.RawMessage(`["own"]`)})
	r.register(t, signed(t, a, "guest-1", map[string]string{"digest": `["one","own"]`, "svn": `[1]`}, c.Add(time.Hour)))
	r.register(t, signed(t, a, "guest-2", map[string]string{"digest": `["two"]`}, c.Add(2*time.Hour)))
	r.wants(t, "digest", `["own","one","two"]`)
	// The successor takes the place of what it follows.
	r.register(t, signed(t, a, "guest-2", map[string]string{"digest": `["two-b"]`}, c.Add(2*time.Hour)))
	r.wants(t, "digest", `["own","one","two-b"]`)
	c.Time = c.Add(time.Hour)
	r.wants(t, "digest", `["own","two-b"]`)
	r.wants(t, "svn", "")
	withdraw := func(id string) error {
		return r.st.Update(t.Context(), func(tx store.Tx) error { return r.WithdrawTx(tx, id, store.Any) })
	}
	if err := withdraw("guest-2"); err != nil {
		t.Fatal(err)
	}
	r.wants(t, "digest", `["own"]`)
	if err := withdraw("guest-2"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("withdrawn twice: %v", err)
	}
	if err := withdraw("guest-1"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Get(t.Context(), "svn"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("nobody vouches for svn: %v", err)
	}
}

// What is no list cannot be joined: the newest word counts.
func TestNewestScalarCounts(t *testing.T) {
	r, c := newRegistry(t)
	a := newAuthor(t)
	r.trust(t, "ci", a, "")
	r.register(t, signed(t, a, "old", map[string]string{"minimum": `7`}, c.AddDate(1, 0, 0)))
	c.Time = c.Add(time.Second)
	r.register(t, signed(t, a, "new", map[string]string{"minimum": `9`}, c.AddDate(1, 0, 0)))
	r.wants(t, "minimum", `9`)
}

func TestWhoMayVouch(t *testing.T) {
	r, c := newRegistry(t)
	known, stranger := newAuthor(t), newAuthor(t)
	r.trust(t, "ci", known, "snp_", "tdx_")
	until := c.AddDate(1, 0, 0)
	good := signed(t, known, "a", map[string]string{"snp_x": `[1]`}, until)
	unsigned, err := refvalue.Document{ID: "u", Values: []refvalue.Value{{Name: "snp_x", Value: json.RawMessage(`1`)}}}.CoRIM()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		raw    []byte
		reason string
		want   fault.Code
	}{
		{"known", good, "", ""},
		{"stranger", signed(t, stranger, "a", map[string]string{"snp_x": `[1]`}, until), "believe me please", fault.SignatureRejected},
		{"another name", signed(t, known, "a", map[string]string{"other": `[1]`}, until), "", fault.SignatureRejected},
		{"unsigned", unsigned, "", fault.SignatureRejected},
		{"unsigned, a short reason", unsigned, " because   ", fault.SignatureRejected},
		{"unsigned, with a reason", unsigned, "handed over in person", ""},
		{"not a document", []byte("x"), "", fault.InvalidRequest},
	} {
		i, err := r.Judge(t.Context(), tt.raw, tt.reason)
		if err == nil && tt.want == "" {
			if set := i.Set(); (set.Signer == "") == (set.Reason == "") {
				t.Errorf("%s: %+v", tt.name, set)
			}
			continue
		}
		if fault.CodeOf(err) != tt.want {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
		}
	}
}

func TestRefusedSigners(t *testing.T) {
	r, _ := newRegistry(t)
	a := newAuthor(t)
	for name, s := range map[string]api.Signer{
		"no prefix":  {Name: "a", PublicKey: a.text},
		"bad prefix": {Name: "a", PublicKey: a.text, Prefixes: []string{"a b"}},
		"bad name":   {Name: "a/b", PublicKey: a.text, Prefixes: []string{""}},
		"no key":     {Name: "a", Prefixes: []string{""}},
		"two keys":   {Name: "a", PublicKey: a.text + a.text, Prefixes: []string{""}},
	} {
		err := r.st.Update(t.Context(), func(tx store.Tx) error { _, err := r.PutSignerTx(tx, s); return err })
		if !errors.Is(err, ErrSigner) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Finding the nearest of many values looks at few of them, and at new ones.
func TestNearestOfMany(t *testing.T) {
	r, _ := newRegistry(t)
	err := r.st.Update(t.Context(), func(tx store.Tx) error {
		for i := range 2000 {
			v := json.RawMessage(fmt.Sprintf(`["%08x%08x"]`, i*7919, i))
			if _, err := r.PutTx(tx, api.RefValue{Name: fmt.Sprintf("v/%d", i), Value: v}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{0, 1, 999, 1999} {
		seen := fmt.Sprintf("%08x%08x", i*7919, i)
		if m, err := r.Nearest(t.Context(), "", seen); err != nil || !m.Exact || m.Name != fmt.Sprintf("v/%d", i) {
			t.Errorf("%s: %+v, %v", seen, m, err)
		}
		if m, err := r.Nearest(t.Context(), "", seen[:12]+"ffff"); err != nil || m.Exact || m.Name != fmt.Sprintf("v/%d", i) {
			t.Errorf("near %s: %+v, %v", seen, m, err)
		}
	}
	put(t, r, api.RefValue{Name: "late", Value: json.RawMessage(`"zzzzzzzzzzzz"`)})
	if m, err := r.Nearest(t.Context(), "", "zzzzzzzzzzzz"); err != nil || m.Name != "late" {
		t.Errorf("a value that came later: %+v, %v", m, err)
	}
}

func TestUsageIsWrittenDown(t *testing.T) {
	r, c := newRegistry(t)
	put(t, r, api.RefValue{Name: "a", Value: json.RawMessage(`1`)})
	r.wants(t, "a", "1")
	if err := r.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	v, err := r.Get(t.Context(), "a")
	if err != nil || !v.LastQueried.Equal(c.Truncate(time.Second)) {
		t.Errorf("last queried %v, %v; it is %v", v.LastQueried, err, c.Time)
	}
}
