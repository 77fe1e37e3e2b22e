package client

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/vouchsafe-cc/vouchsafe/measure"
)

// attester is the least a platform can do: evidence that repeats the report
// data. hook, if set, runs first.
type attester struct {
	platform measure.Platform
	hook     func(ctx context.Context, call int) error

	mu    sync.Mutex
	calls int
}

func (a *attester) Platform() measure.Platform { return a.platform }

func (a *attester) Evidence(ctx context.Context, d measure.ReportData) (measure.Evidence, error) {
	a.mu.Lock()
	a.calls++
	n := a.calls
	a.mu.Unlock()
	if a.hook != nil {
		if err := a.hook(ctx, n); err != nil {
			return measure.Evidence{}, err
		}
	}
	data, err := json.Marshal(map[string]string{"report": hex.EncodeToString(d[:])})
	return measure.Evidence{Platform: a.platform, Data: data}, err
}

// broker is a second reading of the protocol: a small key broker that shares
// no code with the client. Sections are those of kbs-protocol.
type broker struct {
	*httptest.Server
	clock func() time.Time

	// What a test may set before the first request.
	selectHash string        // selected-hash-algorithm, "" for none
	lifetime   time.Duration // of a token; 5 minutes if zero
	dated      bool          // tokens say when they were issued
	before     func(w http.ResponseWriter, r *http.Request) (done bool)
	resources  map[string]string // "repo/type/tag" -> plaintext; "plugin:path?query" for other plugins

	mu       sync.Mutex
	sessions map[string]string         // cookie -> nonce
	tokens   map[string]map[string]any // token -> tee-pubkey; revoked ones are deleted
	count    map[string]int            // "METHOD path" -> requests
	conns    int
	initData []any
	refusals []map[string]any
	errs     []string
}

func newBroker(t *testing.T, b *broker) *broker {
	t.Helper()
	b.sessions, b.tokens, b.count = map[string]string{}, map[string]map[string]any{}, map[string]int{}
	if b.clock == nil {
		b.clock = time.Now
	}
	if b.lifetime == 0 {
		b.lifetime = 5 * time.Minute
	}
	b.Server = httptest.NewUnstartedServer(b)
	b.Config.ErrorLog = log.New(io.Discard, "", 0)
	b.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			b.mu.Lock()
			b.conns++
			b.mu.Unlock()
		}
	}
	b.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	b.StartTLS()
	t.Cleanup(func() {
		b.Close()
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, e := range b.errs {
			t.Errorf("the broker saw a wrong request: %s", e)
		}
	})
	return b
}

func (b *broker) roots() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(b.Certificate())
	return p
}

func (b *broker) requests(name string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.count[name]
}

// revoke makes every token given so far worthless.
func (b *broker) revoke() {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.tokens)
}

func (b *broker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	b.count[r.Method+" "+r.URL.Path]++
	b.mu.Unlock()
	if r.Header.Get("User-Agent") != "vouchsafe-kbs-client" {
		b.wrong("User-Agent %q", r.Header.Get("User-Agent"))
	}
	if b.before != nil && b.before(w, r) {
		return
	}
	path, ok := strings.CutPrefix(r.URL.Path, "/kbs/v0/")
	switch {
	case ok && path == "auth" && r.Method == http.MethodPost:
		b.auth(w, r)
	case ok && path == "attest" && r.Method == http.MethodPost:
		b.attest(w, r)
	case ok && r.Method == http.MethodGet:
		b.release(w, r, path)
	case r.URL.Path == "/v1/guest/refusals" && r.Method == http.MethodPost:
		b.refusal(w, r)
	default:
		http.NotFound(w, r)
	}
}

func (b *broker) wrong(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.errs = append(b.errs, fmt.Sprintf(format, args...))
}

func refuse(w http.ResponseWriter, status int, variant, extra string) {
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, `{"type":"https://github.com/confidential-containers/kbs/errors/%s","detail":"some words"%s}`, variant, extra)
}

// auth is section 3.1 and 3.2.
func (b *broker) auth(w http.ResponseWriter, r *http.Request) {
	var m map[string]any
	if err := json.NewDecoder(r.Body).Decode(&m); err != nil || len(m) != 3 || m["version"] != "0.4.0" || m["tee"] != "sample" {
		b.wrong("auth %v, %v", m, err)
		refuse(w, 401, "AttestationError", "")
		return
	}
	extra, ok := m["extra-params"].(map[string]any)
	if !ok || fmt.Sprint(extra["supported-hash-algorithms"]) != "[sha256 sha384 sha512]" {
		b.wrong("extra-params %v", m["extra-params"])
	}
	if len(r.Cookies()) != 0 || r.Header.Get("Authorization") != "" {
		b.wrong("auth carries credentials")
	}
	b.mu.Lock()
	n := len(b.sessions) + 1
	id := fmt.Sprintf("%032x", n)
	nonce := base64.StdEncoding.EncodeToString(sum(sha256.New(), id))
	b.sessions[id] = nonce
	b.mu.Unlock()
	w.Header().Set("Set-Cookie", "kbs-session-id="+id+"; Expires="+b.clock().Add(time.Minute).UTC().Format(http.TimeFormat))
	params := `""`
	if b.selectHash != "" {
		params = `{"selected-hash-algorithm":"` + b.selectHash + `"}`
	}
	_, _ = fmt.Fprintf(w, `{"nonce":%q,"extra-params":%s}`, nonce, params)
}

func sum(h hash.Hash, s string) []byte {
	h.Write([]byte(s))
	return h.Sum(nil)
}

// attest is section 3.3 and 3.5.
func (b *broker) attest(w http.ResponseWriter, r *http.Request) {
	cookie, err := r.Cookie("kbs-session-id")
	if err != nil || len(r.Cookies()) != 1 {
		b.wrong("attest with cookies %v", r.Cookies())
		refuse(w, 401, "AttestationError", "")
		return
	}
	b.mu.Lock()
	nonce := b.sessions[cookie.Value]
	delete(b.sessions, cookie.Value)
	b.mu.Unlock()
	var m struct {
		InitData    any `json:"init-data"`
		RuntimeData struct {
			Nonce string         `json:"nonce"`
			Key   map[string]any `json:"tee-pubkey"`
		} `json:"runtime-data"`
		Evidence struct {
			Primary    map[string]string `json:"primary_evidence"`
			Additional *string           `json:"additional_evidence"`
		} `json:"tee-evidence"`
	}
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil || nonce == "" || m.RuntimeData.Nonce != nonce || m.Evidence.Additional == nil || *m.Evidence.Additional != "" {
		b.wrong("attest %+v, %v", m, err)
		refuse(w, 401, "AttestationError", "")
		return
	}
	if got, want := m.Evidence.Primary["report"], b.digest(nonce, m.RuntimeData.Key); got != want {
		b.wrong("report data %s, want %s", got, want)
		refuse(w, 401, "AttestationError", "")
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.initData = append(b.initData, m.InitData)
	claims := fmt.Sprintf(`{"exp":%d,"n":%d}`, b.clock().Add(b.lifetime).Unix(), b.count["POST /kbs/v0/attest"])
	if b.dated {
		claims = fmt.Sprintf(`{"iat":%d,`, b.clock().Unix()) + claims[1:]
	}
	token := "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".c2ln"
	b.tokens[token] = m.RuntimeData.Key
	_, _ = fmt.Fprintf(w, `{"token":%q}`, token)
}

// digest writes the canonical text by hand.
func (b *broker) digest(nonce string, key map[string]any) string {
	text := fmt.Sprintf(`{"additional-evidence":"","nonce":%q,"tee-pubkey":{`, nonce)
	if key["kty"] == "RSA" {
		text += fmt.Sprintf(`"alg":%q,"e":%q,"kty":%q,"n":%q}}`, key["alg"], key["e"], key["kty"], key["n"])
	} else {
		text += fmt.Sprintf(`"alg":%q,"crv":%q,"kty":%q,"x":%q,"y":%q}}`, key["alg"], key["crv"], key["kty"], key["x"], key["y"])
	}
	h := map[string]func() hash.Hash{"": sha512.New384, "sha256": sha256.New, "SHA512": sha512.New}[b.selectHash]()
	data := make([]byte, 64)
	copy(data, sum(h, text))
	return hex.EncodeToString(data)
}

// bearer returns the guest key of a token that is still good.
func (b *broker) bearer(w http.ResponseWriter, r *http.Request) map[string]any {
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if len(r.Cookies()) != 0 {
		b.wrong("a request with token carries cookies")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	key := b.tokens[token]
	if key == nil {
		refuse(w, 401, "TokenNotFound", `,"code":"token_invalid"`)
	}
	return key
}

// release is section 4; encryption is go-jose's.
func (b *broker) release(w http.ResponseWriter, r *http.Request, path string) {
	key := b.bearer(w, r)
	if key == nil {
		return
	}
	name, ok := strings.CutPrefix(path, "resource/")
	if !ok {
		name = strings.Replace(path, "/", ":", 1) + "?" + r.URL.RawQuery
	}
	plain, ok := b.resources[name]
	if !ok {
		refuse(w, 404, "PluginInternalError", `,"code":"not_found","ticket":"7QK2-M9TD"`)
		return
	}
	text, err := sealFor(key, plain)
	if err != nil {
		b.wrong("cannot encrypt: %v", err)
	}
	_, _ = io.WriteString(w, text)
}

func sealFor(key map[string]any, plain string) (string, error) {
	raw, err := json.Marshal(key)
	if err != nil {
		return "", err
	}
	var jwk jose.JSONWebKey
	if err := jwk.UnmarshalJSON(raw); err != nil {
		return "", err
	}
	enc, err := jose.NewEncrypter(jose.A256GCM, jose.Recipient{Algorithm: jose.KeyAlgorithm(jwk.Algorithm), Key: jwk.Key}, nil)
	if err != nil {
		return "", err
	}
	obj, err := enc.Encrypt([]byte(plain))
	if err != nil {
		return "", err
	}
	return obj.FullSerialize(), nil
}

func (b *broker) refusal(w http.ResponseWriter, r *http.Request) {
	if b.bearer(w, r) == nil {
		return
	}
	var m map[string]any
	if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
		b.wrong("refusal: %v", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refusals = append(b.refusals, m)
	w.WriteHeader(http.StatusCreated)
	_, _ = io.WriteString(w, `{"ticket":"0123-4567"}`)
}
