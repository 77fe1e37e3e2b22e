// Package hostile drives every endpoint of a real broker with what a caller
// should never send, and demands of each answer that it is the right kind of
// refusal, well formed, and silent about what the broker keeps; and of the
// broker that it is afterwards what it was before.
package hostile

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/tests/internal/secondguest"
	"github.com/vouchsafe-cc/vouchsafe/tests/internal/world"
)

const bin = "../../bin"

// good is the resource that a good guest gets, before and after.
const good = "hostile/key/1"

// stage is one broker with a secret, a reference value and policies that each
// carry a canary: a text that no refusal and no line of the log may repeat.
type stage struct {
	*testing.T
	world    *world.World
	chip     *secondguest.Chip
	admin    string // the administrator's credential
	client   *http.Client
	value    string
	canaries map[string]string // by what they would give away
}

const attestationPolicy = `package policy
import rego.v1
# %s
default executables := 33
executables := 3 if input.snp.measurement in query_reference_value("snp_launch_measurement")
trust_claims := {"executables": executables, "hardware": 2, "configuration": 2}
`

const resourcePolicy = `package policy
import rego.v1
# %s
default allow := false
allow if input.submods.cpu0["ear.status"] == "affirming"
`

func newStage(t *testing.T) *stage {
	t.Helper()
	if _, err := os.Stat(filepath.Join(bin, "kbs")); err != nil {
		t.Skip("the commands are not built: make build")
	}
	programs, err := filepath.Abs(bin)
	if err != nil {
		t.Fatal(err)
	}
	// A rate limit would hide the answers; a small body limit saves megabytes.
	t.Setenv("KBS_LIMITS_FAILURES_PER_SECOND", "0")
	t.Setenv("KBS_LIMITS_HEAD_SECONDS", "2")
	t.Setenv("KBS_HTTP_SERVER_PAYLOAD_REQUEST_SIZE", "1")
	s := &stage{T: t, canaries: map[string]string{}}
	for _, of := range []string{"secret", "policy", "reference"} {
		s.canaries[of] = "canary-" + of + "-" + rand.Text()
	}
	s.value = s.canaries["secret"]
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
	s.canaries["measurement"] = hex.EncodeToString(s.chip.Measurement[:])
	root := s.world.Path("chip.pem")
	if err := os.WriteFile(root, s.chip.Roots, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.world.StartBroker(t.Context(), map[string]string{"chip": root}); err != nil {
		t.Fatal(err)
	}
	s.connect()
	s.furnish()
	return s
}

func (s *stage) connect() {
	s.Helper()
	token, err := os.ReadFile(s.world.Broker.TokenFile())
	if err != nil {
		s.Fatal(err)
	}
	s.admin = strings.TrimSpace(string(token))
	transport := &http.Transport{TLSClientConfig: s.tls(), MaxIdleConnsPerHost: 8}
	s.Cleanup(transport.CloseIdleConnections)
	s.client = &http.Client{Transport: transport, Timeout: 30 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
}

func (s *stage) tls() *tls.Config {
	s.Helper()
	pem, err := os.ReadFile(s.world.Broker.CA)
	if err != nil {
		s.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
}

// furnish gives the broker what it is there to protect.
func (s *stage) furnish() {
	s.Helper()
	for _, set := range []request{
		{method: http.MethodPost, path: "/kbs/v0/attestation-policy", body: policyBody("default_cpu", fmt.Sprintf(attestationPolicy, s.canaries["policy"]))},
		{method: http.MethodPost, path: "/kbs/v0/resource-policy", body: s.resourcePolicy()},
		{method: http.MethodPost, path: "/kbs/v0/resource/" + good, body: s.value},
		{method: http.MethodPut, path: "/v1/refvalues/snp_launch_measurement", admins: true, body: `{"value":["` + s.canaries["measurement"] + `"]}`},
		{method: http.MethodPut, path: "/v1/refvalues/canary", admins: true, body: `{"value":["` + s.canaries["reference"] + `"]}`},
	} {
		set.bearer = s.admin
		if a := s.send(set); a.status != http.StatusOK {
			s.Fatalf("%s: %d %s", set, a.status, a.body)
		}
	}
}

func (s *stage) resourcePolicy() string {
	return policyBody("", fmt.Sprintf(resourcePolicy, s.canaries["policy"]))
}

// policyBody is the body of the field's calls that set a policy.
func policyBody(id, text string) string {
	b, err := json.Marshal(map[string]string{"type": "rego", "policy_id": id, "policy": base64.RawURLEncoding.EncodeToString([]byte(text))})
	if err != nil {
		panic(err) // two strings
	}
	if id == "" {
		b, _ = json.Marshal(map[string]string{"policy": base64.RawURLEncoding.EncodeToString([]byte(text))})
	}
	return string(b)
}

// request is one request, its path as it goes over the wire.
type request struct {
	method, path string
	admins       bool // to the administrators' listener
	bearer       string
	header       http.Header
	body         string
}

func (r request) String() string { return fmt.Sprintf("%s %.120s", r.method, r.path) }

type answer struct {
	status int
	header http.Header
	body   []byte
}

// send sends a request and checks what holds for every answer.
func (s *stage) send(r request) answer {
	s.Helper()
	a, err := s.try(s.Context(), r)
	if err != nil {
		s.Fatalf("%s: %v", r, err)
	}
	s.check(r, a)
	return a
}

func (s *stage) try(ctx context.Context, r request) (answer, error) {
	base, err := url.Parse(s.world.Broker.URL)
	if r.admins {
		base, err = url.Parse(s.world.Broker.AdminURL)
	}
	if err != nil {
		return answer{}, err
	}
	req, err := http.NewRequestWithContext(ctx, r.method, base.String(), strings.NewReader(r.body))
	if err != nil {
		return answer{}, err
	}
	req.URL = &url.URL{Scheme: base.Scheme, Host: base.Host, Opaque: r.path} // not cleaned on the way
	for name, values := range r.header {
		req.Header[name] = values
	}
	if r.bearer != "" {
		req.Header.Set("Authorization", "Bearer "+r.bearer)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, body}, err
}

// check demands that an answer is no failure of the broker's, that a refusal is
// well formed, and that it says nothing of what the broker keeps.
func (s *stage) check(r request, a answer) {
	s.Helper()
	if a.status >= 500 && a.status != http.StatusServiceUnavailable {
		s.Errorf("%s: status %d: %.300s", r, a.status, a.body)
	}
	if a.status < 400 {
		return
	}
	if err := wellFormed(r.path, a); err != nil {
		s.Errorf("%s: status %d: %v: %.300s", r, a.status, err, a.body)
	}
	var head bytes.Buffer
	_ = a.header.Write(&head) // a buffer takes everything
	s.silent(r.String(), append(head.Bytes(), a.body...))
}

// silent demands that no canary is in a text.
func (s *stage) silent(of string, text []byte) {
	s.Helper()
	for what, canary := range s.canaries {
		if bytes.Contains(text, []byte(canary)) {
			s.Errorf("%s gives a %s away", of, what)
		}
	}
}

// wellFormed checks the form of a refusal: that of kbs-protocol 2.4 under
// /kbs/v0, problem details (RFC 9457) everywhere else.
func wellFormed(path string, a answer) error {
	var body struct{ Type, Detail, Code string }
	if err := json.Unmarshal(a.body, &body); err != nil {
		return err
	}
	media, field := a.header.Get("Content-Type"), strings.HasPrefix(path, "/kbs/v0/")
	switch {
	case body.Code == "":
		return fmt.Errorf("no code in %s", media)
	case field && (media != "application/json" || body.Type == "" || body.Detail == ""):
		return fmt.Errorf("not an error of the field's: %s", media)
	case !field && media != "application/problem+json":
		return fmt.Errorf("no problem details: %s", media)
	}
	return nil
}

// refused demands a refusal because of the request.
func (s *stage) refused(what string, r request) {
	s.Helper()
	if a := s.send(r); a.status < 400 || a.status >= 500 {
		s.Errorf("%s, %s: status %d: %.200s", what, r, a.status, a.body)
	}
}

// guest is a new guest of the good chip.
func (s *stage) guest() *secondguest.Guest {
	s.Helper()
	key, err := secondguest.NewKey(secondguest.P256)
	if err != nil {
		s.Fatal(err)
	}
	return &secondguest.Guest{Base: s.world.Broker.URL, Version: "0.4.0", TEE: "snp", Key: key, Evidence: s.chip.Evidence, HTTP: s.client}
}

// token is a good guest's attestation token, after it got its secret with it.
func (s *stage) token() string {
	s.Helper()
	g := s.guest()
	token, err := g.Handshake(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	if got, err := g.Resource(s.Context(), good, token); err != nil || string(got) != s.value {
		s.Errorf("a good guest got %d bytes: %v", len(got), err)
	}
	return token
}

// with is the stage for a subtest.
func (s *stage) with(f func(*stage)) func(*testing.T) {
	return func(t *testing.T) {
		sub := *s
		sub.T = t
		f(&sub)
	}
}
