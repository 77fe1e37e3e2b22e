package kms_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/sealed"
	"github.com/vouchsafe-cc/vouchsafe/kbs/sealed/kms"
	"github.com/vouchsafe-cc/vouchsafe/kbs/sealed/kms/kmstest"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// vendors are all services.
var vendors = map[string]func(testing.TB) *kmstest.Service{
	"vault": kmstest.Vault, "aws": kmstest.AWS, "gcp": kmstest.GCP, "azure": kmstest.Azure,
	"aliyun": kmstest.Aliyun, "aliyun instance": kmstest.AliyunInstance,
}

// world is a service, and a broker that holds the credentials for it.
type world struct {
	*kmstest.Service
	t       testing.TB
	opener  *kms.Opener
	fetched atomic.Int64
	refuse  atomic.Bool // the broker gives nothing any more
}

func newWorld(t testing.TB, s *kmstest.Service) *world {
	w := &world{Service: s, t: t}
	w.opener = kms.New(kms.Config{
		Fetch: func(_ context.Context, uri string) (secret.Bytes, error) {
			w.fetched.Add(1)
			text, ok := s.Resources[uri]
			if !ok || w.refuse.Load() {
				return secret.Bytes{}, fault.Newf(fault.PolicyDenied, "no %s", uri)
			}
			return secret.New([]byte(text)), nil
		},
		Files: s.Files, Timeout: 30 * time.Second, // a loaded machine is slow, and not what is tested
		Pause: func(ctx context.Context, _ time.Duration) error { return ctx.Err() },
	})
	t.Cleanup(w.opener.Close)
	return w
}

func (w *world) value(name string) (string, error) {
	return w.open(&sealed.Payload{Type: sealed.Vault, Provider: w.Provider, Name: w.Secret(name), Settings: w.Settings})
}

func (w *world) open(p *sealed.Payload) (string, error) {
	v, err := w.opener.Open(w.t.Context(), p)
	defer v.Destroy()
	return string(v.Reveal()), err
}

// envelope seals a value under a key of the service.
func (w *world) envelope(key, value string) (*sealed.Payload, error) {
	w.t.Helper()
	e, dek, err := sealed.NewEnvelopment(secret.New([]byte(value)))
	if err != nil {
		w.t.Fatal(err)
	}
	defer dek.Destroy()
	wrapped, err := w.opener.Wrap(w.t.Context(), w.Provider, w.Settings, w.Key(key), dek)
	if err != nil {
		return nil, err
	}
	e.SetKey(wrapped.KeyID, wrapped.Ciphertext)
	return &sealed.Payload{Type: sealed.Envelope, Provider: strings.ToUpper(w.Provider), Envelopment: e, Settings: w.Settings, Annotations: wrapped.Annotations}, nil
}

// want checks the code of a failure, and that it tells nothing.
func want(t *testing.T, err error, code fault.Code) {
	t.Helper()
	f, ok := errors.AsType[*fault.Fault](err)
	if !ok || f.Code != code {
		t.Fatalf("got %v (%v), want %s", err, cause(err), code)
	}
	if strings.Contains(cause(err), "hush") || strings.Contains(cause(err), kmstest.Value) {
		t.Fatalf("a secret is in the cause: %s", cause(err))
	}
}

func cause(err error) string {
	if f, ok := errors.AsType[*fault.Fault](err); ok && f.Cause() != nil {
		return f.Cause().Error()
	}
	return ""
}

func forEach(t *testing.T, do func(t *testing.T, w *world)) {
	for name, start := range vendors {
		t.Run(name, func(t *testing.T) { do(t, newWorld(t, start(t))) })
	}
}

func TestSecrets(t *testing.T) {
	forEach(t, func(t *testing.T, w *world) {
		if v, err := w.value("app"); err != nil || v != kmstest.Value {
			t.Fatalf("%q, %v: %s", v, err, cause(err))
		}
		_, err := w.value(kmstest.Denied)
		want(t, err, fault.Forbidden)
		_, err = w.value(kmstest.Gone)
		want(t, err, fault.NotFound)
	})
}

func TestEnvelopes(t *testing.T) {
	forEach(t, func(t *testing.T, w *world) {
		p, err := w.envelope("app", "within")
		if err != nil {
			t.Fatal(cause(err))
		}
		if v, err := w.open(p); err != nil || v != "within" {
			t.Fatalf("%q, %v: %s", v, err, cause(err))
		}
		_, err = w.envelope(kmstest.Denied, "within")
		want(t, err, fault.Forbidden)

		other, err := w.envelope("app", "something else")
		if err != nil {
			t.Fatal(cause(err))
		}
		swapped := *p.Envelopment
		swapped.EncryptedKey = other.EncryptedKey // opens at the service, but not this data
		q := *p
		q.Envelopment, q.Annotations = &swapped, other.Annotations
		_, err = w.open(&q)
		want(t, err, fault.SealedInvalid)
		broken := *p.Envelopment
		raw, err := p.Key()
		if err != nil {
			t.Fatal(err)
		}
		raw[len(raw)/2] ^= 1
		broken.SetKey(p.KeyID, raw)
		q.Envelopment, q.Annotations = &broken, p.Annotations
		_, err = w.open(&q)
		want(t, err, fault.SealedInvalid)
	})
}

// The broker is asked for the credential each time, and the service lets the
// caller in once.
func TestCredentialsComeFromTheBroker(t *testing.T) {
	forEach(t, func(t *testing.T, w *world) {
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				if v, err := w.value("app"); err != nil || v != kmstest.Value {
					t.Errorf("%q, %v: %s", v, err, cause(err))
				}
			})
		}
		wg.Wait()
		if n := w.Logins(); n > 1 {
			t.Errorf("%d logins", n)
		}
		if n := int(w.fetched.Load()); n != 16*len(w.Resources) {
			t.Errorf("the broker was asked %d times", n)
		}
		before := w.Calls()
		w.refuse.Store(true)
		_, err := w.value("app")
		want(t, err, fault.PolicyDenied) // the broker's own word
		if w.Calls() != before {
			t.Error("the service was asked although the broker said no")
		}
	})
}

// The credential of somebody else opens nothing, and none that makes no sense.
func TestWrongCredentials(t *testing.T) {
	for name, start := range vendors {
		for kind, credential := range map[string]string{
			"another": start(t).Resources[kmstest.CredentialURI], "empty": "", "text": "x", "lines": "hush\r\nx: y", "json": `{"private_key":"hush"}`,
			"large": strings.Repeat("x", 1<<17),
		} {
			t.Run(name+" "+kind, func(t *testing.T) {
				w := newWorld(t, start(t))
				resources := maps.Clone(w.Resources)
				resources[kmstest.CredentialURI] = credential
				w.Resources = resources
				_, err := w.value("app")
				want(t, err, fault.Unauthenticated)
			})
		}
	}
}

// What passes is waited for; nothing else is asked twice.
func TestMoods(t *testing.T) {
	for kind, c := range map[string]struct {
		answer func(http.ResponseWriter, *http.Request)
		times  int
		code   fault.Code // empty: it works in the end
	}{
		"down once":  {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }, 1, ""},
		"cut once":   {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 1, ""},
		"down":       {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }, 99, fault.Unavailable},
		"not JSON":   {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }, 99, fault.Unavailable},
		"empty":      {func(http.ResponseWriter, *http.Request) {}, 99, fault.Unavailable},
		"no members": {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") }, 99, fault.Unavailable},
		"too large": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"x":"`+strings.Repeat("x", 5<<20)+`"}`)
		}, 99, fault.Unavailable},
	} {
		t.Run(kind, func(t *testing.T) {
			forEach(t, func(t *testing.T, w *world) {
				var n atomic.Int64
				w.Mood(func(rw http.ResponseWriter, r *http.Request) bool {
					if n.Add(1) > int64(c.times) {
						return false
					}
					c.answer(rw, r)
					return true
				})
				v, err := w.value("app")
				if c.code == "" {
					if err != nil || v != kmstest.Value {
						t.Fatalf("%q, %v: %s", v, err, cause(err))
					}
					return
				}
				want(t, err, c.code)
			})
		})
	}
}

// A redirect is not followed: where it leads, nobody gets to see a credential.
func TestRedirects(t *testing.T) {
	forEach(t, func(t *testing.T, w *world) {
		var asked atomic.Int64
		elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
		defer elsewhere.Close()
		w.Mood(func(rw http.ResponseWriter, r *http.Request) bool {
			http.Redirect(rw, r, elsewhere.URL, http.StatusTemporaryRedirect)
			return true
		})
		_, err := w.value("app")
		want(t, err, fault.Unavailable)
		if asked.Load() != 0 {
			t.Error("the redirect was followed")
		}
	})
}

// A server with another certificate gets nothing.
func TestStrangers(t *testing.T) {
	forEach(t, func(t *testing.T, w *world) {
		var asked atomic.Int64
		w.Mood(func(http.ResponseWriter, *http.Request) bool { asked.Add(1); return false })
		w.Settings = maps.Clone(w.Settings)
		roots := stranger(t)
		if _, ok := w.Resources["kbs:///prod/kms/ca"]; ok {
			w.Resources["kbs:///prod/kms/ca"] = roots
		} else {
			w.Settings["root_certificates"] = roots
		}
		_, err := w.value("app")
		want(t, err, fault.Unavailable)
		if asked.Load() != 0 {
			t.Error("it was asked something")
		}
	})
}

// stranger is a certificate that no server of the tests has.
func stranger(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "stranger"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// A token that is revoked is followed by another one.
func TestRevokedTokens(t *testing.T) {
	for _, name := range []string{"gcp", "azure"} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, vendors[name](t))
			for range 2 {
				if _, err := w.value("app"); err != nil {
					t.Fatal(cause(err))
				}
				w.Revoke()
			}
			if w.Logins() != 2 {
				t.Errorf("%d logins", w.Logins())
			}
		})
	}
}

func TestVaultLogins(t *testing.T) {
	s, roles := kmstest.VaultRoles(t)
	for name, role := range roles {
		t.Run(name, func(t *testing.T) {
			settings := maps.Clone(s.Settings)
			maps.Copy(settings, role.Settings)
			for credential, code := range map[string]fault.Code{role.Credential: "", "hush-else": fault.Unauthenticated} {
				o := kms.New(kms.Config{Fetch: func(context.Context, string) (secret.Bytes, error) { return secret.New([]byte(credential)), nil }})
				got, err := o.Open(t.Context(), &sealed.Payload{Type: sealed.Vault, Provider: "vault", Name: s.Secret("app"), Settings: settings})
				o.Close()
				if code != "" {
					want(t, err, code)
				} else if err != nil || string(got.Reveal()) != kmstest.Value {
					t.Fatalf("%v: %s", err, cause(err))
				}
			}
		})
	}
}

// Logins are kept for so many settings, and the oldest make room.
func TestManySettings(t *testing.T) {
	w := newWorld(t, kmstest.Vault(t))
	logsIn := func(times int) {
		t.Helper()
		before := w.Logins()
		if _, err := w.value("app"); err != nil {
			t.Fatal(cause(err))
		}
		if n := w.Logins() - before; n != times {
			t.Fatalf("%d logins, want %d", n, times)
		}
	}
	logsIn(1)
	logsIn(0)
	for n := range 8 {
		settings := maps.Clone(w.Settings)
		settings["namespace"] = strings.Repeat("x", n+1)
		_, err := w.open(&sealed.Payload{Type: sealed.Vault, Provider: "vault", Name: w.Secret("app"), Settings: settings})
		want(t, err, fault.Unauthenticated) // there is no such namespace, but a login is kept
	}
	logsIn(1)
}
