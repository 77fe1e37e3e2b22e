package passport

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/measure"
)

// attester says what it was asked about.
type attester struct{ err error }

func (attester) Platform() measure.Platform { return measure.TDX }
func (a attester) Evidence(_ context.Context, d measure.ReportData) (measure.Evidence, error) {
	raw, err := json.Marshal(map[string]any{"over": d[:]})
	return measure.Evidence{Platform: measure.TDX, Data: raw}, errors.Join(err, a.err)
}

func source(t *testing.T, a measure.Attester, answer http.HandlerFunc) *Source {
	t.Helper()
	srv := httptest.NewTLSServer(answer)
	t.Cleanup(srv.Close)
	s, err := New(Config{URL: srv.URL + "/", RootCAs: srv.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs, Attester: a})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The request is, member by member, that of guest-protocol 7.6.
func TestToken(t *testing.T) {
	s := source(t, attester{}, func(w http.ResponseWriter, r *http.Request) {
		raw, err := io.ReadAll(r.Body)
		want := `{"verification_requests":[{"tee":"tdx","evidence":"` +
			base64.RawURLEncoding.EncodeToString([]byte(`{"over":"`+base64.StdEncoding.EncodeToString(make([]byte, 64))+`"}`)) + `"}],"policy_ids":[]}`
		if err != nil || r.Method != http.MethodPost || r.URL.Path != "/attestation" || r.Header.Get("Content-Type") != "application/json" || string(raw) != want {
			t.Errorf("%s %s %s, want %s; %v", r.Method, r.URL, raw, want, err)
		}
		_, _ = io.WriteString(w, "e30.e30.c2ln")
	})
	token, err := s.Token(t.Context())
	if err != nil || string(token.Reveal()) != "e30.e30.c2ln" {
		t.Fatalf("%v", err)
	}
}

// Whatever the service answers, the caller has a fault with nothing of it.
func TestHostileAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		body   string
		code   fault.Code
	}{
		"refused":           {403, "your chip is revoked", fault.Forbidden},
		"not authenticated": {401, "no", fault.Unauthenticated},
		"broken":            {500, "oops", fault.Internal},
		"away":              {503, "later", fault.Unavailable},
		"redirected":        {307, "", fault.Unavailable},
		"nothing":           {200, "", fault.Internal},
		"a page":            {200, "<html>", fault.Internal},
		"two lines":         {200, "e30.e30.c2ln\r\n", fault.Internal},
		"endless":           {200, "e30." + strings.Repeat("A", maxToken) + ".c2ln", fault.Internal},
	} {
		t.Run(name, func(t *testing.T) {
			s := source(t, attester{}, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
			})
			_, err := s.Token(t.Context())
			if fault.CodeOf(err) != c.code || err.Error() != string(c.code) {
				t.Errorf("%v, want %s", err, c.code)
			}
		})
	}
	s := source(t, attester{err: errors.New("no hardware")}, nil)
	if _, err := s.Token(t.Context()); fault.CodeOf(err) != fault.Internal {
		t.Errorf("%v", err)
	}
	other := source(t, attester{}, nil)
	other.http.Transport.(*http.Transport).TLSClientConfig.RootCAs = nil
	if _, err := other.Token(t.Context()); fault.CodeOf(err) != fault.Unavailable {
		t.Errorf("a certificate of nobody known: %v", err)
	}
}

func TestNew(t *testing.T) {
	for name, cfg := range map[string]Config{
		"plain http": {URL: "http://as", Attester: attester{}},
		"no host":    {URL: "https:///x", Attester: attester{}},
		"a user":     {URL: "https://u@as", Attester: attester{}},
		"a query":    {URL: "https://as?x", Attester: attester{}},
		"a file":     {URL: "file:///as", Attester: attester{}},
		"nothing":    {Attester: attester{}},
		"nobody":     {URL: "https://as"},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := New(Config{URL: "http://as", Attester: attester{}, UnsafePlainHTTP: true}); err != nil {
		t.Error(err)
	}
}
