// Package secondguest is a guest of the field, written once more from the
// specification of the KBS protocol alone: its own JSON, its own canonical
// form, its own evidence, and answers opened by another library. It shares no
// code with the broker or with the project's own client, and a test of the
// house sees to that; so where both sides of this project misread the
// specification in the same way, this one notices.
//
// Sections in comments are those of kbs-protocol; see
// docs/reference/specifications.md.
package secondguest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// Guest talks to one broker as one guest.
type Guest struct {
	Base    string // URL of the broker
	HTTP    *http.Client
	Version string // of the protocol, section 3.7
	TEE     string
	Key     *Key
	// Evidence makes the primary evidence over a digest (section 3.5).
	Evidence func(digest []byte) (json.RawMessage, error)
	// Devices makes the text of additional_evidence over the devices' digest;
	// nil means none.
	Devices func(digest []byte) (string, error)
	// InitData is the document as it was measured; "" means none.
	InitData string
	// ExtraParams is the JSON of extra-params; "" means what clients of the
	// field send.
	ExtraParams string

	cookie *http.Cookie
}

// Answer is what the broker said.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Error is an answer that is not 200.
type Error struct{ Answer }

func (e *Error) Error() string { return fmt.Sprintf("status %d: %.300s", e.Status, e.Body) }

// Information is the error body of section 2.4.
type Information struct {
	Type   string `json:"type"`
	Detail string `json:"detail"`
	Code   string `json:"code"`
	Ticket string `json:"ticket"`
}

// Information reads the error body. Clients of the field demand it of every
// answer but 200 and 404.
func (e *Error) Information() (i Information, err error) {
	if err = json.Unmarshal(e.Body, &i); err == nil && (i.Type == "" || i.Detail == "") {
		err = errors.New("the error body has no type or no detail")
	}
	return i, err
}

// Do sends one request. An answer other than 200 is an *Error.
func (g *Guest) Do(ctx context.Context, method, path string, body []byte, change ...func(*http.Request)) (Answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, g.Base+path, bytes.NewReader(body))
	if err != nil {
		return Answer{}, err
	}
	req.Header.Set("User-Agent", "attestation-agent-kbs-client/0.0.0")
	for _, f := range change {
		f(req)
	}
	resp, err := g.HTTP.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	a := Answer{resp.StatusCode, resp.Header, raw}
	if err == nil && a.Status != http.StatusOK {
		err = &Error{a}
	}
	return a, err
}

// Challenge is the answer to /auth, with what it selects.
type Challenge struct {
	Nonce string
	Hash  string
}

// Auth opens a session (sections 3.1 and 3.2).
func (g *Guest) Auth(ctx context.Context) (Challenge, error) {
	extra := g.ExtraParams
	if extra == "" {
		extra = `{"supported-hash-algorithms":["sha256","sha384","sha512","sm3"]}`
	}
	body := fmt.Sprintf(`{"version":%q,"tee":%q,"extra-params":%s}`, g.Version, g.TEE, extra)
	a, err := g.Do(ctx, http.MethodPost, "/kbs/v0/auth", []byte(body))
	if err != nil {
		return Challenge{}, err
	}
	var wire struct {
		Nonce *string         `json:"nonce"`
		Extra json.RawMessage `json:"extra-params"`
	}
	if err := json.Unmarshal(a.Body, &wire); err != nil {
		return Challenge{}, fmt.Errorf("challenge: %w", err)
	}
	if wire.Nonce == nil || wire.Extra == nil {
		return Challenge{}, fmt.Errorf("challenge: both members are required: %s", a.Body)
	}
	c := Challenge{Nonce: *wire.Nonce, Hash: "sha384"}
	var selected struct {
		Hash string `json:"selected-hash-algorithm"`
	}
	if json.Unmarshal(wire.Extra, &selected) == nil && selected.Hash != "" {
		c.Hash = selected.Hash
	}
	g.cookie = nil
	for _, k := range (&http.Response{Header: a.Header}).Cookies() {
		if k.Name == "kbs-session-id" {
			g.cookie = k
		}
	}
	if g.cookie == nil || g.cookie.Path != "" && g.cookie.Path != "/" && g.cookie.Path != "/kbs/v0" {
		return c, fmt.Errorf("challenge: no cookie for /kbs/v0/attest: %v", g.cookie)
	}
	return c, nil
}

// WithCookie sends the session of the last Auth.
func (g *Guest) WithCookie(r *http.Request) {
	if g.cookie != nil {
		r.AddCookie(&http.Cookie{Name: g.cookie.Name, Value: g.cookie.Value})
	}
}

// Attest answers a challenge and returns the token (section 3.3, and 3.7 for
// older versions).
func (g *Guest) Attest(ctx context.Context, c Challenge) (string, error) {
	body, err := g.Attestation(c)
	if err != nil {
		return "", err
	}
	a, err := g.Do(ctx, http.MethodPost, "/kbs/v0/attest", body, g.WithCookie)
	if err != nil {
		return "", err
	}
	var wire struct {
		Token string `json:"token"`
	}
	if err := json.Unmarshal(a.Body, &wire); err != nil || strings.Count(wire.Token, ".") != 2 {
		return "", fmt.Errorf("attest: no token in %.100s: %w", a.Body, err)
	}
	return wire.Token, nil
}

// Handshake is Auth and Attest.
func (g *Guest) Handshake(ctx context.Context) (string, error) {
	c, err := g.Auth(ctx)
	if err != nil {
		return "", err
	}
	return g.Attest(ctx, c)
}

// Attestation writes the body of /attest.
func (g *Guest) Attestation(c Challenge) ([]byte, error) {
	key := g.Key.public
	runtime := map[string]any{"nonce": c.Nonce, "tee-pubkey": key}
	devices := ""
	if g.Devices != nil {
		digest, err := sum(c.Hash, canonical(runtime))
		if err != nil {
			return nil, err
		}
		if devices, err = g.Devices(digest); err != nil {
			return nil, err
		}
	}
	hashed := map[string]any{"nonce": c.Nonce, "tee-pubkey": key}
	if g.Version == "0.4.0" {
		hashed["additional-evidence"] = devices
	}
	digest, err := sum(c.Hash, canonical(hashed))
	if err != nil {
		return nil, err
	}
	evidence, err := g.Evidence(digest)
	if err != nil {
		return nil, err
	}
	switch g.Version {
	case "0.1.0": // the evidence is a string
		return json.Marshal(map[string]any{"tee-pubkey": key, "tee-evidence": string(evidence)})
	case "0.1.1", "0.2.0":
		return json.Marshal(map[string]any{"tee-pubkey": key, "tee-evidence": evidence})
	}
	body := map[string]any{
		"runtime-data": runtime,
		"tee-evidence": map[string]any{"primary_evidence": evidence, "additional_evidence": devices},
	}
	if g.InitData != "" {
		body["init-data"] = map[string]any{"format": "toml", "body": g.InitData}
	}
	return json.Marshal(body)
}

// Resource fetches and opens a resource: with the session's cookie, or with a
// bearer token if one is given.
func (g *Guest) Resource(ctx context.Context, path, bearer string) ([]byte, error) {
	auth := g.WithCookie
	if bearer != "" {
		auth = func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+bearer) }
	}
	a, err := g.Do(ctx, http.MethodGet, "/kbs/v0/resource/"+path, nil, auth)
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(g.Version, "0.1.") {
		return g.Key.openOld(a.Body)
	}
	return g.Key.open(a.Body)
}
