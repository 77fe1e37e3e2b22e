package hub

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/brokers"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client"
)

// A pod of twenty encrypted layers and fifty sealed variables attests once.
func TestOneHandshakeForAPod(t *testing.T) {
	w := newWorld(t, nil)
	owner := newSealing(t)
	w.broker.put("default/secret/1", []byte("the value"))
	w.broker.put("default/signing/1", owner.jwk(sealingKID))
	pulled, unsealed := make(chan error, 1), make(chan error, 50)
	go func() {
		_, err := w.hub.PullImage(t.Context(), w.ref, w.bundle())
		pulled <- err
	}()
	for range cap(unsealed) {
		go func() {
			value, err := w.hub.Unseal(t.Context(), owner.seal("kbs", sealedName, sealingKID))
			value.Destroy()
			unsealed <- err
		}()
	}
	if err := <-pulled; err != nil {
		t.Error(err)
	}
	for range cap(unsealed) {
		if err := <-unsealed; err != nil {
			t.Error(err)
		}
	}
	w.broker.mu.Lock()
	defer w.broker.mu.Unlock()
	if w.broker.handshakes != 1 || layers < 20 {
		t.Errorf("%d handshakes for %d layers and %d secrets", w.broker.handshakes, layers, cap(unsealed))
	}
}

// Brokers that are not there, that hang up, whose certificate is another one,
// and that talk nonsense: the pod gets its secret from the one that is left, and
// no token was shown to the others.
func TestFailover(t *testing.T) {
	p := simulated(t)
	good := newTestBroker(t, p.verifier, p.doc.Digest())
	good.put("default/secret/1", []byte("the value"))
	var seen atomic.Int32
	note := func(r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			seen.Add(1)
		}
	}
	lying := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		note(r)
		_, _ = io.WriteString(w, `{"nonce":"bm9uY2U=","extra-params":{"selected-hash-algorithm":"md5"}}`)
	}))
	defer lying.Close()
	changed := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { note(r) }))
	defer changed.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := "https://" + l.Addr().String()
	_ = l.Close()

	var all []brokers.Broker
	for _, b := range []struct {
		url     string
		trusted bool
	}{{gone, true}, {changed.URL, false}, {lying.URL, true}, {good.url, true}} {
		cfg := client.Config{URL: b.url, Attester: p.attester, RootCAs: good.roots.Clone()}
		if b.trusted {
			cfg.RootCAs.AddCert(lying.Certificate())
		}
		if !b.trusted {
			cfg.RootCAs = newRoots(t)
		}
		c, err := client.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, brokers.Broker{URL: b.url, Client: c})
	}
	set, err := brokers.New(all, nil, discard())
	if err != nil {
		t.Fatal(err)
	}
	h, err := New(Config{Broker: set, ImageDir: t.TempDir(), Journal: io.Discard, Logger: discard()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	for n := range 3 {
		value, err := h.Resource(t.Context(), "kbs:///default/secret/1")
		if err != nil || string(value.Reveal()) != "the value" {
			t.Fatalf("round %d: %v", n, err)
		}
	}
	if good.handshakes != 1 || seen.Load() != 0 {
		t.Errorf("%d handshakes, %d tokens shown to those that cannot be trusted", good.handshakes, seen.Load())
	}
	// A refusal is told to the one that answers, and is final.
	ticket := fault.NewTicket()
	good.deny("default/secret/1", ticket)
	if _, err := h.Resource(t.Context(), "kbs:///default/secret/1"); err == nil || err.Error() != fmt.Sprintf("policy_denied (ticket %s)", ticket) {
		t.Errorf("%v", err)
	}
}

// newRoots are roots that no server of a test ends in.
func newRoots(t *testing.T) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return pool
}
