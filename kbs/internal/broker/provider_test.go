package broker

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
)

// A provider behind an authority of one's own is asked if that authority is
// named, and then no other counts.
func TestProviderBehindAnotherAuthority(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	idp := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "1", Algorithm: "ES256", Use: "sig"}}})
	}))
	idp.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // callers that do not trust it
	idp.StartTLS()
	defer idp.Close()
	dir := t.TempDir()
	write := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ca := write("ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: idp.Certificate().Raw}))
	s := &shared{Options: Options{Logger: slog.New(slog.DiscardHandler), Now: time.Now}}
	find := func(caFile string) error {
		p, err := s.provider(config.IdentityProvider{Issuer: idp.URL, Audience: "kbsctl", JWKSetURI: idp.URL + "/keys", CAFile: caFile})
		if err != nil {
			return err
		}
		_, err = p.Keys[0].Find(t.Context(), "1")
		return err
	}
	if err := find(ca); err != nil {
		t.Errorf("with its authority: %v", err)
	}
	for name, file := range map[string]string{
		"with those of the system": "", "with no file": filepath.Join(dir, "absent"), "with no certificate": write("empty.pem", []byte("nothing")),
	} {
		if find(file) == nil {
			t.Errorf("%s it was believed", name)
		}
	}
}
