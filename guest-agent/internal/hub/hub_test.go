package hub

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/rest"
	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// One pod: a policy, a cosign key, twenty layers under one key, five resources for
// the workload. The broker sees one handshake, and the key is asked for once.
func TestPodCostsOneHandshake(t *testing.T) {
	w := newWorld(t, nil)
	bundle := w.bundle()
	img, err := w.hub.PullImage(t.Context(), w.ref, bundle)
	if err != nil {
		t.Fatalf("pull: %v\n%s", err, w.journalText())
	}
	if img.Digest != w.digest || img.Rootfs != filepath.Join(bundle, "rootfs") {
		t.Errorf("pulled %+v, want digest %s", img, w.digest)
	}
	for i := range layers {
		got, err := os.ReadFile(filepath.Join(img.Rootfs, fmt.Sprintf("layer-%d", i)))
		if want := fmt.Sprintf("contents of layer %d\n", i); err != nil || string(got) != want {
			t.Errorf("layer %d: %q, %v", i, got, err)
		}
	}
	if err := os.WriteFile(filepath.Join(img.Rootfs, "written"), []byte("x"), 0o600); err != nil {
		t.Errorf("the rootfs is not writable: %v", err)
	}

	api := httptest.NewServer(rest.NewHandler(w.hub, w.hub, rest.Resource))
	defer api.Close()
	for i := range 5 {
		path, value := fmt.Sprintf("default/secret/%d", i), fmt.Appendf(nil, "value\x00%d", i)
		w.broker.put(path, value)
		if got := getOK(t, api.URL+"/cdh/resource/"+path); !bytes.Equal(got, value) {
			t.Errorf("%s: got %q", path, got)
		}
	}
	w.broker.mu.Lock()
	handshakes := w.broker.handshakes
	w.broker.mu.Unlock()
	if handshakes != 1 {
		t.Errorf("%d handshakes, want 1", handshakes)
	}
	if n := w.broker.asked(kekPath); n != 1 {
		t.Errorf("the layer key was asked for %d times, want 1", n)
	}
	if told, _ := w.broker.told(); len(told) != 0 {
		t.Errorf("refusals were reported: %+v", told)
	}
}

// The key of an image is asked for in its name, and in the agent's name alone.
func TestKeysAreAskedForInTheNameOfTheImage(t *testing.T) {
	w := newWorld(t, nil)
	if _, err := w.hub.PullImage(t.Context(), w.ref, w.bundle()); err != nil {
		t.Fatal(err)
	}
	q := w.broker.asksWith(kekPath)
	if q.Get("image") != w.digest || q.Get("image_reference") != w.ref {
		t.Errorf("asked with %v, want %s of %s", q, w.digest, w.ref)
	}
	if q := w.broker.asksWith(signerPath); len(q) != 0 {
		t.Errorf("the signer's key was asked for with %v", q)
	}
	w.broker.put("default/secret/1", []byte("x"))
	for query, ok := range map[string]bool{"": true, "?version=1": true, "?image=" + w.digest: false, "?version=1&image_reference=" + w.ref: false, "?%69mage=x": false} {
		_, err := w.hub.Resource(t.Context(), "kbs:///default/secret/1"+query)
		if (err == nil) != ok || (err != nil && fault.CodeOf(err) != fault.InvalidRequest) {
			t.Errorf("a workload asks with %q: %v", query, err)
		}
	}
}

func getOK(t *testing.T, url string) []byte {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d %q %v", url, resp.StatusCode, body, err)
	}
	return body
}

// Refusals that the guest makes itself: the caller gets the code and the
// broker's ticket, the broker gets cause, findings and rule.
func TestRefusalIsExplainedToTheBroker(t *testing.T) {
	tests := map[string]struct {
		arrange func(*world) (claim, rule string)
		config  func(*Config)
		code    fault.Code
	}{
		"signed by another key": {code: fault.ImageUnsigned, arrange: func(w *world) (string, string) {
			_, other, err := newSigner()
			if err != nil {
				w.t.Fatal(err)
			}
			w.broker.put(signerPath, other)
			return "image.signer", w.registry.host + "/shop"
		}},
		"not signed": {code: fault.ImageUnsigned, arrange: func(w *world) (string, string) {
			w.ref = w.registry.host + "/shop/plain:1"
			return "image.signer", w.registry.host + "/shop"
		}},
		"flipped layer": {code: fault.ImageCorrupt, arrange: func(w *world) (string, string) {
			return "layer." + w.registry.flip(w.ref, 3) + ".", ""
		}},
		"wrong layer key": {code: fault.ImageKey, arrange: func(w *world) (string, string) {
			w.broker.put(kekPath, bytes.Repeat([]byte{7}, 32))
			return "", ""
		}},
		"no policy": {code: fault.ImagePolicyMissing,
			config:  func(c *Config) { c.ImagePolicyURI = "" },
			arrange: func(*world) (string, string) { return "", "" }},
		"malformed policy": {code: fault.PolicyError,
			arrange: func(w *world) (string, string) { w.broker.put(policyPath, []byte("{}")); return "", "" }},
		"policy location of no kind": {code: fault.PolicyError,
			config:  func(c *Config) { c.ImagePolicyURI = "https://example.com/policy.json" },
			arrange: func(*world) (string, string) { return "", "" }},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, tc.config)
			claim, rule := tc.arrange(w)
			bundle := w.bundle()
			_, err := w.hub.PullImage(t.Context(), w.ref, bundle)
			f, ok := errors.AsType[*fault.Fault](err)
			if !ok || f.Code != tc.code {
				t.Fatalf("got %v, want %s", err, tc.code)
			}
			told, tickets := w.broker.told()
			if len(told) != 1 || f.Ticket != tickets[0] {
				t.Fatalf("ticket %s, the broker gave %s for %+v", f.Ticket, tickets, told)
			}
			g := told[0]
			if g.Code != string(tc.code) || g.Object != w.ref || len(g.Cause) < 10 || g.Rule != "" && !strings.Contains(g.Rule, rule) || rule != "" && g.Rule == "" {
				t.Errorf("reported %+v", g)
			}
			if claim != "" {
				if len(g.Findings) != 1 || !strings.HasPrefix(g.Findings[0].Claim, claim) || g.Findings[0].Seen == "" || len(g.Findings[0].Wanted) == 0 {
					t.Errorf("findings %+v, want one about %s", g.Findings, claim)
				}
			}
			if got := err.Error(); got != f.Public() {
				t.Errorf("the caller sees %q", got)
			}
			assertNothingMounted(t, bundle)
			if w.journalText() != "" {
				t.Error("the cause is in the journal although the broker took it")
			}
		})
	}
}

func assertNothingMounted(t *testing.T, bundle string) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), bundle) {
		t.Errorf("something is mounted below %s", bundle)
	}
	if entries, err := os.ReadDir(filepath.Join(bundle, "rootfs")); err == nil && len(entries) > 0 {
		t.Errorf("%d files are visible in the rootfs", len(entries))
	}
}

// What the broker itself refused keeps the broker's ticket and is not told to
// it again.
func TestBrokersTicketIsKept(t *testing.T) {
	const ticket = fault.Ticket("7QK2-M9TD")
	for _, path := range []string{kekPath, signerPath, policyPath} {
		t.Run(path, func(t *testing.T) {
			w := newWorld(t, nil)
			w.broker.deny(path, ticket)
			_, err := w.hub.PullImage(t.Context(), w.ref, w.bundle())
			if f, ok := errors.AsType[*fault.Fault](err); !ok || f.Code != fault.PolicyDenied || f.Ticket != ticket {
				t.Fatalf("got %v", err)
			}
			if told, _ := w.broker.told(); len(told) != 0 {
				t.Errorf("told the broker what it knows: %+v", told)
			}
			if w.journalText() != "" {
				t.Error("wrote to the journal")
			}
		})
	}
	t.Run("resource", func(t *testing.T) {
		w := newWorld(t, nil)
		w.broker.deny("default/secret/1", ticket)
		_, err := w.hub.Resource(t.Context(), "kbs:///default/secret/1")
		if f, ok := errors.AsType[*fault.Fault](err); !ok || f.Code != fault.PolicyDenied || f.Ticket != ticket {
			t.Fatalf("got %v", err)
		}
		if _, err = w.hub.Resource(t.Context(), "kbs:///default/secret/absent"); fault.CodeOf(err) != fault.NotFound {
			t.Fatalf("got %v", err)
		}
		if told, _ := w.broker.told(); len(told) != 0 {
			t.Errorf("told the broker what it knows: %+v", told)
		}
	})
}

// Where the broker cannot be told, the ticket is ours and the journal explains it.
func TestLocalTicket(t *testing.T) {
	tests := map[string]struct {
		config  func(*Config)
		arrange func(*world)
		code    fault.Code
	}{
		"broker of the field, without /v1": {code: fault.ImageUnsigned, arrange: func(w *world) {
			w.broker.report(reportsUnknown)
			_, other, err := newSigner()
			if err != nil {
				w.t.Fatal(err)
			}
			w.broker.put(signerPath, other)
		}},
		"broker that never answers": {code: fault.ImageCorrupt, arrange: func(w *world) {
			w.broker.report(reportsHang)
			w.hub.refuser.timeout = 50 * time.Millisecond
			w.registry.flip(w.ref, 0)
		}},
		"no broker": {code: fault.Unavailable, arrange: func(*world) {},
			config: func(c *Config) { c.Broker = nil }},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, tc.config)
			tc.arrange(w)
			_, err := w.hub.PullImage(t.Context(), w.ref, w.bundle())
			f, ok := errors.AsType[*fault.Fault](err)
			if !ok || f.Code != tc.code {
				t.Fatalf("got %v, want %s", err, tc.code)
			}
			if _, err := fault.ParseTicket(string(f.Ticket)); err != nil {
				t.Fatalf("ticket %q: %v", f.Ticket, err)
			}
			var entry journalEntry
			if err := json.Unmarshal([]byte(w.journalText()), &entry); err != nil {
				t.Fatalf("journal %q: %v", w.journalText(), err)
			}
			if entry.Ticket != f.Ticket || entry.Code != string(tc.code) || entry.Kind != ObjectImage || entry.Object != w.ref || len(entry.Cause) < 10 {
				t.Errorf("journal entry %+v", entry)
			}
		})
	}
}

// A report that hangs is the affair of the container that was refused.
func TestSlowReportHoldsUpNobody(t *testing.T) {
	w := newWorld(t, nil)
	w.broker.report(reportsHang)
	w.broker.put("default/secret/1", []byte("v"))
	w.registry.flip(w.ref, 0)
	if _, err := w.hub.Resource(t.Context(), "kbs:///default/secret/1"); err != nil {
		t.Fatal(err)
	}
	refused := make(chan error, 1)
	w.hub.refuser.timeout = time.Minute // ended by the test, not by the clock
	reporting := make(chan struct{})
	inner := w.hub.refuser.broker
	ctx, end := context.WithCancel(t.Context())
	w.hub.refuser.broker = reporterFunc(func(_ context.Context, r refusal) (fault.Ticket, error) {
		close(reporting)
		return inner.ReportRefusal(ctx, r)
	})
	bundle := w.bundle()
	go func() {
		_, err := w.hub.PullImage(t.Context(), w.ref, bundle)
		refused <- err
	}()
	<-reporting
	for range 3 {
		if _, err := w.hub.Resource(t.Context(), "kbs:///default/secret/1"); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.hub.ReleaseImage(t.Context(), w.bundle()); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-refused:
		t.Fatalf("the report did not hang, so this shows nothing: %v", err)
	default:
	}
	end()
	if err := <-refused; fault.CodeOf(err) != fault.ImageCorrupt {
		t.Fatalf("got %v", err)
	}
}

// The report of a pull that ran out of time still reaches the broker.
func TestReportOutlivesTheCaller(t *testing.T) {
	w := newWorld(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := w.hub.Refuse(ctx, ObjectImage, w.ref, fault.New(fault.ImageCorrupt, errors.New("some cause")))
	_, tickets := w.broker.told()
	if f, ok := errors.AsType[*fault.Fault](err); !ok || len(tickets) != 1 || f.Ticket != tickets[0] {
		t.Fatalf("got %v, the broker gave %s", err, tickets)
	}
	if w.hub.Refuse(ctx, ObjectImage, w.ref, nil) != nil {
		t.Fatal("refused nothing")
	}
}

// A policy that changes at the broker is in force for the next pull, and so is
// the withdrawal of a key.
func TestNothingOutlivesThePull(t *testing.T) {
	w := newWorld(t, nil)
	bundle := w.bundle()
	if _, err := w.hub.PullImage(t.Context(), w.ref, bundle); err != nil {
		t.Fatal(err)
	}
	w.broker.put(policyPath, []byte(`{"default":[{"type":"reject"}],"transports":{}}`))
	if _, err := w.hub.PullImage(t.Context(), w.ref, w.bundle()); fault.CodeOf(err) != fault.ImageUnsigned {
		t.Fatalf("the old policy is still in force: %v", err)
	}
	w.broker.put(policyPath, w.signedPolicy())
	if err := w.hub.ReleaseImage(t.Context(), bundle); err != nil {
		t.Fatal(err)
	}
	assertNothingMounted(t, bundle)
	if _, err := w.hub.PullImage(t.Context(), w.ref, w.bundle()); err != nil {
		t.Fatal(err)
	}
}

func TestOnePullPerBundle(t *testing.T) {
	w := newWorld(t, nil)
	bundle := w.bundle()
	if _, err := w.hub.PullImage(t.Context(), w.ref, bundle); err != nil {
		t.Fatal(err)
	}
	if _, err := w.hub.PullImage(t.Context(), w.ref, bundle); fault.CodeOf(err) != fault.Conflict {
		t.Fatalf("second pull into the bundle: %v", err)
	}
	for range 2 { // releasing is idempotent
		if err := w.hub.ReleaseImage(t.Context(), bundle); err != nil {
			t.Fatal(err)
		}
		assertNothingMounted(t, bundle)
	}
	if _, err := w.hub.PullImage(t.Context(), w.ref, bundle); err != nil {
		t.Fatalf("pull after release: %v", err)
	}
	other := w.bundle()
	if _, err := w.hub.PullImage(t.Context(), w.ref, other); err != nil {
		t.Fatal(err)
	}
	if err := w.hub.Close(); err != nil {
		t.Fatal(err)
	}
	assertNothingMounted(t, bundle)
	assertNothingMounted(t, other)
	if _, err := w.hub.PullImage(t.Context(), w.ref, w.bundle()); fault.CodeOf(err) != fault.Unavailable {
		t.Fatalf("pull after close: %v", err)
	}
	for _, bad := range []string{"relative", "/a/../b", "/a/", ""} {
		if _, err := w.hub.PullImage(t.Context(), w.ref, bad); fault.CodeOf(err) != fault.InvalidRequest {
			t.Errorf("bundle %q: %v", bad, err)
		}
	}
}

// Inline policy and file keys need no broker for a signed, unencrypted image.
func TestPolicyWithoutBroker(t *testing.T) {
	key := filepath.Join(t.TempDir(), "cosign.pub")
	for name, keyPath := range map[string]string{"path": key, "file URI": "file://" + key} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(c *Config) {
				c.Broker, c.ImagePolicyURI = nil, ""
				c.ImagePolicyInline = fmt.Appendf(nil, `{"default":[{"type":"sigstoreSigned","keyPath":%q}],"transports":{}}`, keyPath)
			})
			plain := w.registry.host + "/shop/plain:1"
			if err := os.WriteFile(key, w.sign(plain), 0o600); err != nil {
				t.Fatal(err)
			}
			img, err := w.hub.PullImage(t.Context(), plain, w.bundle())
			if err != nil || img.Digest != w.digest {
				t.Errorf("%+v, %v %s", img, err, w.journalText())
			}
			if _, err := w.hub.PullImage(t.Context(), w.ref, w.bundle()); fault.CodeOf(err) != fault.ImageUnsigned {
				t.Errorf("image of another signer: %v", err)
			}
		})
	}
}

func TestTokenAndEvidence(t *testing.T) {
	w := newWorld(t, nil)
	api := httptest.NewServer(rest.NewHandler(w.hub, w.hub, rest.All))
	defer api.Close()
	var token struct {
		Token string `json:"token"`
		Key   string `json:"tee_keypair"`
	}
	if err := json.Unmarshal(getOK(t, api.URL+"/aa/token?token_type=kbs"), &token); err != nil {
		t.Fatal(err)
	}
	if all := w.broker.tokens(); len(all) != 1 || token.Token != all[0] || token.Key != "" {
		t.Error("not the token that the broker gave, or its key")
	}
	var evidence map[string]json.RawMessage
	if err := json.Unmarshal(getOK(t, api.URL+"/aa/evidence?runtime_data=hello"), &evidence); err != nil || evidence["attestation_report"] == nil {
		t.Errorf("evidence %v, %v", evidence, err)
	}
	for _, err := range []error{
		second(w.hub.Token(t.Context(), "something")),
		second(w.hub.Evidence(t.Context(), make([]byte, 65))),
	} {
		if f, ok := errors.AsType[*fault.Fault](err); !ok || f.Code != fault.InvalidRequest || f.Ticket == "" {
			t.Errorf("got %v", err)
		}
	}
}

// Keys leave the agent only where the owner says so by name.
func TestTokensOfOtherKinds(t *testing.T) {
	w := newWorld(t, func(c *Config) {
		c.Tokens.UnsafeKeyPairs = true
		c.Tokens.Service = func(context.Context) (secret.Bytes, error) { return secret.New([]byte("a.b.c")), nil }
	})
	raw, err := w.hub.Token(t.Context(), "kbs")
	if err != nil || !strings.Contains(string(raw.Reveal()), "PRIVATE KEY") {
		t.Errorf("no key pair: %v", err)
	}
	if raw, err = w.hub.Token(t.Context(), "coco_as"); err != nil || string(raw.Reveal()) != "a.b.c" {
		t.Errorf("%v", err)
	}
	w.hub.tokens.Service = nil
	if _, err := w.hub.Token(t.Context(), "coco_as"); fault.CodeOf(err) != fault.Unavailable {
		t.Errorf("no service: %v", err)
	}
}

// device is attached to the guest.
type device struct{}

func (device) Platform() measure.Platform { return measure.NVIDIA }
func (device) Evidence(_ context.Context, d measure.ReportData) (measure.Evidence, error) {
	return measure.Evidence{Platform: measure.NVIDIA, Data: fmt.Appendf(nil, `{"nonce":"%x"}`, d[:2])}, nil
}

func TestAdditionalEvidence(t *testing.T) {
	w := newWorld(t, nil)
	if raw, err := w.hub.AdditionalEvidence(t.Context(), []byte("ab")); err != nil || len(raw) != 0 || w.hub.AdditionalPlatforms() != nil {
		t.Errorf("without devices: %q, %v", raw, err)
	}
	w.hub.devices = []measure.Attester{device{}}
	raw, err := w.hub.AdditionalEvidence(t.Context(), []byte("ab"))
	if err != nil || string(raw) != `{"nvidia":{"nonce":"6162"}}` || len(w.hub.AdditionalPlatforms()) != 1 {
		t.Errorf("%s, %v", raw, err)
	}
	if _, err := w.hub.AdditionalEvidence(t.Context(), make([]byte, 65)); fault.CodeOf(err) != fault.InvalidRequest {
		t.Errorf("%v", err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestNewRefusesHalfAConfig(t *testing.T) {
	for name, cfg := range map[string]Config{
		"no image dir": {Journal: io.Discard, Logger: discard()},
		"no journal":   {ImageDir: t.TempDir(), Logger: discard()},
		"no logger":    {ImageDir: t.TempDir(), Journal: io.Discard},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
