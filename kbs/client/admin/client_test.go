package admin

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// tokenFile writes a token that only the owner can read.
func tokenFile(t *testing.T, token string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// serve returns a client of an HTTPS server with the given handler.
func serve(t *testing.T, h http.HandlerFunc) (*Client, string) {
	t.Helper()
	s := httptest.NewTLSServer(h)
	t.Cleanup(s.Close)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	path := tokenFile(t, "first.token.value")
	c, err := New(Config{URL: s.URL, TokenFile: path, RootCAs: roots})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, path
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

func TestRoutes(t *testing.T) {
	ctx := t.Context()
	for _, tt := range []struct {
		name string
		call func(c *Client) error
		want string // method, escaped path, query
		body string
	}{
		{"list policies", func(c *Client) error { _, err := c.Policies(ctx); return err }, "GET /v1/policies", ""},
		{"get a policy", func(c *Client) error { _, err := c.Policy(ctx, "resource", "a"); return err }, "GET /v1/policies/resource/a", ""},
		{"put a policy", func(c *Client) error {
			_, err := c.PutPolicy(ctx, api.Policy{Kind: "resource", ID: "a", Version: 3, Rego: "package policy"})
			return err
		}, "PUT /v1/policies/resource/a", `"version":3`},
		{"delete a policy", func(c *Client) error { return c.DeletePolicy(ctx, "resource", "a", AnyVersion) }, "DELETE /v1/policies/resource/a", ""},
		{"list reference values", func(c *Client) error { _, err := c.RefValues(ctx); return err }, "GET /v1/refvalues", ""},
		{"get a reference value with slashes", func(c *Client) error { _, err := c.RefValue(ctx, "a/b"); return err }, "GET /v1/refvalues/a/b", ""},
		{"escape a reference value", func(c *Client) error { _, err := c.RefValue(ctx, "a?b#c%2f"); return err }, "GET /v1/refvalues/a%3Fb%23c%252f", ""},
		{"put a reference value", func(c *Client) error {
			_, err := c.PutRefValue(ctx, api.RefValue{Name: "a", Value: json.RawMessage(`["x"]`)})
			return err
		}, "PUT /v1/refvalues/a", `"value":["x"]`},
		{"delete a reference value", func(c *Client) error { return c.DeleteRefValue(ctx, "a", AnyVersion) }, "DELETE /v1/refvalues/a", ""},
		{"list resources", func(c *Client) error { _, err := c.Resources(ctx, ResourceQuery{Prefix: "a/b", Limit: 7}); return err }, "GET /v1/resources?limit=7&prefix=a%2Fb", ""},
		{"put a resource", func(c *Client) error {
			_, err := c.PutResource(ctx, "a/b/c", secret.Copy([]byte("raw")))
			return err
		}, "PUT /v1/resources/a/b/c", "raw"},
		{"delete a resource", func(c *Client) error { return c.DeleteResource(ctx, "a/b/c", AnyVersion) }, "DELETE /v1/resources/a/b/c", ""},
		{"list tickets", func(c *Client) error { _, err := c.Tickets(ctx, 7); return err }, "GET /v1/tickets?limit=7", ""},
		{"get a ticket", func(c *Client) error { _, err := c.Ticket(ctx, "7QK2-M9TD"); return err }, "GET /v1/tickets/7QK2-M9TD", ""},
		{"inclusion", func(c *Client) error { _, err := c.AuditInclusion(ctx, 1, 2); return err }, "GET /v1/audit/inclusion?index=1&size=2", ""},
		{"consistency", func(c *Client) error { _, err := c.AuditConsistency(ctx, 1, 2); return err }, "GET /v1/audit/consistency?new=2&old=1", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got, body, auth string
			c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
				got, auth = r.Method+" "+r.URL.RequestURI(), r.Header.Get("Authorization")
				b, _ := io.ReadAll(r.Body)
				body = string(b)
				answer(w, map[string]any{})
			})
			if err := tt.call(c); err != nil {
				t.Fatal(err)
			}
			if got != tt.want || auth != "Bearer first.token.value" || !strings.Contains(body, tt.body) {
				t.Fatalf("got %q with %q and body %q, want %q with %q", got, auth, body, tt.want, tt.body)
			}
		})
	}
}

func TestNamesCannotClimb(t *testing.T) {
	c, _ := serve(t, func(_ http.ResponseWriter, r *http.Request) { t.Errorf("a request went to %s", r.URL) })
	for _, name := range []string{"..", "a/../b", "", "a//b", "."} {
		if _, err := c.RefValue(t.Context(), name); fault.CodeOf(err) != fault.InvalidRequest {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestRefusals(t *testing.T) {
	for _, tt := range []struct {
		name   string
		status int
		body   string
		code   fault.Code
		ticket fault.Ticket
		cause  string
	}{
		{"problem", 403, `{"code":"policy_denied","ticket":"7QK2-M9TD","title":"t","detail":"because"}`, fault.PolicyDenied, "7QK2-M9TD", "because"},
		{"no detail", 409, `{"code":"conflict","title":"stale"}`, fault.Conflict, "", "stale"},
		{"unknown code", 404, `{"code":"made_up","ticket":"nonsense\u001b[31m"}`, fault.NotFound, "", "HTTP status 404"},
		{"not JSON", 502, `<html>`, fault.Unavailable, "", "HTTP status 502"},
		{"a success that is none", 302, ``, fault.Unavailable, "", "HTTP status 302"},
		{"body without end", 401, strings.Repeat(" ", maxProblem+1) + `{"code":"internal"}`, fault.Unauthenticated, "", "HTTP status 401"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", "https://elsewhere.invalid/")
				w.WriteHeader(tt.status)
				_, _ = io.WriteString(w, tt.body)
			})
			_, err := c.Policies(t.Context())
			f, ok := errors.AsType[*fault.Fault](err)
			if !ok || f.Code != tt.code || f.Ticket != tt.ticket || !strings.Contains(f.Cause().Error(), tt.cause) {
				t.Fatalf("got %v, cause %v", err, f.Cause())
			}
			if strings.Contains(err.Error(), tt.cause) {
				t.Fatal("the private cause is in the public text")
			}
		})
	}
}

func TestBadAnswers(t *testing.T) {
	for _, body := range []string{"", "[]", `{"items":3}`, "{"} {
		c, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) })
		if _, err := c.Policies(t.Context()); fault.CodeOf(err) != fault.Unavailable {
			t.Errorf("%q: %v", body, err)
		}
	}
}

func TestTokenIsReadAgain(t *testing.T) {
	var auth string
	c, path := serve(t, func(w http.ResponseWriter, r *http.Request) {
		auth = r.Header.Get("Authorization")
		answer(w, map[string]any{})
	})
	for _, token := range []string{"one", "two"} {
		if err := os.WriteFile(path, []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Policies(t.Context()); err != nil || auth != "Bearer "+token {
			t.Fatalf("sent %q, %v", auth, err)
		}
	}
}

func TestBadTokens(t *testing.T) {
	c, path := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("a request went out") })
	for _, tt := range []struct {
		name, content string
		mode          os.FileMode
		exposed       bool
	}{
		{"readable by the group", "hush.hush", 0o640, true},
		{"readable by others", "hush.hush", 0o604, true},
		{"empty", " \n", 0o600, false},
		{"two lines", "a\nb", 0o600, false},
		{"header injection", "a\r\nX-Evil: 1", 0o600, false},
		{"too large", strings.Repeat("a", maxToken+1), 0o600, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := os.WriteFile(path, []byte(tt.content), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, tt.mode); err != nil {
				t.Fatal(err)
			}
			_, err := c.Policies(t.Context())
			if err == nil || errors.Is(err, ErrTokenExposed) != tt.exposed {
				t.Fatalf("got %v", err)
			}
			if len(tt.content) > 3 && strings.Contains(err.Error(), tt.content) {
				t.Fatal("the token is in the error")
			}
		})
	}
	dir := t.TempDir()
	c.token = func(context.Context) (secret.Bytes, error) { return ReadToken(dir) }
	if _, err := c.Policies(t.Context()); err == nil {
		t.Fatal("a directory passed for a token file")
	}
}

func TestAddresses(t *testing.T) {
	for url, ok := range map[string]bool{
		"https://kbs.example:8081": true, "https://kbs.example/prefix": true,
		"http://127.0.0.1:8080": true, "http://[::1]:80": true, "http://localhost": true,
		"http://kbs.example": false, "http://10.0.0.1": false, "http://127.0.0.1.evil.example": false,
		"ftp://a": false, "kbs.example:8081": false, "": false, "https://": false,
		"https://user:pw@kbs.example": false, "https://a/?q=1": false,
	} {
		if _, err := New(Config{URL: url, TokenFile: "x"}); (err == nil) != ok {
			t.Errorf("%q: %v", url, err)
		}
	}
	if _, err := New(Config{URL: "https://a"}); !errors.Is(err, ErrNoToken) {
		t.Errorf("without a token file: %v", err)
	}
}

func TestUnreachable(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	url := s.URL
	s.Close()
	c, err := New(Config{URL: url, TokenFile: tokenFile(t, "x")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Policies(t.Context()); fault.CodeOf(err) != fault.Unavailable {
		t.Fatalf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Policies(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
}

func TestTimeout(t *testing.T) {
	release := make(chan struct{})
	c, _ := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	defer close(release)
	c.http.Timeout = 20 * time.Millisecond
	if _, err := c.Policies(t.Context()); fault.CodeOf(err) != fault.Unavailable {
		t.Fatalf("got %v", err)
	}
}

func TestUnknownCA(t *testing.T) {
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // it complains about the handshake
	s.StartTLS()
	defer s.Close()
	c, err := New(Config{URL: s.URL, TokenFile: tokenFile(t, "x"), RootCAs: x509.NewCertPool()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Policies(t.Context()); fault.CodeOf(err) != fault.Unavailable {
		t.Fatalf("got %v", err)
	}
}

func TestResource(t *testing.T) {
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/resources/a/b/c" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		answer(w, api.ResourceInfo{Path: "a/b/c", Version: 2})
	})
	if r, err := c.Resource(t.Context(), "a/b/c"); err != nil || r.Version != 2 {
		t.Fatalf("got %v, %v", r, err)
	}
	if _, err := c.Resource(t.Context(), "a/b/d"); fault.CodeOf(err) != fault.NotFound {
		t.Fatalf("nothing passed for a resource: %v", err)
	}
}

// A list is read to its end, or to the limit; pages that are empty are no end,
// and a broker that goes round in circles is noticed.
func TestResourcePages(t *testing.T) {
	pages := map[string]api.ResourcePage{
		"":  {Items: []api.ResourceInfo{{Path: "a/a/a"}, {Path: "a/a/b"}}, Continue: "b"},
		"b": {Continue: "c"},
		"c": {Items: []api.ResourceInfo{{Path: "a/a/d"}}},
		"x": {Continue: "x"},
	}
	start := ""
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		at := r.URL.Query().Get("continue")
		if at == "" {
			at = start
		}
		answer(w, pages[at])
	})
	for limit, want := range map[int]int{0: 3, 1: 1, 2: 2, 3: 3, 9: 3} {
		if all, err := c.Resources(t.Context(), ResourceQuery{Limit: limit}); err != nil || len(all) != want {
			t.Errorf("limit %d: %v, %v", limit, all, err)
		}
	}
	start = "x"
	if _, err := c.Resources(t.Context(), ResourceQuery{}); fault.CodeOf(err) != fault.Unavailable {
		t.Errorf("a list without an end: %v", err)
	}
}

// entries serves n audit entries, at most page of them at once.
func entries(n, page int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		from, _ := strconv.Atoi(r.URL.Query().Get("from"))
		limit, _ := strconv.Atoi(r.URL.Query().Get("limit"))
		some := []json.RawMessage{}
		for i := from; i < min(n, from+limit, from+page); i++ {
			some = append(some, json.RawMessage(fmt.Sprintf(`{"index":%d}`, i)))
		}
		all := map[string]any{"entries": some, "size": n}
		if next := from + len(some); next < n {
			all["continue"] = strconv.Itoa(next)
		}
		answer(w, all)
	}
}

func TestAuditEntries(t *testing.T) {
	for _, tt := range []struct {
		name        string
		n, page     int
		from, to    int64
		first, many int
	}{
		{"all", 1234, 500, 0, -1, 0, 1234},
		{"small pages", 25, 10, 0, -1, 0, 25},
		{"a part", 1000, 500, 3, 450, 3, 447},
		{"more than there is", 5, 500, 0, 10, 0, 5},
		{"none", 0, 500, 0, -1, 0, 0},
		{"an empty part", 5, 500, 3, 3, 3, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, _ := serve(t, entries(tt.n, tt.page))
			next := tt.first
			for raw, err := range c.AuditEntries(t.Context(), tt.from, tt.to) {
				if err != nil || string(raw) != fmt.Sprintf(`{"index":%d}`, next) {
					t.Fatalf("entry %d: %s, %v", next, raw, err)
				}
				next++
			}
			if next-tt.first != tt.many {
				t.Fatalf("got %d entries, want %d", next-tt.first, tt.many)
			}
		})
	}
}

func TestAuditEntriesStop(t *testing.T) {
	calls := 0
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		calls++
		entries(1000, 10)(w, r)
	})
	for _, err := range c.AuditEntries(t.Context(), 0, -1) {
		if err != nil {
			t.Fatal(err)
		}
		break
	}
	if calls != 1 {
		t.Fatalf("%d requests for one entry", calls)
	}
	c, _ = serve(t, func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{"entries": make([]int, auditPage+1)})
	})
	for _, err := range c.AuditEntries(t.Context(), 0, -1) {
		if fault.CodeOf(err) != fault.Unavailable {
			t.Fatalf("more entries than asked for: %v", err)
		}
	}
}

func TestProof(t *testing.T) {
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		p := base64.StdEncoding.EncodeToString([]byte("hash"))
		if strings.Contains(r.URL.Path, "consistency") {
			p = "%%%"
		}
		answer(w, map[string]any{"proof": []string{p}})
	})
	if p, err := c.AuditInclusion(t.Context(), 0, 1); err != nil || len(p) != 1 || string(p[0]) != "hash" {
		t.Fatalf("got %q, %v", p, err)
	}
	if _, err := c.AuditConsistency(t.Context(), 1, 2); fault.CodeOf(err) != fault.Unavailable {
		t.Fatalf("got %v", err)
	}
}

// Whatever an error answer says, the fault has a known code and a well-formed
// ticket or none, and shows nothing else.
func FuzzRefusal(f *testing.F) {
	f.Add(403, []byte(`{"code":"policy_denied","ticket":"7QK2-M9TD","detail":"because"}`))
	f.Add(500, []byte(`{"code":"made_up","ticket":"\u001b[2J"}`))
	f.Add(99, []byte(`[]`))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		err := refusal(&http.Response{StatusCode: status, Body: io.NopCloser(bytes.NewReader(body))})
		got, ok := errors.AsType[*fault.Fault](err)
		if !ok || !got.Code.Known() || got.Cause() == nil {
			t.Fatalf("got %v", err)
		}
		if _, err := fault.ParseTicket(string(got.Ticket)); got.Ticket != "" && err != nil {
			t.Fatalf("ticket %q", got.Ticket)
		}
	})
}
