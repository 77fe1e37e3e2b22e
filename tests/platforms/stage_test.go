// Package platforms runs guests of the platforms beside SNP against a real
// broker: each attests, gets what its policies release, and is refused when
// what it booted is something else. The policies are the ones that a broker
// starts with.
package platforms

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client"
	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/tests/internal/world"
)

const (
	bin      = "../../bin"
	resource = "default/platforms/secret"
	value    = "what only a guest that booted this may know"
)

// stage is a broker with one secret.
type stage struct {
	*testing.T
	*world.World
}

// newStage starts a broker with tables for its verifiers.
func newStage(t *testing.T, verifiers func(s *stage) string) *stage {
	t.Helper()
	if _, err := os.Stat(filepath.Join(bin, "kbs")); err != nil {
		t.Skip("the commands are not built: make build")
	}
	programs, err := filepath.Abs(bin)
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{T: t}
	s.World, err = world.New(t.TempDir(), programs)
	s.must(err)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	s.BrokerConfig = verifiers(s)
	s.must(s.StartBroker(t.Context(), nil))
	s.must(os.WriteFile(s.Path("secret"), []byte(value), 0o600))
	s.apply(fmt.Sprintf("kind: Resource\nmetadata: {name: %s}\nspec: {valueFile: secret}\n", resource))
	return s
}

func (s *stage) must(errs ...error) {
	s.Helper()
	if err := errors.Join(errs...); err != nil {
		s.Fatal(err)
	}
}

func (s *stage) read(path string) []byte {
	s.Helper()
	raw, err := os.ReadFile(path)
	s.must(err)
	return raw
}

func (s *stage) apply(document string) {
	s.Helper()
	s.must(os.WriteFile(s.Path("document.yaml"), []byte(document), 0o600))
	_, err := s.Broker.Ctl(s.Context(), "apply", "-f", s.Path("document.yaml"))
	s.must(err)
}

// know makes good values known.
func (s *stage) know(values map[string]any) {
	s.Helper()
	var documents []string
	for name, v := range values {
		raw, err := json.Marshal([]any{v})
		s.must(err)
		documents = append(documents, fmt.Sprintf("kind: RefValue\nmetadata: {name: %s}\nspec: {value: %s}\n", name, raw))
	}
	s.apply(strings.Join(documents, "---\n"))
}

// acceptRoot writes the name of a simulated root into the policies that a
// broker starts with.
func (s *stage) acceptRoot(name string) {
	s.Helper()
	for _, policy := range []string{"attestation/default_cpu", "resource/resource-policy"} {
		text, err := s.Broker.Ctl(s.Context(), "get", "policy", policy, "-o", "manifest")
		s.must(err)
		accepting := strings.Replace(text, "accepted_simulated_roots := set()", fmt.Sprintf("accepted_simulated_roots := {%q}", name), 1)
		if accepting == text {
			s.Fatalf("%s has no list of simulated roots: %s", policy, text)
		}
		s.apply(accepting)
	}
}

// fetch asks for the secret as a guest with the given attester.
func (s *stage) fetch(guest measure.Attester) (string, error) {
	s.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(s.read(s.Broker.CA)) {
		s.Fatal("the broker's certificate is none")
	}
	c, err := client.New(client.Config{URL: s.Broker.URL, RootCAs: roots, Attester: guest})
	s.must(err)
	secret, err := c.Resource(context.Background(), "kbs:///"+resource)
	if err != nil {
		return "", err
	}
	defer secret.Destroy()
	return string(secret.Reveal()), nil
}

var ticket = regexp.MustCompile(`\(ticket ([0-9A-Z]{4}-[0-9A-Z]{4})\)`)

// refused demands that a guest was refused, and that the administrator finds
// out why: the claim that was not as wanted.
func (s *stage) refused(err error, claim, wanted string) {
	s.Helper()
	if err == nil {
		s.Fatal("it was not refused")
	}
	m := ticket.FindStringSubmatch(err.Error())
	if m == nil {
		s.Fatalf("no ticket in what came back: %v", err)
	}
	if wanted != "" && strings.Contains(err.Error(), wanted) {
		s.Errorf("the guest is told what it lacks: %v", err)
	}
	e, err := s.Broker.Explain(s.Context(), m[1])
	s.must(err)
	if !about(e, claim, wanted) {
		s.Errorf("the ticket says nothing about %s: %+v", claim, e)
	}
}

func about(e api.Explanation, claim, wanted string) bool {
	for _, f := range e.Findings {
		if strings.HasSuffix(f.Claim, claim) && (wanted == "" || strings.Contains(strings.Join(f.Wanted, " "), wanted)) {
			return true
		}
	}
	return false
}
