package hostile

import (
	"encoding/base64"
	"fmt"
	"maps"
	"math/rand/v2" //nolint:depguard // noise that a seed can repeat
	"net/http"
	"slices"
	"strings"
)

// bodies sends to each route that reads a body what is no such body.
func (s *stage) bodies(routes []route, random *rand.Rand) {
	token := s.token()
	huge := strings.Repeat("x", 1<<20)
	for _, r := range routes {
		if !r.writes() || strings.Contains(r.pattern, "{path}") {
			continue
		}
		req := s.request(r, token)
		req.body = `{"policy":"` + huge + `"}`
		s.refused("oversized", req)
		if !r.json {
			continue // any bytes are as good as others
		}
		for what, body := range malformed(r, random) {
			req.body = body
			s.refused(what, req)
		}
	}
}

// malformed returns bodies that are no JSON, or not the JSON of the route.
func malformed(r route, random *rand.Rand) map[string]string {
	out := map[string]string{
		"truncated":       `{"policy":"eA`,
		"truncated value": `{"version":`,
		"nested arrays":   strings.Repeat("[", 200) + strings.Repeat("]", 200),
		"nested objects":  strings.Repeat(`{"payload":`, 200) + "1" + strings.Repeat("}", 200),
		"nothing closed":  strings.Repeat(`[`, 100_000),
		"array":           `[]`,
		"string":          `"x"`,
		"number":          `17`,
		"two values":      `{} {}`,
		"NUL":             "{\"a\x00\":1}",
		"not UTF-8":       "{\"\xff\xfe\":\"\xff\"}",
		"byte order mark": "\ufeff{",
		"no JSON":         "kind: Policy\n",
	}
	for i := range 3 {
		noise := make([]byte, 1+random.IntN(300))
		for j := range noise {
			noise[j] = byte(random.Uint32())
		}
		out[fmt.Sprintf("noise %d", i)] = "{" + string(noise)
	}
	for _, name := range slices.Sorted(maps.Keys(r.fields)) {
		wrong := map[string]string{"string": `{"a":[17]}`, "integer": `"x"`, "boolean": `"x"`, "array": `"x"`, "object": `"x"`, "number": `"x"`}[r.fields[name]]
		if wrong == "" {
			continue // it may be anything
		}
		out["wrong type of "+name] = fmt.Sprintf(`{%q:%s}`, name, wrong)
		out["endless "+name] = fmt.Sprintf(`{%q:1e999999}`, name)
		out["duplicate "+name] = fmt.Sprintf(`{%q:null,%q:null}`, name, name)
	}
	return out
}

// alphabets sends base64 that is not.
func (s *stage) alphabets() {
	policy := base64.RawURLEncoding.EncodeToString([]byte("package policy\nimport rego.v1\ndefault allow := true\n"))
	for what, text := range map[string]string{
		"no alphabet": "!!!!" + policy, "space": policy[:8] + " " + policy[8:], "NUL": policy[:8] + `\u0000` + policy[8:],
		"both alphabets": policy + "+_/-", "padding within": policy[:8] + "==" + policy[8:], "one letter over": policy[:9], "other letters": policy[:8] + "é" + policy[8:],
	} {
		for _, path := range []string{"/kbs/v0/resource-policy", "/kbs/v0/attestation-policy"} {
			s.refused(what, request{
				method: http.MethodPost, path: path, bearer: s.admin,
				body: `{"type":"rego","policy_id":"alphabet","policy":"` + text + `"}`,
			})
		}
		s.refused(what, request{
			method: http.MethodPut, path: "/v1/signers/alphabet", admins: true, bearer: s.admin,
			body: `{"public_key":"` + text + `","prefixes":["a"]}`,
		})
	}
}
