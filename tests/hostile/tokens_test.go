package hostile

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"time"
)

// forgeries are tokens that nobody but the broker could have made, had it.
func (s *stage) forgeries() map[string]string {
	s.Helper()
	token := s.token()
	parts := strings.Split(token, ".")
	head, payload, signature := decode(s, parts[0]), decode(s, parts[1]), parts[2]
	jwks := s.send(request{method: http.MethodGet, path: "/.well-known/jwks.json"})
	changed := func(object []byte, members map[string]any) string {
		var m map[string]any
		if err := json.Unmarshal(object, &m); err != nil {
			s.Fatal(err)
		}
		for name, value := range members {
			m[name] = value
		}
		out, err := json.Marshal(m)
		if err != nil {
			s.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(out)
	}
	unsigned := changed(head, map[string]any{"alg": "none"})
	hs := changed(head, map[string]any{"alg": "HS256"}) + "." + parts[1]
	mac := hmac.New(sha256.New, bytes.TrimSpace(jwks.body))
	mac.Write([]byte(hs))
	flipped := []byte(signature)
	flipped[10] ^= 1
	return map[string]string{
		"alg none":                unsigned + "." + parts[1] + ".",
		"alg none, signed":        unsigned + "." + parts[1] + "." + signature,
		"HS256 with the JWKS":     hs + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil)),
		"another kid":             changed(head, map[string]any{"kid": "../../etc/passwd"}) + "." + parts[1] + "." + signature,
		"a kid that is no text":   changed(head, map[string]any{"kid": []int{1}}) + "." + parts[1] + "." + signature,
		"a key of its own":        changed(head, map[string]any{"jwk": map[string]string{"kty": "EC"}, "jku": "https://127.0.0.1:1/jwks"}) + "." + parts[1] + "." + signature,
		"critical extension":      changed(head, map[string]any{"crit": []string{"b64"}, "b64": false}) + "." + parts[1] + "." + signature,
		"another payload":         parts[0] + "." + changed(payload, map[string]any{"exp": time.Now().Add(time.Hour).Unix()}) + "." + signature,
		"expired, and forged":     parts[0] + "." + changed(payload, map[string]any{"exp": 1}) + "." + signature,
		"another signature":       parts[0] + "." + parts[1] + "." + string(flipped),
		"no signature":            parts[0] + "." + parts[1] + ".",
		"zero signature":          parts[0] + "." + parts[1] + "." + strings.Repeat("A", len(signature)),
		"two parts":               parts[0] + "." + parts[1],
		"five parts":              token + ".a.b",
		"dots":                    strings.Repeat(".", 1000),
		"noise":                   rand.Text(),
		"100 KiB":                 strings.Repeat("a", 100<<10),
		"nested payload":          parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(strings.Repeat("[", 10_000))) + "." + signature,
		"an empty head":           "e30." + parts[1] + "." + signature,
		"standard base64":         strings.NewReplacer("-", "+", "_", "/").Replace(token) + "==",
		"not ASCII":               "é.é.é",
		"the administrator's + x": s.admin + "x",
	}
}

func decode(s *stage, part string) []byte {
	s.Helper()
	b, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		s.Fatal(err)
	}
	return b
}

// tokens presents each forgery, and the credential of the other side, to each
// route that wants a credential.
func (s *stage) tokens(routes []route) {
	forged := s.forgeries()
	token := s.token()
	for _, r := range routes {
		if r.access == "public" {
			continue
		}
		req := s.request(r, token)
		if r.json {
			req.body = `{"code":"image_policy"}`
		}
		credentials := map[string]string{"none": ""}
		if r.access == "guest" {
			credentials["the administrator's"] = s.admin
		} else {
			credentials["a guest's"] = token
		}
		for what, bearer := range forged {
			credentials[what] = bearer
		}
		for what, bearer := range credentials {
			req.bearer = bearer
			if a := s.send(req); a.status != http.StatusUnauthorized && a.status != http.StatusForbidden {
				s.Errorf("credential %s at %s %s: status %d: %.200s", what, r.method, r.pattern, a.status, a.body)
			}
		}
	}
}

// cookies answers challenges with sessions that are not one's own.
func (s *stage) cookies() {
	victim, thief := s.guest(), s.guest()
	theirs, err := victim.Auth(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	if _, err := thief.Auth(s.Context()); err != nil {
		s.Fatal(err)
	}
	body, err := victim.Attestation(theirs)
	if err != nil {
		s.Fatal(err)
	}
	own := &http.Request{Header: http.Header{}}
	thief.WithCookie(own)
	cookie := own.Header.Get("Cookie")
	name, value, _ := strings.Cut(cookie, "=")
	for what, text := range map[string]string{
		"of another": cookie, "none": "", "noise": name + "=" + rand.Text(), "empty": name + "=", "cut": cookie[:len(cookie)/2], "longer": cookie + "A",
		"100 KiB": name + "=" + strings.Repeat("a", 100<<10), "quoted": name + `="` + value + ``, "many": strings.Repeat(name+"=a; ", 2000), "path": name + "=../../" + value,
	} {
		head := http.Header{"Cookie": {text}}
		s.refused("cookie "+what, request{method: http.MethodPost, path: "/kbs/v0/attest", header: head, body: string(body)})
		s.refused("cookie "+what, request{method: http.MethodGet, path: "/kbs/v0/resource/" + good, header: head})
		s.refused("cookie "+what, request{method: http.MethodPost, path: "/v1/guest/refusals", header: head, body: `{"code":"image_policy"}`})
	}
}
