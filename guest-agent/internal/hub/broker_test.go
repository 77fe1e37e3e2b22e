package hub

import (
	"crypto/rand"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client"
	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/initdata"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
)

// testBroker speaks the KBS protocol as its specification says, written without
// the broker's own code: real evidence verification, JWE by another library.
type testBroker struct {
	t        *testing.T
	url      string
	roots    *x509.CertPool
	verifier measure.Verifier
	initData []byte // digest that the evidence must be bound to
	signKey  []byte
	gone     chan struct{} // closed at the end, for handlers that hang
	cut      *cutting

	mu         sync.Mutex
	resources  map[string][]byte       // "repo/type/tag"
	denied     map[string]fault.Ticket // "repo/type/tag" -> 403 with this ticket
	sessions   map[string]string       // session -> nonce
	guests     map[string]api.JWK      // token -> key
	handshakes int
	fetched    []string
	queries    map[string]url.Values // of the last request, "repo/type/tag"
	refusals   []api.GuestRefusal
	tickets    []fault.Ticket // given out for refusals
	reporting  reportMode
}

type reportMode int

const (
	reportsTaken   reportMode = iota
	reportsUnknown            // a broker of the field: no /v1
	reportsHang
)

func newTestBroker(t *testing.T, verifier measure.Verifier, initData []byte) *testBroker {
	b := &testBroker{
		t: t, verifier: verifier, initData: initData, signKey: make([]byte, 32), gone: make(chan struct{}),
		resources: map[string][]byte{}, denied: map[string]fault.Ticket{},
		sessions: map[string]string{}, guests: map[string]api.JWK{},
	}
	_, _ = rand.Read(b.signKey)
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+api.PathAuth, b.auth)
	mux.HandleFunc("POST "+api.PathAttest, b.attest)
	mux.HandleFunc("GET "+api.PathResource+"/{path...}", b.resource)
	mux.HandleFunc("POST "+api.PathGuestRefusals, b.refusal)
	b.cut = &cutting{next: mux, gone: b.gone}
	srv := httptest.NewTLSServer(b.cut)
	t.Cleanup(func() { close(b.gone); srv.Close() })
	b.url = srv.URL
	b.roots = x509.NewCertPool()
	b.roots.AddCert(srv.Certificate())
	return b
}

func (b *testBroker) auth(w http.ResponseWriter, r *http.Request) {
	var req api.Request
	if json.NewDecoder(r.Body).Decode(&req) != nil || req.Version != api.ProtocolVersion || req.TEE != "snp" {
		b.error(w, 401, "AttestationError", "", "")
		return
	}
	nonce, session := make([]byte, 32), rand.Text()
	_, _ = rand.Read(nonce)
	text := base64.StdEncoding.EncodeToString(nonce)
	b.mu.Lock()
	b.sessions[session] = text
	b.mu.Unlock()
	http.SetCookie(w, &http.Cookie{Name: api.SessionCookie, Value: session, Path: api.PathPrefix})
	b.json(w, api.Challenge{Nonce: text, ExtraParams: json.RawMessage(`""`)})
}

func (b *testBroker) attest(w http.ResponseWriter, r *http.Request) {
	var req api.Attestation
	cookie, err := r.Cookie(api.SessionCookie)
	if err != nil || json.NewDecoder(r.Body).Decode(&req) != nil {
		b.error(w, 401, "AttestationError", "", "")
		return
	}
	b.mu.Lock()
	nonce, ok := b.sessions[cookie.Value]
	delete(b.sessions, cookie.Value)
	b.mu.Unlock()
	if !ok || nonce != req.RuntimeData.Nonce {
		b.error(w, 401, "AttestationError", "", "")
		return
	}
	// Maps marshal with sorted keys, and base64 needs no escapes: that is the
	// canonical JSON of kbs-protocol 3.5 for an EC key.
	k := req.RuntimeData.TEEPubKey
	text, err := json.Marshal(map[string]any{
		"additional-evidence": req.TEEEvidence.AdditionalEvidence, "nonce": nonce,
		"tee-pubkey": map[string]string{"alg": k.Alg, "crv": k.Crv, "kty": k.Kty, "x": k.X, "y": k.Y},
	})
	if err != nil {
		b.t.Error(err)
		return
	}
	digest := sha512.Sum384(text)
	_, err = b.verifier.Verify(r.Context(), measure.Evidence{Platform: measure.SNP, Data: req.TEEEvidence.PrimaryEvidence},
		measure.Expected{ReportData: measure.BoundTo(digest[:]), InitData: measure.BoundTo(b.initData)})
	if err != nil {
		b.t.Errorf("the evidence does not verify: %v", err)
		b.error(w, 401, "AttestationError", fault.EvidenceInvalid, fault.NewTicket())
		return
	}
	token := b.sign(map[string]any{"iat": time.Now().Unix(), "exp": time.Now().Add(5 * time.Minute).Unix(), "jti": rand.Text()})
	b.mu.Lock()
	b.handshakes++
	b.guests[token] = k
	b.mu.Unlock()
	b.json(w, api.AttestResponse{Token: token})
}

func (b *testBroker) sign(claims map[string]any) string {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: b.signKey}, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	body, err := json.Marshal(claims)
	if err != nil {
		b.t.Fatal(err)
	}
	jws, err := signer.Sign(body)
	if err != nil {
		b.t.Fatal(err)
	}
	text, err := jws.CompactSerialize()
	if err != nil {
		b.t.Fatal(err)
	}
	return text
}

func (b *testBroker) guest(r *http.Request) (api.JWK, bool) {
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	b.mu.Lock()
	defer b.mu.Unlock()
	k, ok := b.guests[token]
	return k, ok
}

func (b *testBroker) resource(w http.ResponseWriter, r *http.Request) {
	key, ok := b.guest(r)
	if !ok {
		b.error(w, 401, "TokenNotFound", fault.TokenInvalid, "")
		return
	}
	path := r.PathValue("path")
	b.mu.Lock()
	b.fetched = append(b.fetched, path)
	if b.queries == nil {
		b.queries = map[string]url.Values{}
	}
	b.queries[path] = r.URL.Query()
	value, found := b.resources[path]
	ticket, denied := b.denied[path]
	b.mu.Unlock()
	switch {
	case denied:
		b.error(w, 403, "PolicyDeny", fault.PolicyDenied, ticket)
	case !found:
		b.error(w, 404, "PluginInternalError", fault.NotFound, fault.NewTicket())
	default:
		b.seal(w, key, value)
	}
}

func (b *testBroker) seal(w http.ResponseWriter, key api.JWK, value []byte) {
	raw, err := json.Marshal(key)
	if err != nil {
		b.t.Error(err)
		return
	}
	var jwk jose.JSONWebKey
	if err := jwk.UnmarshalJSON(raw); err != nil {
		b.t.Errorf("the guest's key: %v", err)
		return
	}
	enc, err := jose.NewEncrypter(jose.A256GCM, jose.Recipient{Algorithm: jose.ECDH_ES_A256KW, Key: jwk.Key}, nil)
	if err != nil {
		b.t.Error(err)
		return
	}
	jwe, err := enc.Encrypt(value)
	if err != nil {
		b.t.Error(err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write([]byte(jwe.FullSerialize()))
}

func (b *testBroker) refusal(w http.ResponseWriter, r *http.Request) {
	if _, ok := b.guest(r); !ok {
		b.error(w, 401, "TokenNotFound", fault.TokenInvalid, "")
		return
	}
	var g api.GuestRefusal
	if err := json.NewDecoder(r.Body).Decode(&g); err != nil {
		b.t.Error(err)
	}
	b.mu.Lock()
	mode := b.reporting
	b.mu.Unlock()
	switch mode {
	case reportsUnknown:
		http.NotFound(w, r)
		return
	case reportsHang:
		select {
		case <-b.gone:
		case <-r.Context().Done():
		}
		return
	}
	ticket := fault.NewTicket()
	b.mu.Lock()
	b.refusals = append(b.refusals, g)
	b.tickets = append(b.tickets, ticket)
	b.mu.Unlock()
	b.json(w, api.GuestRefusalReceipt{Ticket: string(ticket)})
}

func (b *testBroker) json(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		b.t.Error(err)
	}
}

func (b *testBroker) error(w http.ResponseWriter, status int, variant string, code fault.Code, ticket fault.Ticket) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(api.ErrorInformation{Type: api.ErrorTypePrefix + variant, Detail: "refused", Code: string(code), Ticket: string(ticket)})
}

func (b *testBroker) put(path string, value []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.resources[path] = value
}

func (b *testBroker) deny(path string, ticket fault.Ticket) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.denied[path] = ticket
}

func (b *testBroker) report(m reportMode) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reporting = m
}

// told returns the refusals that were reported, and their tickets.
func (b *testBroker) told() ([]api.GuestRefusal, []fault.Ticket) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]api.GuestRefusal(nil), b.refusals...), append([]fault.Ticket(nil), b.tickets...)
}

// asked counts the requests for one resource.
func (b *testBroker) asked(path string) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.fetched {
		if p == path {
			n++
		}
	}
	return n
}

// asksWith returns the query of the last request for a resource.
func (b *testBroker) asksWith(path string) url.Values {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.queries[path]
}

// tokens returns every token given out.
func (b *testBroker) tokens() (all []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for t := range b.guests {
		all = append(all, t)
	}
	return all
}

// platform is a simulated SNP guest with its vendor, made once for all tests:
// the vendor's RSA keys take seconds.
type platform struct {
	attester *snp.Simulator
	verifier measure.Verifier
	doc      *initdata.Document
}

var sharedPlatform struct {
	sync.Once
	platform
	err error
}

// testDocument stands for what a pod's owner writes.
const testDocument = "version = \"0.1.0\"\nalgorithm = \"sha256\"\n\n[data]\n\"cdh.toml\" = '''\n[image]\n'''\n"

func simulated(t *testing.T) platform {
	t.Helper()
	s := &sharedPlatform
	s.Do(func() { s.platform, s.err = makePlatform() })
	if s.err != nil {
		t.Fatal(s.err)
	}
	return s.platform
}

func makePlatform() (p platform, err error) {
	dir, err := os.MkdirTemp("", "hub-test-snp-")
	if err != nil {
		return p, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // all is read by the time of return
	vendor, guest := filepath.Join(dir, "vendor"), filepath.Join(dir, "guest")
	if p.doc, err = initdata.Parse([]byte(testDocument)); err != nil {
		return p, err
	}
	if err = snp.CreateVendor(vendor, "Milan"); err != nil {
		return p, err
	}
	launch := snp.Launch{Image: []byte("the agent"), CommandLine: "quiet", InitDataDigest: p.doc.Digest()}
	if err = snp.CreateGuest(vendor, guest, launch); err != nil {
		return p, err
	}
	if p.attester, err = snp.OpenSimulator(guest); err != nil {
		return p, err
	}
	root, err := os.ReadFile(filepath.Join(vendor, "root.pem"))
	if err != nil {
		return p, err
	}
	p.verifier, err = snp.NewVerifier(snp.VerifierConfig{UnsafeSimulatedRoots: []snp.SimulatedRoot{{Name: "hub-test", Bundle: root}}})
	return p, err
}

// attested returns a real client of the broker.
func (b *testBroker) attested(p platform, log *slog.Logger) *client.Client {
	b.t.Helper()
	c, err := client.New(client.Config{
		URL: b.url, RootCAs: b.roots, Attester: p.attester, Logger: log,
		InitData: &api.InitData{Format: "toml", Body: string(p.doc.Raw())},
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}
