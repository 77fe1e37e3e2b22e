package nebulaca

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/slackhq/nebula/cert"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/kek"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/keyring"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/plugin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/sqlite"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

func openRing(t testing.TB) (*keyring.Ring, store.Store) {
	t.Helper()
	st, err := sqlite.Open(filepath.Join(t.TempDir(), "kbs.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	w, err := kek.NewLocal(secret.Random(kek.Size))
	if err != nil {
		t.Fatal(err)
	}
	return keyring.Open(st, w), st
}

// entries is a log that counts, or fails.
type entries struct {
	mu   sync.Mutex
	all  []api.AuditEntry
	fail error
}

func (l *entries) Append(_ context.Context, e api.AuditEntry) (api.AuditEntry, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, e)
	return e, l.fail
}

func newPlugin(t testing.TB, ring Ring, log Recorder, s Settings, now time.Time) *Plugin {
	t.Helper()
	p, err := New(Config{Ring: ring, Audit: log, Settings: s, Now: func() time.Time { return now }, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func call(query string) plugin.Call {
	values, _ := url.ParseQuery(query)
	c := plugin.Call{Method: "GET", Path: []string{"credential"}, Query: map[string]string{}}
	for k, v := range values {
		c.Query[k] = v[0]
	}
	return c
}

// certificates reads the two of an answer.
func certificates(t testing.TB, body []byte) (crt, ca cert.Certificate) {
	t.Helper()
	read := func(name string) cert.Certificate {
		_, list, _ := strings.Cut(string(body), `"`+name+`":[`)
		list, _, _ = strings.Cut(list, "]")
		var text []byte
		for n := range strings.SplitSeq(list, ",") {
			b := byte(0)
			for _, digit := range []byte(n) {
				b = 10*b + digit - '0'
			}
			text = append(text, b)
		}
		c, rest, err := cert.UnmarshalCertificateFromPEM(text)
		if err != nil || len(bytes.TrimSpace(rest)) > 0 {
			t.Fatalf("%s: %v in %s", name, err, text)
		}
		return c
	}
	return read("node_crt"), read("ca_crt")
}

func TestBothCurves(t *testing.T) {
	now := time.Now()
	for name, want := range map[string]cert.Curve{"": cert.Curve_CURVE25519, Curve25519: cert.Curve_CURVE25519, CurveP256: cert.Curve_P256} {
		ring, _ := openRing(t)
		p := newPlugin(t, ring, &entries{}, Settings{Curve: name}, now)
		out, err := p.Handle(t.Context(), call("name=a&ip=10.0.0.1/8"))
		if err != nil {
			t.Fatal(err)
		}
		crt, ca := certificates(t, out.Body)
		if crt.Curve() != want || ca.Curve() != want || ca.Name() != DefaultName || ca.NotAfter().Sub(ca.NotBefore()) != DefaultDuration {
			t.Errorf("%q: %s under %s", name, crt, ca)
		}
	}
}

// Replicas that begin together have one authority, also where their clocks
// differ.
func TestReplicasShareOneAuthority(t *testing.T) {
	ring, st := openRing(t)
	now, log := time.Now(), &entries{}
	const replicas = 8
	issuers := make([]string, replicas)
	var wg sync.WaitGroup
	for i := range replicas {
		wg.Go(func() {
			out, err := newPlugin(t, ring, log, Settings{}, now.Add(time.Duration(i)*time.Second)).Handle(t.Context(), call("name=a&ip=10.0.0.1/8"))
			if err != nil {
				t.Error(err)
				return
			}
			crt, _ := certificates(t, out.Body)
			issuers[i] = crt.Issuer()
		})
	}
	wg.Wait()
	for _, x := range issuers[1:] {
		if x != issuers[0] {
			t.Fatal("two replicas have two authorities")
		}
	}
	found := false
	for _, e := range log.all {
		found = found || e.Kind == api.AuditNebulaCACreate && e.Object == Name+"/"+issuers[0]
	}
	if !found {
		t.Errorf("the log does not name the authority: %+v", log.all)
	}
	names, err := ring.List(t.Context(), Name)
	if err != nil || len(names) != 1 {
		t.Fatalf("%q, %v", names, err)
	}
	err = st.View(t.Context(), func(tx store.Tx) error {
		r, err := tx.Get("keyring/" + names[0])
		if err == nil && bytes.Contains(r.Value, []byte("NEBULA")) {
			t.Error("the store shows what should be sealed")
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// Without its entry in the log there is no authority.
func TestNoAuthorityWithoutItsEntry(t *testing.T) {
	ring, _ := openRing(t)
	down := errors.New("down")
	p := newPlugin(t, ring, &entries{fail: down}, Settings{}, time.Now())
	if _, err := p.Handle(t.Context(), call("name=a&ip=10.0.0.1/8")); !errors.Is(err, down) {
		t.Errorf("%v", err)
	}
	if names, err := ring.List(t.Context(), ""); err != nil || len(names) != 0 {
		t.Errorf("%q, %v", names, err)
	}
}

// What lies in the ring and is no authority is an error, and is not replaced.
func TestDamagedAuthority(t *testing.T) {
	ring, _ := openRing(t)
	now := time.Now()
	p := newPlugin(t, ring, &entries{}, Settings{}, now)
	one, err := generate(p.limits, now)
	if err != nil {
		t.Fatal(err)
	}
	other, err := generate(p.limits, now)
	if err != nil {
		t.Fatal(err)
	}
	mixed, err := authority{one.crt, other.key}.text()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]secret.Bytes{"no PEM": secret.New([]byte("x")), "the key of another": mixed} {
		if err := ring.Put(t.Context(), Name+"/000001", text); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Handle(t.Context(), call("name=a&ip=10.0.0.1/8")); err == nil || fault.CodeOf(err) != fault.Internal {
			t.Errorf("%s: %v", name, err)
		}
	}
	if names, err := ring.List(t.Context(), ""); err != nil || len(names) != 1 {
		t.Errorf("%q, %v", names, err)
	}
}

// Whatever a guest asks for, it is refused with a code, or gets a certificate
// that says what was asked.
func FuzzRequest(f *testing.F) {
	for _, q := range []string{
		"name=a&ip=10.0.0.1/8", "name=a&ip=10.0.0.1/8&duration=1h&groups=a,b&subnets=10.0.0.0/8", "name=%00&ip=::1/1", "ip=1/1&duration=-1ns&groups=,,", "name=a&ip=255.255.255.255/32&duration=9999999h",
	} {
		f.Add(q)
	}
	ring, _ := openRing(f)
	p := newPlugin(f, ring, &entries{}, Settings{}, time.Now())
	f.Fuzz(func(t *testing.T, query string) {
		c := call(query)
		out, err := p.Handle(t.Context(), c)
		if code := fault.CodeOf(err); err != nil && code != fault.InvalidRequest && code != fault.Forbidden {
			t.Fatalf("%q: %v", query, err)
		}
		if err != nil {
			return
		}
		crt, ca := certificates(t, out.Body)
		if crt.Name() != c.Query["name"] || crt.Networks()[0].String() != out.Details["ip"] || crt.NotAfter().After(ca.NotAfter()) {
			t.Errorf("%q: %s", query, crt)
		}
	})
}
