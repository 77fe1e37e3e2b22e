package collateral

import (
	"context"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure/dcap"
)

// lab is a simulated Intel, its service on loopback, and a clock.
type lab struct {
	t      testing.TB
	vendor *dcap.Vendor
	server *httptest.Server

	mu    sync.Mutex
	now   time.Time
	said  map[dcap.TEE]dcap.Collateral
	asked map[string]int
	// misbehave answers a request in the place of the service if it returns true.
	misbehave func(w http.ResponseWriter, r *http.Request) bool
	waits     []time.Duration
}

var start = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

func newLab(t testing.TB) *lab {
	t.Helper()
	l := &lab{t: t, now: start, asked: map[string]int{}}
	var err error
	if l.vendor, err = dcap.NewVendor(start); err != nil {
		t.Fatal(err)
	}
	l.state(dcap.Statement{})
	l.server = httptest.NewServer(http.HandlerFunc(l.serve))
	t.Cleanup(l.server.Close)
	return l
}

// state makes the vendor speak anew, as of now.
func (l *lab) state(s dcap.Statement) {
	l.t.Helper()
	said := map[dcap.TEE]dcap.Collateral{}
	for _, tee := range []dcap.TEE{dcap.TDX, dcap.SGX} {
		c, err := l.vendor.Collateral(tee, l.time(), s)
		if err != nil {
			l.t.Fatal(err)
		}
		said[tee] = c
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.said = said
}

func (l *lab) time() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now
}

func (l *lab) pass(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now = l.now.Add(d)
}

func (l *lab) behave(f func(w http.ResponseWriter, r *http.Request) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.misbehave = f
}

// requests counts those whose path ends so.
func (l *lab) requests(suffix string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for path, count := range l.asked {
		if strings.HasSuffix(path, suffix) {
			n += count
		}
	}
	return n
}

// serve is the service: a PCCS, which has the root's list too.
func (l *lab) serve(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	l.asked[r.URL.Path]++
	misbehave := l.misbehave
	l.mu.Unlock()
	if misbehave == nil || !misbehave(w, r) {
		l.answer(w, r)
	}
}

func (l *lab) answer(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	said := l.said
	l.mu.Unlock()
	tee := dcap.TEE(strings.Split(r.URL.Path, "/")[1])
	c := said[tee]
	header := func(name string, chain []byte) { w.Header().Set(name, url.PathEscape(string(chain))) }
	var body []byte
	switch path := strings.TrimPrefix(r.URL.Path, "/"+string(tee)+"/certification/v4/"); {
	case path == "tcb" && r.URL.Query().Get("fmspc") == hex.EncodeToString(dcap.SimulatedFMSPC[:]):
		header("TCB-Info-Issuer-Chain", c.TCBInfoChain)
		body = c.TCBInfo
	case path == "qe/identity":
		header("SGX-Enclave-Identity-Issuer-Chain", c.QEIdentityChain)
		body = c.QEIdentity
	case path == "pckcrl" && r.URL.Query().Get("ca") == "platform":
		header("SGX-PCK-CRL-Issuer-Chain", c.PCKCRLChain)
		body = c.PCKCRL
	case path == "rootcacrl":
		body = []byte(hex.EncodeToString(c.RootCRL)) // as a PCCS does
	default:
		http.NotFound(w, r)
		return
	}
	_, _ = w.Write(body) // the client may be gone
}

func (l *lab) fetcher() Fetcher {
	l.t.Helper()
	f, err := Intel(IntelConfig{Base: l.server.URL + "/sgx/certification/v4/", Web: l.web()})
	if err != nil {
		l.t.Fatal(err)
	}
	return f
}

// web waits in no time, and remembers how long it would have waited.
func (l *lab) web() WebConfig {
	return WebConfig{
		Now: l.time,
		Wait: func(_ context.Context, d time.Duration) error {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.waits = append(l.waits, d)
			return nil
		},
	}
}

func (l *lab) config(change ...func(*Config)) Config {
	l.t.Helper()
	trusted, err := Authorities(nil, []dcap.SimulatedRoot{{Name: "lab", Bundle: l.vendor.Bundle()}})
	if err != nil {
		l.t.Fatal(err)
	}
	c := Config{Fetchers: []Fetcher{l.fetcher()}, Authorities: trusted, Now: l.time}
	for _, f := range change {
		f(&c)
	}
	return c
}

func (l *lab) store(change ...func(*Config)) *Store {
	l.t.Helper()
	s, err := Open(l.config(change...))
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = s.Close() })
	return s
}

var request = dcap.Request{TEE: dcap.TDX, FMSPC: dcap.SimulatedFMSPC, CA: dcap.Platform}

func (l *lab) get(s *Store, n Name) error {
	_, err := s.Get(context.Background(), n)
	return err
}

// mentions fails the test unless the error has the text.
func mentions(t testing.TB, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v, want %q in it", err, text)
	}
}

// insteadOf answers with what is genuine at another path.
func (l *lab) insteadOf(part, other string) func(w http.ResponseWriter, r *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, part) || strings.Contains(r.URL.Path, other) {
			return false
		}
		r = r.Clone(r.Context())
		r.URL.Path = strings.Replace(r.URL.Path, part, other, 1)
		l.answer(w, r)
		return true
	}
}
