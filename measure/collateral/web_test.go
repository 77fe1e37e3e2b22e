package collateral

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure/dcap"
)

func TestEverythingThatAQuoteNeeds(t *testing.T) {
	l := newLab(t)
	s := l.store()
	got, err := s.Collateral(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	want := l.said[dcap.TDX]
	for name, pair := range map[string][2][]byte{
		"TCB info": {got.TCBInfo, want.TCBInfo}, "its chain": {got.TCBInfoChain, want.TCBInfoChain},
		"QE identity": {got.QEIdentity, want.QEIdentity}, "the identity's chain": {got.QEIdentityChain, want.QEIdentityChain},
		"PCK list": {got.PCKCRL, l.said[dcap.SGX].PCKCRL}, "the list's chain": {got.PCKCRLChain, want.PCKCRLChain},
		"root list": {got.RootCRL, l.said[dcap.SGX].RootCRL},
	} {
		if !bytes.Equal(pair[0], pair[1]) {
			t.Errorf("%s is not what the service has", name)
		}
	}
	if _, err := s.Collateral(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	if n := l.requests(""); n != 4 {
		t.Errorf("%d requests for two times four items, want 4", n)
	}
}

// Services that misbehave, each with what is then said. Nothing of theirs may
// be kept.
func TestServicesThatMisbehave(t *testing.T) {
	body := func(text string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			fmt.Fprint(w, text)
			return true
		}
	}
	status := func(code int) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(code)
			return true
		}
	}
	type misbehaviour = func(l *lab) func(http.ResponseWriter, *http.Request) bool
	is := func(f func(http.ResponseWriter, *http.Request) bool) misbehaviour {
		return func(*lab) func(http.ResponseWriter, *http.Request) bool { return f }
	}
	for _, c := range []struct {
		name      string
		item      Name
		misbehave misbehaviour
		text      string
		requests  int
	}{
		{"knows nothing", RootCRL, is(status(http.StatusNotFound)), "there is no such collateral", 1},
		{"refuses", RootCRL, is(status(http.StatusForbidden)), "status 403", 1},
		{"redirects", RootCRL, is(func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
			return true
		}), "status 302", 1},
		{"is busy for ever", RootCRL, is(status(http.StatusTooManyRequests)), "status 429", 4},
		{"is broken", RootCRL, is(status(http.StatusBadGateway)), "status 502", 4},
		{"answers nothing", RootCRL, is(body("")), "neither DER nor PEM nor hex", 1},
		{"answers too much", RootCRL, is(func(w http.ResponseWriter, _ *http.Request) bool {
			for range 300 {
				fmt.Fprint(w, strings.Repeat("ab", 32<<10))
			}
			return true
		}), "larger than", 1},
		{"breaks off", RootCRL, is(func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Length", "1000")
			fmt.Fprint(w, "30")
			return true
		}), "unexpected EOF", 4},
		{"hangs up", RootCRL, is(func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }), "EOF", 4},
		{"gives another list", RootCRL, func(l *lab) func(http.ResponseWriter, *http.Request) bool {
			return func(w http.ResponseWriter, _ *http.Request) bool {
				_, _ = w.Write(l.said[dcap.SGX].PCKCRL)
				return true
			}
		}, `want "Intel SGX Root CA"`, 1},
		{"gives the document of the other TEE", QEIdentity(dcap.TDX), func(l *lab) func(http.ResponseWriter, *http.Request) bool {
			return l.insteadOf("/tdx/", "/sgx/")
		}, `it is for "QE", want "TD_QE"`, 1},
		{"leaves out the chain", QEIdentity(dcap.TDX), is(body("{}")), "no header", 1},
		{"gives what another vendor signed", QEIdentity(dcap.TDX), func(l *lab) func(http.ResponseWriter, *http.Request) bool {
			other := newLab(l.t)
			return func(w http.ResponseWriter, r *http.Request) bool {
				other.serve(w, r)
				return true
			}
		}, "nobody who is trusted signed", 1},
		{"changes a byte", TCBInfo(dcap.TDX, dcap.SimulatedFMSPC), func(l *lab) func(http.ResponseWriter, *http.Request) bool {
			c := l.said[dcap.TDX]
			c.TCBInfo = bytes.Replace(c.TCBInfo, []byte("UpToDate"), []byte("upToDate"), 1)
			l.said[dcap.TDX] = c
			return nil
		}, "the signature does not verify", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t)
			dir := t.TempDir()
			s := l.store(func(cfg *Config) { cfg.Dir = dir })
			l.behave(c.misbehave(l))
			mentions(t, l.get(s, c.item), c.text)
			if n := l.requests(""); n != c.requests {
				t.Errorf("%d requests, want %d", n, c.requests)
			}
			if items, err := s.Items(); err != nil || len(items) != 0 {
				t.Errorf("kept %v, %v", items, err)
			}
			// It is not asked again at once.
			mentions(t, l.get(s, c.item), c.text)
			if n := l.requests(""); n != c.requests {
				t.Errorf("%d requests after another question, want %d", n, c.requests)
			}
		})
	}
}

func TestSwappedPlatform(t *testing.T) {
	l := newLab(t)
	s := l.store()
	l.behave(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("fmspc") == "000000000001" {
			q := r.URL.Query()
			q.Set("fmspc", fmt.Sprintf("%x", dcap.SimulatedFMSPC))
			r.URL.RawQuery = q.Encode()
		}
		return false
	})
	mentions(t, l.get(s, TCBInfo(dcap.TDX, [6]byte{5: 1})), `it is for the platforms`)
}

func TestRetriesHelp(t *testing.T) {
	l := newLab(t)
	s := l.store()
	left := 3
	l.behave(func(w http.ResponseWriter, _ *http.Request) bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		if left == 0 {
			return false
		}
		left--
		w.Header().Set("Retry-After", []string{"", "7", start.Add(9 * time.Second).Format(http.TimeFormat), ""}[left])
		w.WriteHeader(http.StatusTooManyRequests)
		return true
	})
	if err := l.get(s, RootCRL); err != nil {
		t.Fatal(err)
	}
	if len(l.waits) != 3 {
		t.Fatalf("waited %v, want three times", l.waits)
	}
	if l.waits[0] != 9*time.Second || l.waits[1] != 7*time.Second {
		t.Errorf("waited %v, want what the service asked for: 9s, then 7s", l.waits)
	}
	if w := l.waits[2]; w < 2*time.Second || w > 3*time.Second {
		t.Errorf("waited %v at last, want 2 s and up to half of it more", w)
	}
}

// Who is asked to wait long gives up for now, and stays away as long as that.
func TestLongRetryAfter(t *testing.T) {
	l := newLab(t)
	s := l.store()
	l.behave(func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Retry-After", "300")
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	})
	mentions(t, l.get(s, RootCRL), "status 503")
	l.behave(nil)
	l.pass(299 * time.Second)
	mentions(t, l.get(s, RootCRL), "status 503")
	if n := l.requests(""); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
	l.pass(time.Second)
	if err := l.get(s, RootCRL); err != nil {
		t.Error(err)
	}
}

func TestSlowService(t *testing.T) {
	l := newLab(t)
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	l.behave(func(w http.ResponseWriter, r *http.Request) bool {
		if f, ok := w.(http.Flusher); ok {
			fmt.Fprint(w, "30")
			f.Flush()
		}
		select {
		case <-release:
		case <-r.Context().Done():
		}
		return true
	})
	web := l.web()
	web.AttemptTime, web.Attempts = 20*time.Millisecond, 2
	f, err := Intel(IntelConfig{Base: l.server.URL, Web: web})
	if err != nil {
		t.Fatal(err)
	}
	s := l.store(func(c *Config) { c.Fetchers = []Fetcher{f} })
	mentions(t, l.get(s, RootCRL), "deadline exceeded")
	if n := l.requests(""); n != 2 {
		t.Errorf("%d requests, want 2", n)
	}

	// Who does not want to wait need not.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	l.pass(time.Hour)
	if _, err := s.Get(ctx, RootCRL); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestEditionsOutOfTime(t *testing.T) {
	l := newLab(t)
	numbered := func(n int64) dcap.Statement {
		return dcap.Statement{Lists: func(_, root *x509.RevocationList) { root.Number = big.NewInt(n) }}
	}
	s := l.store()
	l.pass(48 * time.Hour)
	l.state(numbered(8))
	l.pass(-48 * time.Hour)
	mentions(t, l.get(s, RootCRL), "which is to come")

	l.pass(time.Hour)
	l.state(numbered(7))
	l.pass(31 * 24 * time.Hour)
	mentions(t, l.get(s, RootCRL), "ended at")

	l.state(numbered(9))
	l.pass(time.Hour)
	if err := l.get(s, RootCRL); err != nil {
		t.Fatal(err)
	}
	l.state(numbered(6)) // newer by its dates, but an older number
	l.pass(time.Hour)
	_, err := s.Renew(t.Context(), RootCRL)
	if !errors.Is(err, ErrOlder) {
		t.Errorf("got %v, want ErrOlder", err)
	}
	l.pass(40 * 24 * time.Hour) // what is there has ended: anything that holds is better
	l.state(numbered(5))
	l.pass(time.Hour)
	if err := l.get(s, RootCRL); err != nil {
		t.Error(err)
	}
}

func TestAddresses(t *testing.T) {
	for base, text := range map[string]string{
		"http://pccs.example": "has no TLS", "ftp://pccs.example": "not an address", "https://u:p@pccs.example": "not an address",
		"https://": "not an address", "pccs.example:8081": "not an address", "https://pccs.example?x=1": "not an address",
		"http://127.0.0.1:8081": "", "http://localhost": "", "https://pccs.example/sub/": "",
	} {
		_, err := Intel(IntelConfig{Base: base})
		if text == "" && err != nil {
			t.Errorf("%s: %v", base, err)
		}
		if text != "" {
			mentions(t, err, text)
		}
	}
	if _, err := AMD("http://kds.example", WebConfig{InsecureHTTP: true}); err != nil {
		t.Error(err)
	}
}
