package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

func newFront(t *testing.T) *front {
	t.Helper()
	f := &front{}
	f.Server = httptest.NewTLSServer(f)
	t.Cleanup(f.Close)
	return f
}

const disk = "prod/keys/disk-1"

func isAttest(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/attest") }

// A broker is killed between challenge and evidence. Another one of the same
// cluster goes on as if nothing had happened, also the one that took the dead
// one's place.
func TestReplicaDiesMidHandshake(t *testing.T) {
	c := newCluster(t)
	value := "value-" + t.Name()
	a, b := c.start("a"), c.start("b")
	c.set(a)
	if _, err := b.admin.PutResource(t.Context(), disk, secret.New([]byte(value))); err != nil {
		t.Fatal(err)
	}
	f := newFront(t)
	for round := range 3 {
		killed := false
		f.to(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case isAttest(r):
				a.kill()
				killed = true
				b.forward(w, r)
			case killed:
				b.forward(w, r)
			default:
				a.forward(w, r)
			}
		})
		guest := c.client(f)
		got, err := guest.Resource(t.Context(), "kbs:///"+disk)
		if err != nil || string(got.Reveal()) != value || !killed || guest.Handshakes() != 1 {
			t.Fatalf("round %d: %v, killed %v, %d handshakes", round, err, killed, guest.Handshakes())
		}
		a, b = b, c.start(fmt.Sprintf("new-%d", round))
	}
	releases := 0
	for _, e := range b.verified() {
		if e.Kind == api.AuditRelease && e.Decision == "allow" {
			releases++
		}
	}
	if releases != 3 {
		t.Errorf("%d releases in the log, want 3", releases)
	}
}

// One answer to a challenge is sent to both replicas many times at once.
func TestReplicasAcceptANonceOnce(t *testing.T) {
	c := newCluster(t)
	replicas := c.startAll("a", "b")
	c.set(replicas[0])
	f := newFront(t)
	const copies = 16
	var tokens sync.Map // who asks again, once there is a token, gets the same (kbs-protocol 3.3)
	f.to(func(w http.ResponseWriter, r *http.Request) {
		if !isAttest(r) {
			replicas[0].forward(w, r)
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		answers := make([]*httptest.ResponseRecorder, copies)
		var wg sync.WaitGroup
		for i := range copies {
			wg.Go(func() {
				answers[i] = httptest.NewRecorder()
				replicas[i%2].forward(answers[i], again(r, body))
			})
		}
		wg.Wait()
		good := answers[0]
		for _, a := range answers {
			if a.Code == http.StatusOK {
				tokens.Store(a.Body.String(), true)
				good = a
			} else if a.Code != http.StatusUnauthorized {
				t.Errorf("status %d", a.Code)
			}
		}
		w.WriteHeader(good.Code)
		_, _ = w.Write(good.Body.Bytes()) // the client says if it is not whole
	})
	const guests = 5
	for range guests {
		if _, err := c.client(f).Token(t.Context()); err != nil {
			t.Error(err)
		}
	}
	distinct, attested := 0, 0
	tokens.Range(func(any, any) bool { distinct++; return true })
	for _, e := range replicas[1].verified() {
		if e.Kind == api.AuditAttest && e.Decision == "allow" {
			attested++
		}
	}
	if distinct != guests || attested != guests {
		t.Errorf("%d challenges gave %d tokens, and %d attestations in the log", guests, distinct, attested)
	}
}

// Many guests at both replicas, while an administrator changes policies and
// resources at one: the audit log stays one chain, and what one replica was
// told, the other one heeds.
func TestReplicasShareEverything(t *testing.T) {
	c := newCluster(t)
	both := c.startAll("a", "b")
	a, b := both[0], both[1]
	c.set(a)
	if _, err := a.admin.PutResource(t.Context(), disk, secret.New([]byte("value"))); err != nil {
		t.Fatal(err)
	}
	f := newFront(t)
	var turn atomic.Int64
	f.to(func(w http.ResponseWriter, r *http.Request) { []*replica{a, b}[turn.Add(1)%2].forward(w, r) })
	const guests, each = 8, 5
	var wg sync.WaitGroup
	for range guests {
		guest := c.client(f)
		wg.Go(func() {
			for range each {
				if _, err := guest.Resource(t.Context(), "kbs:///"+disk); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range each {
		path := fmt.Sprintf("prod/keys/other-%d", i)
		if _, err := a.admin.PutResource(t.Context(), path, secret.New([]byte("other"))); err != nil {
			t.Error(err)
		}
		if _, err := b.admin.Resource(t.Context(), path); err != nil {
			t.Errorf("the other replica does not know %s: %v", path, err)
		}
	}
	wg.Wait()
	keyOfA, err := a.admin.AuditKey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if keyOfB, err := b.admin.AuditKey(t.Context()); err != nil || keyOfA != keyOfB {
		t.Errorf("two keys of one log: %s, %s, %v", keyOfA, keyOfB, err)
	}
	count := map[api.AuditKind]int{}
	for _, e := range b.verified() {
		count[e.Kind]++
	}
	for kind, want := range map[api.AuditKind]int{
		api.AuditAttest: guests, api.AuditRelease: guests * each, api.AuditResourcePut: 1 + each, api.AuditBrokerStart: 2,
	} {
		if count[kind] != want {
			t.Errorf("%d entries of %s in the log, want %d", count[kind], kind, want)
		}
	}

	// A policy that denies everything at one replica denies at the other.
	const deny = "package policy\n\nimport rego.v1\n\ndefault allow := false\n"
	if _, err := a.admin.PutPolicy(t.Context(), api.Policy{Kind: "resource", ID: "resource-policy", Rego: deny, Version: -1}); err != nil {
		t.Fatal(err)
	}
	f.to(b.forward)
	if _, err := c.client(f).Resource(t.Context(), "kbs:///"+disk); err == nil {
		t.Error("the other replica released what a policy denies")
	}
}
