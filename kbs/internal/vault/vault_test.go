package vault_test

import (
	"context"
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/vault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/vault/vaulttest"
)

// clock is one that tests and the server share.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

type world struct {
	*vaulttest.Server
	clock  clock
	pauses []time.Duration
	token  string
	// timeout of one try; a loaded machine is slow, and not what is tested.
	timeout time.Duration
}

func newWorld(t *testing.T) *world {
	w := &world{Server: vaulttest.Start(t), timeout: 30 * time.Second}
	w.Now = w.clock.now
	w.token = w.Issue()
	return w
}

func (w *world) client(t *testing.T, auth vault.Auth) *vault.Client {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(w.Certificate())
	c, err := vault.New(vault.Config{
		Address: w.URL, RootCAs: roots, Auth: auth, Now: w.clock.now, Timeout: w.timeout,
		Pause: func(ctx context.Context, d time.Duration) error {
			w.pauses = append(w.pauses, d)
			return ctx.Err()
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// mood answers in the server's place until it has done so n times.
func (w *world) mood(n int, path string, answer func(http.ResponseWriter, *http.Request)) {
	var done atomic.Int64
	w.Lock()
	defer w.Unlock()
	w.Mood = func(rw http.ResponseWriter, r *http.Request) bool {
		if !strings.HasPrefix(r.URL.Path, "/v1/"+path) || done.Add(1) > int64(n) {
			return false
		}
		answer(rw, r)
		return true
	}
}

var describe = vault.Call{Method: http.MethodGet, Path: "transit/keys/kbs"}

func (w *world) want(t *testing.T, c *vault.Client, kind error) {
	t.Helper()
	var out struct {
		Latest int `json:"latest_version"`
	}
	err := c.Do(t.Context(), describe, &out)
	if !errors.Is(err, kind) || (kind == nil && out.Latest != 1) {
		t.Fatalf("got %+v, %v; want %v", out, err, kind)
	}
	if err != nil && strings.Contains(err.Error(), "hush") {
		t.Fatalf("a credential is in the error: %v", err)
	}
}

func TestLogins(t *testing.T) {
	w := newWorld(t)
	for name, tt := range map[string]struct {
		auth vault.Auth
		want error
	}{
		"token file":           {vault.TokenFile(vaulttest.File(t, w.token+"\n")), nil},
		"app role":             {vault.AppRole("", w.RoleID, vaulttest.File(t, w.SecretID)), nil},
		"kubernetes":           {vault.Kubernetes("", "kbs", vaulttest.File(t, w.JWT)), nil},
		"wrong token":          {vault.TokenFile(vaulttest.File(t, "hush-stranger")), vault.ErrForbidden},
		"wrong secret id":      {vault.AppRole("", w.RoleID, vaulttest.File(t, "hush-x")), vault.ErrRefused},
		"another mount":        {vault.AppRole("elsewhere", w.RoleID, vaulttest.File(t, w.SecretID)), vault.ErrRefused},
		"wrong role":           {vault.Kubernetes("", "other", vaulttest.File(t, w.JWT)), vault.ErrRefused},
		"header in a token":    {vault.TokenFile(vaulttest.File(t, "hush\r\nX-Evil: 1")), errAny},
		"an empty token":       {vault.TokenFile(vaulttest.File(t, " \n")), errAny},
		"a missing token file": {vault.TokenFile("/does/not/exist"), errAny},
	} {
		t.Run(name, func(t *testing.T) {
			if errors.Is(tt.want, errAny) {
				if err := w.client(t, tt.auth).Do(t.Context(), describe, nil); err == nil || strings.Contains(err.Error(), "hush") {
					t.Fatalf("got %v", err)
				}
				return
			}
			w.want(t, w.client(t, tt.auth), tt.want)
		})
	}
}

var errAny = errors.New("any")

// What passes is waited for, and what does not is reported at once.
func TestMoods(t *testing.T) {
	status := func(code int, text string) func(http.ResponseWriter, *http.Request) {
		return func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Retry-After", "1")
			vaulttest.Refuse(rw, code, text)
		}
	}
	cut := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	for name, tt := range map[string]struct {
		times  int
		answer func(http.ResponseWriter, *http.Request)
		want   error
		asked  int
	}{
		"too many, then well": {2, status(429, "rate limit"), nil, 3},
		"sealed, then not":    {3, status(503, "Vault is sealed"), nil, 4},
		"sealed for good":     {99, status(503, "Vault is sealed"), vault.ErrUnavailable, 4},
		"standby":             {1, status(473, ""), nil, 2},
		"a replica behind":    {1, status(412, "required index state not present"), nil, 2},
		"cut, then well":      {1, cut, nil, 2},
		"cut for good":        {99, cut, vault.ErrUnavailable, 4},
		"forbidden once":      {1, status(403, "permission denied"), nil, 2},
		"forbidden":           {99, status(403, "permission denied"), vault.ErrForbidden, 2},
		"malformed":           {99, status(400, "hm"), vault.ErrRefused, 1},
		"not there":           {99, status(404, ""), vault.ErrNotFound, 1},
		"a redirect": {99, func(rw http.ResponseWriter, r *http.Request) {
			http.Redirect(rw, r, "https://127.0.0.1:1/", http.StatusTemporaryRedirect)
		}, vault.ErrUnavailable, 1},
		"not JSON":              {99, func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write([]byte("<html>")) }, vault.ErrUnavailable, 1},
		"no data":               {99, func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write([]byte("{}")) }, vault.ErrUnavailable, 1},
		"data of another shape": {99, func(rw http.ResponseWriter, _ *http.Request) { vaulttest.Answer(rw, []int{1}) }, vault.ErrUnavailable, 1},
		"too large": {99, func(rw http.ResponseWriter, _ *http.Request) {
			_, _ = rw.Write([]byte(strings.Repeat(" ", 5<<20)))
		}, vault.ErrUnavailable, 1},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.mood(tt.times, "transit/", tt.answer)
			w.want(t, w.client(t, vault.AppRole("", w.RoleID, vaulttest.File(t, w.SecretID))), tt.want)
			// HTTP itself repeats a GET over a connection that was just cut.
			if n := w.Count("transit/keys/kbs"); n < tt.asked || (name != "cut for good" && n != tt.asked) {
				t.Errorf("asked %d times, want %d", n, tt.asked)
			}
			for _, d := range w.pauses {
				if d < 100*time.Millisecond || d > 2*time.Second {
					t.Errorf("paused for %v", d)
				}
			}
		})
	}
}

// A server that hangs holds nobody longer than he wants to wait, and is not
// asked again for somebody who has gone.
func TestSlow(t *testing.T) {
	w := newWorld(t)
	c := w.client(t, vault.TokenFile(vaulttest.File(t, w.token)))
	w.want(t, c, nil)
	ctx, cancel := context.WithCancel(t.Context())
	gate := make(chan struct{})
	defer close(gate)
	w.mood(99, "transit/", func(http.ResponseWriter, *http.Request) {
		cancel()
		<-gate // not before the caller is told
	})
	before := w.Count("transit/keys/kbs")
	if err := c.Do(ctx, describe, nil); !errors.Is(err, vault.ErrUnavailable) {
		t.Fatal(err)
	}
	if n := w.Count("transit/keys/kbs") - before; n != 1 {
		t.Fatalf("asked %d times after the caller had gone", n)
	}
}

// One that hangs for everybody costs each try its time, and is given up.
func TestHanging(t *testing.T) {
	w := newWorld(t)
	w.timeout = 100 * time.Millisecond // a try that is slow for another reason ends the same way
	gate := make(chan struct{})
	defer close(gate)
	w.mood(99, "", func(http.ResponseWriter, *http.Request) { <-gate })
	w.want(t, w.client(t, vault.TokenFile(vaulttest.File(t, w.token))), vault.ErrUnavailable)
	if len(w.pauses) != 3 {
		t.Errorf("paused %v", w.pauses)
	}
}

// A call that must not be done twice is not repeated after a lost answer, but
// is where the server says that it did nothing.
func TestOnce(t *testing.T) {
	w := newWorld(t)
	c := w.client(t, vault.TokenFile(vaulttest.File(t, w.token)))
	rotate := vault.Call{Method: http.MethodPost, Path: "transit/keys/kbs/rotate", In: struct{}{}, Once: true}
	w.mood(1, "transit/", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	if err := c.Do(t.Context(), rotate, nil); !errors.Is(err, vault.ErrUnavailable) {
		t.Fatal(err)
	}
	w.mood(1, "transit/", func(rw http.ResponseWriter, _ *http.Request) { vaulttest.Refuse(rw, 429, "") })
	if err := c.Do(t.Context(), rotate, nil); err != nil {
		t.Fatal(err)
	}
}

// Of many that need a token at once, one logs in; and a token that ends, or is
// taken away, is followed by another.
func TestTokensComeAndGo(t *testing.T) {
	w := newWorld(t)
	c := w.client(t, vault.AppRole("", w.RoleID, vaulttest.File(t, w.SecretID)))
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if err := c.Do(t.Context(), describe, nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	const login, renew = "auth/approle/login", "auth/token/renew-self"
	if n := w.Count(login); n != 1 {
		t.Fatalf("%d logins", n)
	}
	c.Renew(t.Context())
	w.clock.advance(41 * time.Minute) // two thirds of an hour
	c.Renew(t.Context())
	w.clock.advance(41 * time.Minute)
	w.want(t, c, nil)
	if w.Count(renew) != 1 || w.Count(login) != 1 {
		t.Fatalf("%d renewals, %d logins", w.Count(renew), w.Count(login))
	}
	w.clock.advance(2 * time.Hour)
	w.want(t, c, nil)
	if w.Count(login) != 2 {
		t.Fatalf("%d logins after the token ended", w.Count(login))
	}
	w.Revoke()
	w.want(t, c, nil)
	if w.Count(login) != 3 {
		t.Fatalf("%d logins after the token was revoked", w.Count(login))
	}
}

func TestKeepEndsWithItsContext(t *testing.T) {
	w := newWorld(t)
	c := w.client(t, vault.TokenFile(vaulttest.File(t, w.token)))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c.Keep(ctx)
}

func TestNamespaceAndRoots(t *testing.T) {
	w := newWorld(t)
	w.Namespace = "team/a"
	auth := vault.TokenFile(vaulttest.File(t, w.token))
	w.want(t, w.client(t, auth), vault.ErrNotFound)
	roots := x509.NewCertPool()
	roots.AddCert(w.Certificate())
	c, err := vault.New(vault.Config{Address: w.URL, Namespace: "team/a", RootCAs: roots, Auth: auth, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	w.want(t, c, nil)
	stranger, err := vault.New(vault.Config{
		Address: w.URL, RootCAs: x509.NewCertPool(), Auth: auth, Now: time.Now,
		Pause: func(context.Context, time.Duration) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	w.want(t, stranger, vault.ErrUnavailable)
	for _, bad := range []string{"", "127.0.0.1:8200", "ftp://a", "https://"} {
		if _, err := vault.New(vault.Config{Address: bad}); err == nil {
			t.Errorf("address %q was taken", bad)
		}
	}
}

// Whatever a server answers, the client neither panics nor repeats it at length.
func FuzzAnswer(f *testing.F) {
	f.Add(200, []byte(`{"data":{"latest_version":1}}`))
	f.Add(400, []byte(`{"errors":["x"]}`))
	f.Add(503, []byte(`{"errors":[`))
	token := vaulttest.File(f, "hush")
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		if status < 200 || status > 599 {
			return
		}
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = w.Write(body)
		}))
		defer s.Close()
		c, err := vault.New(vault.Config{
			Address: s.URL, Auth: vault.TokenFile(token), Now: time.Now,
			Pause: func(context.Context, time.Duration) error { return nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		var out map[string]any
		err = c.Do(t.Context(), describe, &out)
		if (err == nil) != (status/100 == 2 && out != nil) {
			t.Fatalf("status %d, %q: %v, %v", status, body, out, err)
		}
		if err != nil && len(err.Error()) > 2000 {
			t.Fatalf("an error of %d bytes", len(err.Error()))
		}
	})
}
