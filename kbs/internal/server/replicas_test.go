package server_test

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/attestation"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/audit"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/challenge"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/jwe"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/kek"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/keyring"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/rcar"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// newRing is a key ring of its own in a store.
func newRing(t testing.TB, st store.Store) *keyring.Ring {
	t.Helper()
	w, err := kek.NewLocal(secret.Random(kek.Size))
	if err != nil {
		t.Fatal(err)
	}
	return keyring.Open(store.Scope(st, "test/"+string(fault.NewTicket())+"/"), w)
}

func labVerifier(t testing.TB) measure.Verifier {
	t.Helper()
	bundle, err := os.ReadFile(filepath.Join(vendor(t, "lab"), "root.pem"))
	if err != nil {
		t.Fatal(err)
	}
	v, err := snp.NewVerifier(snp.VerifierConfig{UnsafeSimulatedRoots: []snp.SimulatedRoot{{Name: "lab", Bundle: bundle}}})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// service is a replica's handshake over the stage's store.
func (s *stage) service(ring challenge.Ring, v measure.Verifier, rec audit.Recorder) *attestation.Service {
	s.t.Helper()
	registry, err := measure.NewRegistry(v)
	if err != nil {
		s.t.Fatal(err)
	}
	d := s.b.Deps()
	return attestation.New(attestation.Config{
		Store: d.Store, Audit: rec, Tickets: d.Tickets, Challenges: challenge.NewSealer(ring, "default", d.Now),
		Registry: registry, Versions: []rcar.Version{rcar.V040}, Policies: d.Engine, Issuer: d.Issuer, Lifetime: time.Minute, Now: d.Now, Logger: d.Logger,
	})
}

// openAt opens a handshake without HTTP.
func (s *stage) openAt(service *attestation.Service, sim *snp.Simulator) (h *handshake, cookie string) {
	s.t.Helper()
	opened, err := service.Open(s.t.Context(), []byte(`{"version":"0.4.0","tee":"snp","extra-params":""}`))
	if err != nil {
		s.t.Fatal(err)
	}
	key, err := jwe.Generate("")
	if err != nil {
		s.t.Fatal(err)
	}
	return &handshake{s: s, sim: sim, key: key, nonce: opened.Challenge.Nonce}, opened.Cookie
}

// meeting lets nobody through before all are there.
type meeting struct {
	measure.Verifier
	wg *sync.WaitGroup
}

func (m meeting) Verify(ctx context.Context, ev measure.Evidence, want measure.Expected) (measure.Verdict, error) {
	m.wg.Done()
	m.wg.Wait()
	return m.Verifier.Verify(ctx, ev, want)
}

// Of many answers to one challenge, all judged at the same time by two
// replicas, exactly one gets a token.
func TestOneTokenForOneChallenge(t *testing.T) {
	s := newStage(t)
	s.know()
	s.acceptLab()
	const answers = 16
	gate := &sync.WaitGroup{}
	gate.Add(answers)
	d := s.b.Deps()
	ring := newRing(t, d.Store)
	v := meeting{labVerifier(t), gate}
	replicas := []*attestation.Service{s.service(ring, v, d.Audit), s.service(ring, v, d.Audit)}
	h, cookie := s.openAt(replicas[0], guest(t, "lab", "agent 1"))
	raw := h.raw(h.message(h.nonce))

	got := make([]attestation.Attested, answers)
	errs := make([]error, answers)
	var wg sync.WaitGroup
	for i := range answers {
		wg.Go(func() { got[i], errs[i] = replicas[i%2].Attest(t.Context(), cookie, raw) })
	}
	wg.Wait()
	tokens := 0
	for i, err := range errs {
		switch {
		case err == nil && got[i].Token != "":
			tokens++
		case fault.CodeOf(err) != fault.SessionInvalid || got[i].Token != "":
			t.Errorf("answer %d: %v", i, err)
		}
	}
	if tokens != 1 {
		t.Errorf("%d tokens for one challenge", tokens)
	}
	allowed, denied := 0, 0
	for _, e := range s.entries() {
		switch {
		case e.Kind == "attest" && e.Decision == "allow":
			allowed++
		case e.Kind == "attest" && e.Decision == "deny":
			denied++
		}
	}
	if allowed != 1 || denied != answers-1 {
		t.Errorf("the log has %d attestations and %d refusals", allowed, denied)
	}
	for i, r := range replicas {
		if text, ok, err := r.Token(t.Context(), cookie); err != nil || !ok || text == "" {
			t.Errorf("replica %d does not find the token: %v", i, err)
		}
	}
}

// writes counts the transactions that may write.
type writes struct {
	store.Store
	n int
}

func (w *writes) Update(ctx context.Context, f func(store.Tx) error) error {
	w.n++
	return w.Store.Update(ctx, f)
}

// Whoever asks for challenges leaves nothing behind; an answer is one write.
func TestWritesOfAHandshake(t *testing.T) {
	s := newStage(t)
	s.know()
	s.acceptLab()
	d := s.b.Deps()
	st := &writes{Store: d.Store}
	registry, err := measure.NewRegistry(labVerifier(t))
	if err != nil {
		t.Fatal(err)
	}
	service := attestation.New(attestation.Config{
		Store: st, Audit: d.Audit, Tickets: d.Tickets, Challenges: challenge.NewSealer(newRing(t, st), "default", d.Now),
		Registry: registry, Versions: []rcar.Version{rcar.V040}, Policies: d.Engine, Issuer: d.Issuer, Lifetime: time.Minute, Now: d.Now, Logger: d.Logger,
	})
	sim := guest(t, "lab", "agent 1")
	s.openAt(service, sim) // makes the keys of the hour
	before := st.n
	h, cookie := s.openAt(service, sim)
	if st.n != before {
		t.Errorf("a challenge costs %d writes", st.n-before)
	}
	if _, err := service.Attest(t.Context(), cookie, h.raw(h.message(h.nonce))); err != nil || st.n != before+1 {
		t.Errorf("an attestation costs %d writes: %v", st.n-before, err)
	}
	h, cookie = s.openAt(service, sim)
	if _, err := service.Attest(t.Context(), cookie, h.raw(h.message("another"))); err == nil || st.n != before+2 {
		t.Errorf("a refusal costs %d writes: %v", st.n-before-1, err)
	}
}
