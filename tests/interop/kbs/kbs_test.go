// Package kbs drives the real broker with a guest that was written from the
// specification alone (see secondguest), so that what both halves of this
// project agree upon is also what the field agreed upon.
package kbs

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/tests/internal/secondguest"
	"github.com/vouchsafe-cc/vouchsafe/tests/internal/world"
)

const bin = "../../../bin"

// stage is a broker that knows one chip, with its policies and one secret set
// by the calls of the field's admin client.
type stage struct {
	*testing.T
	world *world.World
	chip  *secondguest.Chip
	value []byte
}

const attestationPolicy = `package policy
import rego.v1
default executables := 33
executables := 3 if input.snp.measurement in query_reference_value("snp_launch_measurement")
executables := 3 if input.sample.launch_digest == "abcde"
default hardware := 97
hardware := 2 if input.snp.simulated_root == "second"
hardware := 2 if input.sample.svn == "1"
trust_claims := {"executables": executables, "hardware": hardware, "configuration": 2}
`

const resourcePolicy = `package policy
import rego.v1
default allow := false
allow if {
	data.plugin == "resource"
	data["resource-path"][0] == "interop"
	input.submods.cpu0["ear.status"] == "affirming"
}
`

func newStage(t *testing.T, config string) *stage {
	t.Helper()
	if _, err := os.Stat(filepath.Join(bin, "kbs")); err != nil {
		t.Skip("the commands are not built: make build")
	}
	programs, err := filepath.Abs(bin)
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{T: t, value: make([]byte, 4096)}
	rand.Read(s.value)
	if s.world, err = world.New(t.TempDir(), programs); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.world.Close(); err != nil {
			t.Error(err)
		}
	})
	if s.chip, err = secondguest.NewChip(); err != nil {
		t.Fatal(err)
	}
	root := s.world.Path("second.pem")
	if err := os.WriteFile(root, s.chip.Roots, 0o600); err != nil {
		t.Fatal(err)
	}
	s.world.BrokerConfig = config
	if err := s.world.StartBroker(t.Context(), map[string]string{"second": root}); err != nil {
		t.Fatal(err)
	}
	s.set()
	return s
}

// set configures the broker as the field's admin client does (kbs-protocol 7).
func (s *stage) set() {
	s.Helper()
	b64 := base64.RawURLEncoding.EncodeToString
	s.admin(http.MethodPost, "/attestation-policy", `{"type":"rego","policy_id":"default_cpu","policy":"`+b64([]byte(attestationPolicy))+`"}`)
	s.admin(http.MethodPost, "/resource-policy", `{"policy":"`+b64([]byte(resourcePolicy))+`"}`)
	values, err := json.Marshal(map[string]any{"snp_launch_measurement": []string{hexOf(s.chip.Measurement[:])}})
	if err != nil {
		s.Fatal(err)
	}
	message, err := json.Marshal(map[string]any{"version": "0.1.0", "type": "sample", "payload": values})
	if err != nil {
		s.Fatal(err)
	}
	s.admin(http.MethodPost, "/reference-value", string(message))
	s.admin(http.MethodPost, "/resource/interop/key/1", string(s.value))
	if got := s.admin(http.MethodGet, "/resource-policy", ""); string(got) != `["resource-policy"]` {
		s.Errorf("resource policies: %s", got)
	}
	if got := s.admin(http.MethodGet, "/reference-value/snp_launch_measurement", ""); string(got) != `["`+hexOf(s.chip.Measurement[:])+`"]` {
		s.Errorf("reference value: %s", got)
	}
}

// admin makes one call of the field's admin client, on the one address that
// such a client knows: the guests'.
func (s *stage) admin(method, path, body string) []byte {
	s.Helper()
	g := s.guest(nil)
	token, err := os.ReadFile(s.world.Broker.TokenFile())
	if err != nil {
		s.Fatal(err)
	}
	a, err := g.Do(s.Context(), method, "/kbs/v0"+path, []byte(body), func(r *http.Request) {
		r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	})
	if err != nil {
		s.Fatalf("%s %s: %v", method, path, err)
	}
	return a.Body
}

// guest is a new guest of the good chip.
func (s *stage) guest(key *secondguest.Key) *secondguest.Guest {
	s.Helper()
	pem, err := os.ReadFile(s.world.Broker.CA)
	if err != nil {
		s.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
	s.Cleanup(transport.CloseIdleConnections)
	return &secondguest.Guest{
		Base: s.world.Broker.URL, Version: "0.4.0", TEE: "snp", Key: key, Evidence: s.chip.Evidence,
		HTTP: &http.Client{Transport: transport, Timeout: 30 * time.Second},
	}
}

func (s *stage) key(kind string) *secondguest.Key {
	s.Helper()
	k, err := secondguest.NewKey(kind)
	if err != nil {
		s.Fatal(err)
	}
	return k
}

// fetch is a whole guest's life: handshake, and the secret by cookie and by
// bearer token.
func (s *stage) fetch(g *secondguest.Guest) {
	s.Helper()
	token, err := g.Handshake(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	for name, bearer := range map[string]string{"cookie": "", "bearer": token} {
		got, err := g.Resource(s.Context(), "interop/key/1", bearer)
		if err != nil || !bytes.Equal(got, s.value) {
			s.Errorf("by %s: %d bytes, %v", name, len(got), err)
		}
	}
}

// refused demands an error of the given status with a whole error body.
func (s *stage) refused(err error, status int, kind string) secondguest.Information {
	s.Helper()
	var e *secondguest.Error
	if !errors.As(err, &e) {
		s.Fatalf("got %v, want status %d", err, status)
	}
	info, ierr := e.Information()
	if e.Status != status || ierr != nil || !strings.HasSuffix(info.Type, "/"+kind) {
		s.Errorf("status %d, body %s (%v), want %d %s", e.Status, e.Body, ierr, status, kind)
	}
	return info
}

func hexOf(b []byte) string {
	const digits = "0123456789abcdef"
	out := make([]byte, 0, 2*len(b))
	for _, v := range b {
		out = append(out, digits[v>>4], digits[v&15])
	}
	return string(out)
}
