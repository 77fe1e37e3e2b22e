package collateral

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure/dcap"
)

func inDir(dir string) func(*Config) { return func(c *Config) { c.Dir = dir } }

func offline(c *Config) { c.Fetchers = nil }

func TestConfigurationsThatCannotBeMeant(t *testing.T) {
	l := newLab(t)
	_, err := Open(l.config(func(c *Config) { c.Authorities = nil }))
	mentions(t, err, "nobody is trusted")
	_, err = Open(l.config(func(c *Config) { c.Grace = -1 }))
	mentions(t, err, "negative")
	_, err = Open(l.config(inDir(filepath.Join(t.TempDir(), "file", "dir")), func(c *Config) {
		if err := os.WriteFile(filepath.Dir(c.Dir), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}))
	mentions(t, err, "not a directory")
}

func TestNamesThatAreNone(t *testing.T) {
	l := newLab(t)
	s := l.store()
	for _, n := range []Name{
		"", "/", "intel", "intel/rootcrl/", "intel/tdx", "intel/tdx/tcb/00", "intel/tdx/tcb/ABCDEF000000", "intel/abc/qe",
		"intel/pckcrl/other", "amd/Naples/vcek/crl", "amd/Genoa/vlek/00/00", "amd/Genoa/vcek/../crl", "amd/genoa/vcek/crl", "../../etc/passwd",
	} {
		if err := l.get(s, n); !errors.Is(err, errName) {
			t.Errorf("%q: %v", n, err)
		}
	}
	if n := l.requests(""); n != 0 {
		t.Errorf("%d requests", n)
	}
}

func TestFilesOutliveTheProcess(t *testing.T) {
	l, dir := newLab(t), filepath.Join(t.TempDir(), "collateral")
	first := l.store(inDir(dir))
	if _, err := first.Collateral(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 4 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, f := range files {
		if i, err := f.Info(); err != nil || i.Mode() != 0o600 {
			t.Errorf("%s: %v %v", f.Name(), i.Mode(), err)
		}
	}
	if i, err := os.Stat(dir); err != nil || i.Mode().Perm() != 0o700 {
		t.Errorf("the directory: %v %v", i.Mode(), err)
	}

	l.pass(10 * 24 * time.Hour)
	second := l.store(inDir(dir), offline)
	if _, err := second.Collateral(t.Context(), request); err != nil {
		t.Error(err)
	}
	l.pass(21 * 24 * time.Hour)
	_, err = second.Collateral(t.Context(), request)
	for _, n := range Names(request) {
		mentions(t, err, string(n)+" ended at 2026-07-01T1")
	}
	mentions(t, err, "and no source is configured that has it")
}

// Whoever can write to the directory can break it, but not make anything be
// believed.
func TestDamagedFiles(t *testing.T) {
	l, dir := newLab(t), t.TempDir()
	if _, err := l.store(inDir(dir)).Collateral(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, RootCRL.file())
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	other, err := os.ReadFile(filepath.Join(dir, QEIdentity(dcap.TDX).file()))
	if err != nil {
		t.Fatal(err)
	}
	for name, damaged := range map[string][]byte{
		"empty": nil, "cut off": good[:len(good)/2], "of another name": other, "a changed byte": changed(good), "no JSON": []byte("x"),
		"too large": []byte(`{"name":"` + strings.Repeat("x", maxFile) + `"}`),
	} {
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		s := l.store(inDir(dir), offline)
		mentions(t, l.get(s, RootCRL), "not at hand")
		if len(s.Status()) != 3 {
			t.Errorf("%s: %d items, want the three others", name, len(s.Status()))
		}
	}
	if err := l.get(l.store(inDir(dir)), RootCRL); err != nil { // and the service repairs it
		t.Error(err)
	}
	if err := l.get(l.store(inDir(dir), offline), RootCRL); err != nil {
		t.Error(err)
	}
}

// changed flips a bit in the middle of the base64 of the body.
func changed(file []byte) []byte {
	out := []byte(string(file))
	at := len(out) / 2
	if out[at] == 'A' {
		out[at] = 'B'
	} else {
		out[at] = 'A'
	}
	return out
}

func TestStaleWithinGraceAlone(t *testing.T) {
	l := newLab(t)
	s := l.store(func(c *Config) { c.Grace = 48 * time.Hour })
	if err := l.get(s, RootCRL); err != nil {
		t.Fatal(err)
	}
	l.behave(func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	})
	l.pass(collateralLife + 47*time.Hour)
	if err := l.get(s, RootCRL); err != nil {
		t.Errorf("within the grace: %v", err)
	}
	l.pass(2 * time.Hour)
	mentions(t, l.get(s, RootCRL), "ended at")

	strict := newLab(t)
	s = strict.store()
	if err := strict.get(s, RootCRL); err != nil {
		t.Fatal(err)
	}
	strict.behave(func(w http.ResponseWriter, _ *http.Request) bool { panic(http.ErrAbortHandler) })
	strict.pass(collateralLife)
	mentions(t, strict.get(s, RootCRL), "ended at")
}

// collateralLife is that of the simulated vendor.
const collateralLife = 30 * 24 * time.Hour

func TestOneFetchForAllWhoWait(t *testing.T) {
	l := newLab(t)
	s := l.store()
	release, arrived := make(chan struct{}), make(chan struct{}, 64)
	l.behave(func(http.ResponseWriter, *http.Request) bool {
		arrived <- struct{}{}
		<-release
		return false
	})
	var wg sync.WaitGroup
	errs := make(chan error, 64)
	for range cap(errs) {
		wg.Go(func() {
			_, err := s.Collateral(context.Background(), request)
			errs <- err
		})
	}
	for range 4 { // all are on their way; nobody may ask a fifth time
		<-arrived
	}
	close(release)
	wg.Wait()
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	if n := l.requests(""); n != 4 {
		t.Errorf("%d requests for %d questions, want 4", n, cap(errs))
	}
}

// A stranger who names one platform after the other cannot keep the lists from
// being fetched.
func TestStrangersLeavePlaces(t *testing.T) {
	l := newLab(t)
	s := l.store()
	release, arrived := make(chan struct{}), make(chan struct{}, 4*maxFetches)
	l.behave(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/tcb") {
			arrived <- struct{}{}
			<-release
		}
		return false
	})
	var wg sync.WaitGroup
	for i := range 4 * maxFetches {
		wg.Go(func() { _, _ = s.Get(context.Background(), TCBInfo(dcap.TDX, [6]byte{byte(i)})) })
	}
	for range maxNamed {
		<-arrived
	}
	if err := l.get(s, RootCRL); err != nil {
		t.Error(err)
	}
	if n := l.requests("/tcb"); n != maxNamed {
		t.Errorf("%d fetches for strangers at once, want %d", n, maxNamed)
	}
	close(release)
	wg.Wait()
}

func TestCloseEndsFetches(t *testing.T) {
	l := newLab(t)
	s := l.store()
	there := make(chan struct{})
	l.behave(func(_ http.ResponseWriter, r *http.Request) bool {
		close(there)
		<-r.Context().Done()
		return true
	})
	failed := make(chan error)
	go func() { failed <- l.get(s, RootCRL) }()
	<-there
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; err == nil {
		t.Error("a fetch outlived the store")
	}
	l.pass(time.Hour)
	mentions(t, l.get(s, QEIdentity(dcap.SGX)), "closed")
}

// fetched is a Fetcher without a network.
type fetched func(Name) (Item, error)

func (f fetched) Fetch(_ context.Context, n Name) (Item, error) { return f(n) }

// pass lets time go by in a bubble.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestRenewedBeforeTheEnd(t *testing.T) {
	vendor, err := dcap.NewVendor(start)
	if err != nil {
		t.Fatal(err)
	}
	trusted, err := Authorities(nil, []dcap.SimulatedRoot{{Name: "lab", Bundle: vendor.Bundle()}})
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		shift := time.Until(start)
		now := func() time.Time { return time.Now().Add(shift) }
		var asked atomic.Int32
		var broken atomic.Bool
		s, err := Open(Config{
			Authorities: trusted, Now: now, RefreshEvery: 7 * 24 * time.Hour, Grace: time.Hour,
			Fetchers: []Fetcher{fetched(func(Name) (Item, error) {
				asked.Add(1)
				if broken.Load() {
					return Item{}, &UnavailableError{Err: errors.New("broken")}
				}
				c, err := vendor.Collateral(dcap.TDX, now(), dcap.Statement{})
				return Item{Body: c.RootCRL}, err
			})},
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Get(t.Context(), RootCRL); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { s.Run(ctx) })
		pass(7*24*time.Hour - time.Minute)
		if n := asked.Load(); n != 1 {
			t.Errorf("asked %d times before it was due, want 1", n)
		}
		pass(2 * time.Minute)
		if n := asked.Load(); n != 2 {
			t.Errorf("asked %d times when it was due, want 2", n)
		}
		broken.Store(true)
		pass(8 * 24 * time.Hour)
		if n := asked.Load(); n < 3 || n > 3+24*6+10 { // again every ten minutes
			t.Errorf("asked %d times within a day of failures", n)
		}
		if st := s.Status(); len(st) != 1 || !strings.Contains(st[0].Problem, "broken") {
			t.Errorf("status %+v", st)
		}
		if _, err := s.Get(t.Context(), RootCRL); err != nil {
			t.Errorf("what is at hand holds still: %v", err)
		}
		cancel()
		wg.Wait()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestRoomForSoMany(t *testing.T) {
	l := newLab(t)
	s := l.store(func(c *Config) { c.MaxItems = 3 })
	if _, err := s.Collateral(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	if n := len(s.Status()); n != 3 {
		t.Errorf("%d items, want 3", n)
	}
}

// What another process put into the directory is taken when the own is due.
func TestNewerFileOfAnother(t *testing.T) {
	l, dir := newLab(t), t.TempDir()
	here := l.store(inDir(dir))
	if err := l.get(here, RootCRL); err != nil {
		t.Fatal(err)
	}
	l.pass(25 * time.Hour)
	l.state(dcap.Statement{})
	if _, err := l.store(inDir(dir)).Renew(t.Context(), RootCRL); err != nil {
		t.Fatal(err)
	}
	asked := l.requests("")
	here.Refresh(t.Context())
	if n := l.requests(""); n != asked {
		t.Error("the service was asked though the file is new")
	}
	if st := here.Status(); !st[0].From.Equal(start.Add(24 * time.Hour)) {
		t.Errorf("still the edition of %s", st[0].From)
	}
}
