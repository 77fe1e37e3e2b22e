package kmstest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"regexp"
	"sort"
	"strings"
)

// authorization is a header of AWS's Signature Version 4 or Alibaba's version 3.
var authorization = regexp.MustCompile(`^(AWS4-HMAC-SHA256|ACS3-HMAC-SHA256) Credential=([^,]+), ?SignedHeaders=([a-z0-9;-]+), ?Signature=([0-9a-f]{64})$`)

// claim is what a request says of who signed it, and the request as signed.
type claim struct {
	scheme, credential, signature string
	signed                        []string
	canonical                     string
}

func readClaim(r *http.Request, payload []byte) (c claim, ok bool) {
	m := authorization.FindStringSubmatch(r.Header.Get("Authorization"))
	if m == nil {
		return c, false
	}
	c = claim{scheme: m[1], credential: m[2], signed: strings.Split(m[3], ";"), signature: m[4]}
	if !sort.StringsAreSorted(c.signed) {
		return c, false
	}
	lines := []string{r.Method, r.URL.EscapedPath(), r.URL.RawQuery}
	for _, name := range c.signed {
		value := r.Host
		if name != "host" {
			value = strings.TrimSpace(r.Header.Get(name))
		}
		lines = append(lines, name+":"+value)
	}
	lines = append(lines, "", m[3], sum(payload))
	c.canonical = strings.Join(lines, "\n")
	return c, true
}

// covers reports whether the signature covers the headers that it must: the host
// and all of the vendor's.
func (c claim) covers(r *http.Request, prefix string) bool {
	have := map[string]bool{}
	for _, name := range c.signed {
		have[name] = true
	}
	for name := range r.Header {
		if lower := strings.ToLower(name); strings.HasPrefix(lower, prefix) && !have[lower] {
			return false
		}
	}
	return have["host"]
}

func (c claim) is(signature []byte) bool {
	return hmac.Equal([]byte(c.signature), []byte(hex.EncodeToString(signature)))
}

func sum(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

func keyed(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}
