package hostile

import (
	"net/http"
	"strings"
	"time"
)

// refusedPolicies must not be taken: they reach out of the engine, or are none.
var refusedPolicies = map[string]string{
	"http.send": `allow if http.send({"method": "GET", "url": "http://127.0.0.1:1/"}).status_code == 200`,
	"lookup":    `allow if count(net.lookup_ip_addr("localhost")) > 0`,
	"runtime":   `allow if opa.runtime().env.HOME != ""`,
	"recursion": "allow if other\nother if allow",
	"no policy": "\x00\x01",
}

// endlessPolicies can be read, and must be stopped when they run.
var endlessPolicies = map[string]string{
	"loop":       `allow if { some i in numbers.range(1, 100000); some j in numbers.range(1, 100000); i * j == -1 }`,
	"explode":    `allow if count([x | some i in numbers.range(1, 10000); some j in numbers.range(1, 10000); x := [i, j]]) == 7`,
	"long range": `allow if count(numbers.range(1, 10000000000)) == 7`,
	"brackets":   "allow if " + strings.Repeat("(", 10_000) + "false" + strings.Repeat(")", 10_000),
	"arrays":     "allow if " + strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000) + " == 7",
	"conflict":   "p := 1 if input\np := 2 if input\nallow if p == 1",
}

// policies puts hostile policies in the place of the one for resources, lets a
// guest run into them, and puts the good one back.
func (s *stage) policies() {
	set := func(rules string) request {
		return request{
			method: http.MethodPost, path: "/kbs/v0/resource-policy", bearer: s.admin,
			body: policyBody("", "package policy\nimport rego.v1\ndefault allow := false\n"+rules+"\n"),
		}
	}
	for what, rules := range refusedPolicies {
		s.refused(what, set(rules))
	}
	token := s.token() // the good policy is still in force
	for what, rules := range endlessPolicies {
		if a := s.send(set(rules)); a.status != http.StatusOK {
			continue // so much the better
		}
		begun := time.Now()
		a, err := s.try(s.Context(), request{method: http.MethodGet, path: "/kbs/v0/resource/" + good, bearer: token})
		if err != nil {
			s.Errorf("%s: %v", what, err)
			continue
		}
		if took := time.Since(begun); a.status < 400 || took > 20*time.Second {
			s.Errorf("%s: status %d after %v", what, a.status, took)
		}
		if err := wellFormed("/kbs/v0/", a); err != nil {
			s.Errorf("%s: %v: %.300s", what, err, a.body)
		}
		s.silent(what, a.body)
		s.Logf("%s: status %d after %v", what, a.status, time.Since(begun))
	}
	if a := s.send(request{method: http.MethodPost, path: "/kbs/v0/resource-policy", bearer: s.admin, body: s.resourcePolicy()}); a.status != http.StatusOK {
		s.Fatalf("the good policy: %d %s", a.status, a.body)
	}
	s.token()
}
