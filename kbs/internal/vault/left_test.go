package vault

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// A token that the server refuses is not left behind.
func TestRefusedTokenIsCleared(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	defer server.Close()
	var given [][]byte
	c, err := New(Config{Address: server.URL, Now: time.Now, Auth: Auth{token: func() (secret.Bytes, error) {
		s := secret.Copy([]byte("hvs.hunter2"))
		given = append(given, s.Reveal())
		return s, nil
	}}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Do(t.Context(), Call{Method: http.MethodGet, Path: "x"}, nil); !errors.Is(err, ErrLogin) || len(given) == 0 {
		t.Fatalf("%d tokens, %v", len(given), err)
	}
	for _, b := range given {
		if len(bytes.Trim(b, "\x00")) > 0 {
			t.Errorf("%q is left", b)
		}
	}
}
