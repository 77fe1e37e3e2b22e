package client

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

func TestRevokedTokenIsRenewed(t *testing.T) {
	b := newBroker(t, &broker{resources: map[string]string{"a/b/c": "x"}})
	c := newClient(t, b)
	for want := int64(1); want <= 3; want++ {
		mustGet(t, c, "kbs:///a/b/c", "x")
		handshakes(t, c, want)
		b.revoke()
	}
}

func TestExpiringTokenIsRenewed(t *testing.T) {
	var mu sync.Mutex
	now := time.Unix(1_800_000_000, 0)
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	advance := func(d time.Duration) { mu.Lock(); defer mu.Unlock(); now = now.Add(d) }

	b := newBroker(t, &broker{clock: clock, resources: map[string]string{"a/b/c": "x"}})
	c := newClient(t, b)
	mustGet(t, c, "kbs:///a/b/c", "x")
	first, err := c.Token(t.Context())
	if err != nil || !first.Expires.Equal(now.Add(5*time.Minute)) {
		t.Fatalf("expires %v, %v", first.Expires, err)
	}
	advance(5*time.Minute - renewEarly - time.Second)
	mustGet(t, c, "kbs:///a/b/c", "x")
	handshakes(t, c, 1)
	advance(time.Second)
	mustGet(t, c, "kbs:///a/b/c", "x")
	handshakes(t, c, 2)
	if got := b.requests("GET /kbs/v0/resource/a/b/c"); got != 3 {
		t.Fatalf("the old token was still sent: %d requests", got)
	}
	second, err := c.Token(t.Context())
	if err != nil || second.JWT.Equal(first.JWT) {
		t.Fatalf("the token is still the old one (%v)", err)
	}
	second.JWT.Destroy()
	mustGet(t, c, "kbs:///a/b/c", "x") // the copy was the caller's
	handshakes(t, c, 2)
}

// The host sets the guest's clock. Wherever that is, tokens last as long as they
// do; set back while a token is in use, it costs one more attestation, when the
// broker no longer takes it.
func TestHostsClock(t *testing.T) {
	for name, off := range map[string]time.Duration{"ahead": 10 * 365 * 24 * time.Hour, "behind": -10 * 365 * 24 * time.Hour, "right": 0} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			now := time.Unix(1_800_000_000, 0)
			b := newBroker(t, &broker{dated: true, clock: func() time.Time { mu.Lock(); defer mu.Unlock(); return now }, resources: map[string]string{"a/b/c": "x"}})
			set := off
			c := newClient(t, b, func(cfg *Config) { cfg.Now = func() time.Time { mu.Lock(); defer mu.Unlock(); return now.Add(set) } })
			advance := func(d, back time.Duration) { mu.Lock(); defer mu.Unlock(); now, set = now.Add(d), set-back }
			for range 3 {
				mustGet(t, c, "kbs:///a/b/c", "x")
			}
			handshakes(t, c, 1)
			advance(5*time.Minute-renewEarly, 0)
			mustGet(t, c, "kbs:///a/b/c", "x")
			handshakes(t, c, 2)
			advance(10*time.Minute, time.Hour) // the token is dead, and the guest's clock says that it is young
			b.revoke()
			for range 3 {
				mustGet(t, c, "kbs:///a/b/c", "x")
			}
			handshakes(t, c, 3)
		})
	}
}

// A guest whose clock is ahead sees every token expired; it still works.
func TestTokenExpiredOnArrival(t *testing.T) {
	b := newBroker(t, &broker{lifetime: -time.Hour, resources: map[string]string{"a/b/c": "x"}})
	c := newClient(t, b)
	mustGet(t, c, "kbs:///a/b/c", "x")
	mustGet(t, c, "kbs:///a/b/c", "x")
	handshakes(t, c, 2)
}

// What a workload is given serves to show, and for nothing that the client does.
func TestWorkloadToken(t *testing.T) {
	b := newBroker(t, &broker{resources: map[string]string{"a/b/c": "x"}})
	c := newClient(t, b)
	mustGet(t, c, "kbs:///a/b/c", "x")
	own, err := c.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for range 3 {
		raw, err := c.WorkloadToken(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(raw.Reveal()))
	}
	handshakes(t, c, 2)
	var got map[string]string
	if err := json.Unmarshal([]byte(texts[0]), &got); err != nil || len(got) != 1 || got["token"] == "" || got["token"] == string(own.JWT.Reveal()) {
		t.Fatalf("%d members, %v", len(got), err)
	}
	if texts[1] != texts[0] || texts[2] != texts[0] {
		t.Error("each call attests anew")
	}
	mustGet(t, c, "kbs:///a/b/c", "x")
	handshakes(t, c, 2)
}

// Renewal is for who has attested; what was forgotten is used no more.
func TestRenewAndForget(t *testing.T) {
	b := newBroker(t, &broker{resources: map[string]string{"a/b/c": "x"}})
	c := newClient(t, b)
	if err := c.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	handshakes(t, c, 0)
	mustGet(t, c, "kbs:///a/b/c", "x")
	if err := c.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustGet(t, c, "kbs:///a/b/c", "x")
	handshakes(t, c, 2)
	if _, err := c.WorkloadToken(t.Context()); err != nil {
		t.Fatal(err)
	}
	handshakes(t, c, 3)
	c.Forget()
	mustGet(t, c, "kbs:///a/b/c", "x")
	handshakes(t, c, 4)
	if _, err := c.WorkloadToken(t.Context()); err != nil {
		t.Fatal(err)
	}
	handshakes(t, c, 5)
}

func TestTokenWithKey(t *testing.T) {
	b := newBroker(t, &broker{resources: map[string]string{"a/b/c": "x"}})
	c := newClient(t, b)
	own, err := c.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	raw, err := c.TokenWithKey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	handshakes(t, c, 2)
	var got map[string]string
	if err := json.Unmarshal(raw.Reveal(), &got); err != nil || len(got) != 2 {
		t.Fatalf("%d members, %v", len(got), err)
	}
	if got["token"] == string(own.JWT.Reveal()) {
		t.Fatal("the client's own token was handed out")
	}
	// The consumer works with nothing but these two.
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.URL+"/kbs/v0/resource/a/b/c", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+got["token"])
	req.Header.Set("User-Agent", userAgent)
	resp, err := b.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	message, err := jose.ParseEncryptedJSON(string(text), []jose.KeyAlgorithm{jose.ECDH_ES_A256KW}, []jose.ContentEncryption{jose.A256GCM})
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode([]byte(got["tee_keypair"]))
	if block == nil {
		t.Fatal("no PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := message.Decrypt(key.(*ecdsa.PrivateKey))
	if err != nil || string(plain) != "x" {
		t.Fatalf("the key does not open the answer: %v", err)
	}
	mustGet(t, c, "kbs:///a/b/c", "x") // and the own session is untouched
	handshakes(t, c, 2)
}
