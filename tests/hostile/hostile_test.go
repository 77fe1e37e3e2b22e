package hostile

import (
	"fmt"
	"math/rand/v2" //nolint:depguard // noise that a seed can repeat
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

func TestHostile(t *testing.T) {
	s := newStage(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	routes := s.routes()
	t.Run("policies", s.with((*stage).policies))
	before := s.inventory()
	patience := s.beginSlow()
	t.Run("bodies", s.with(func(s *stage) { s.bodies(routes, rand.New(rand.NewPCG(seed, 0))) }))
	t.Run("base64", s.with((*stage).alphabets))
	t.Run("paths", s.with(func(s *stage) { s.paths(routes) }))
	t.Run("queries", s.with(func(s *stage) { s.queries(routes) }))
	t.Run("tokens", s.with(func(s *stage) { s.tokens(routes) }))
	t.Run("cookies", s.with((*stage).cookies))
	t.Run("keys", s.with((*stage).keys))
	t.Run("heads", s.with((*stage).heads))
	t.Run("slow", s.with(func(s *stage) { s.endSlow(patience) }))
	t.Run("aftermath", s.with(func(s *stage) { s.aftermath(before) }))
}

// inventory is what administrators have put into the broker, as the lists of
// the API show it.
func (s *stage) inventory() string {
	s.Helper()
	var out strings.Builder
	for _, list := range []string{"resources", "policies", "refvalues", "refsets", "signers", "tenants", "keys/token", "keys/master", "revocations", "approvals"} {
		r := request{method: http.MethodGet, path: "/v1/" + list, admins: true, bearer: s.admin}
		a := s.send(r)
		if a.status != http.StatusOK {
			s.Fatalf("%s: %d %s", r, a.status, a.body)
		}
		fmt.Fprintf(&out, "%s %s\n", list, steady.ReplaceAllString(string(a.body), ""))
	}
	return out.String()
}

// aftermath demands that the broker is what it was before.
func (s *stage) aftermath(before string) {
	if a := s.send(request{method: http.MethodGet, path: "/readyz", admins: true}); a.status != http.StatusOK {
		s.Errorf("readyz: %d %s", a.status, a.body)
	}
	if after := s.inventory(); after != before {
		s.Errorf("what administrators put into the broker has changed:\n%s\nbefore:\n%s", after, before)
	}
	s.token()
	log, err := os.ReadFile(s.world.Broker.Log())
	if err != nil {
		s.Fatal(err)
	}
	s.silent("the log", log)
	for _, word := range []string{"panic", "goroutine ", "runtime error"} {
		if at := strings.Index(string(log), word); at >= 0 {
			s.Errorf("the log says %q: %.400s", word, log[at:])
		}
	}
	const most = 200 << 10 // KiB
	deadline := time.Now().Add(20 * time.Second)
	for s.resident() > most { // what was freed goes back to the system with time
		if time.Now().After(deadline) {
			s.Errorf("the broker holds %d KiB of memory, more than %d", s.resident(), most)
			break
		}
		s.token()
	}
	s.Logf("resident memory: %d KiB", s.resident())
}

// resident is the broker's resident memory, in KiB.
func (s *stage) resident() (size int) {
	s.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.world.Broker.PID()))
	if err != nil {
		s.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			if _, err := fmt.Sscan(rest, &size); err != nil {
				s.Fatal(err)
			}
		}
	}
	return size
}
