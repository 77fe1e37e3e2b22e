package server_test

import (
	"cmp"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/server"
)

// known is a front's tenants: what reached each, as it saw it.
type known struct {
	reached func(tenant string, r *http.Request)
}

func (k known) Handlers(_ context.Context, name string) (server.Handlers, error) {
	if name != "default" && name != "a" {
		return server.Handlers{}, server.ErrNoTenant
	}
	h := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { k.reached(name, r) })
	return server.Handlers{Guest: h, Admin: h}, nil
}

func (k known) OfHost(_ context.Context, host string) (string, error) {
	if host == "a.example" {
		return "a", nil
	}
	return "", nil
}

// Whatever the target, a request reaches a tenant only by its host or under its
// path, and the tenant sees the rest of the path and nothing else.
func FuzzFront(f *testing.F) {
	for _, target := range []string{"/", "/t/a/v1/x", "/t/a", "/t/b/x", "/t/a/../b", "/t/%61/x", "/t/a%2fx", "/t/a/%2e%2e/b?q=/t/b", "//t/a/x", "/t/a//x"} {
		f.Add(target, "")
	}
	f.Add("/t/b/x", "a.example")
	f.Add("/t/a/0/", "")
	lost := server.New(server.Deps{Logger: slog.New(slog.DiscardHandler), Now: time.Now, MaxBody: 1 << 10})
	f.Fuzz(func(t *testing.T, target, host string) {
		u, err := url.ParseRequestURI(target)
		if err != nil || !strings.HasPrefix(target, "/") {
			return
		}
		raw, _, _ := strings.Cut(target, "?")
		front := server.NewFront(known{func(tenant string, r *http.Request) {
			seen := r.URL.EscapedPath()
			switch {
			case tenant == "a" && host == "a.example", tenant == "default" && !strings.HasPrefix(u.EscapedPath(), api.PathTenant):
				if seen != u.EscapedPath() {
					t.Errorf("%q of %q became %q", tenant, target, seen)
				}
			case !strings.HasPrefix(u.EscapedPath()+"/", api.PathTenant+tenant+"/") ||
				seen != cmp.Or(strings.TrimPrefix(u.EscapedPath(), api.PathTenant+tenant), "/"):
				t.Errorf("%q of host %q reached %q as %q", raw, host, tenant, seen)
			}
		}}, "default", lost)
		r := &http.Request{Method: http.MethodPatch, URL: u, Host: host, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("")), RequestURI: target}
		front.Admin().ServeHTTP(httptest.NewRecorder(), r.WithContext(t.Context()))
	})
}
