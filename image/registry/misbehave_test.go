package registry_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/image/internal/imagetest"
)

// plainServer serves plain HTTP and returns its host.
func plainServer(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

func readFull(t *testing.T, r io.Reader, p []byte) {
	t.Helper()
	_, err := io.ReadFull(r, p)
	imagetest.Must(t, err)
}
