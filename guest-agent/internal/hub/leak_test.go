package hub

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/rest"
	"github.com/vouchsafe-cc/vouchsafe/image/crypt"
	"github.com/vouchsafe-cc/vouchsafe/image/ship"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// The host reads the guest's console and every error that the runtime prints.
// Nothing there may hold a key, a token, a secret or the reason of a refusal.
func TestNothingLeaks(t *testing.T) {
	output := captureStdio(t)
	w := newWorld(t, nil)
	value := rand40()
	w.broker.put("default/secret/1", []byte(value))

	var seen []string // what callers were told
	api := httptest.NewServer(rest.NewHandler(w.hub, w.hub, rest.All))
	defer api.Close()
	bundle := w.bundle()
	if _, err := w.hub.PullImage(t.Context(), w.ref, bundle); err != nil {
		t.Fatal(err)
	}
	getOK(t, api.URL+"/cdh/resource/default/secret/1")
	getOK(t, api.URL+"/aa/token?token_type=kbs")

	layerKeys := w.layerKeys()
	w.registry.flip(w.ref, 2)
	if err := w.hub.ReleaseImage(t.Context(), bundle); err != nil {
		t.Fatal(err)
	}
	if n, err := w.hub.images.Load().store.GC(); err != nil || n != layers { // or the layers that are there already would do
		t.Fatalf("%d layers collected, %v", n, err)
	}
	_, err := w.hub.PullImage(t.Context(), w.ref, w.bundle())
	seen = append(seen, errorText(t, err))
	w.broker.report(reportsUnknown)
	_, other, err := newSigner()
	if err != nil {
		t.Fatal(err)
	}
	w.broker.put(signerPath, other)
	_, err = w.hub.PullImage(t.Context(), w.ref, w.bundle())
	seen = append(seen, errorText(t, err), body(t, api.URL+"/cdh/resource/default/secret/absent"))

	everything := strings.Join(append(seen, w.log.String(), output()), "\n")
	if !strings.Contains(everything, "image_signature_rejected") || !strings.Contains(everything, "image_layer_corrupt") {
		t.Fatalf("the capture is empty: %s", everything)
	}
	told, _ := w.broker.told()
	if len(told) != 1 {
		t.Fatalf("told %+v", told)
	}
	var journal journalEntry
	lines := strings.Split(strings.TrimSpace(w.journalText()), "\n") // the first one is the verdict of the pull that succeeded
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &journal); err != nil {
		t.Fatal(err)
	}
	forbidden := map[string]string{
		"the secret": value, "the cause told to the broker": told[0].Cause, "the cause in the journal": journal.Cause,
		"the rule": journal.Rule, "what was seen": told[0].Findings[0].Seen, "the wanted signer": journal.Found[0].Wanted[0],
	}
	for name, key := range map[string][]byte{"KEK": w.kek, "layer key": layerKeys[0], "last layer key": layerKeys[layers-1]} {
		forbidden[name+", raw"] = string(key)
		forbidden[name+", hex"] = hex.EncodeToString(key)
		forbidden[name+", base64"] = strings.TrimRight(base64.StdEncoding.EncodeToString(key), "=")
		forbidden[name+", base64url"] = base64.RawURLEncoding.EncodeToString(key)
	}
	for _, token := range w.broker.tokens() {
		forbidden["a token"] = token
	}
	for name, text := range forbidden {
		if text == "" {
			t.Errorf("%s is empty: this test shows nothing", name)
		} else if strings.Contains(everything, text) {
			t.Errorf("%s leaked", name)
		}
	}
	if t.Failed() {
		t.Log(everything)
	}
}

// layerKeys unwraps the layers' keys from the manifest, past the hub.
func (w *world) layerKeys() (keys [][]byte) {
	w.t.Helper()
	kek := secret.Copy(w.kek)
	for _, l := range w.registry.manifest(w.ref).Layers {
		var raw string
		for name, v := range l.Annotations {
			if strings.HasPrefix(name, "org.opencontainers.image.enc.keys.provider.") {
				raw = v
			}
		}
		packet, err := base64.StdEncoding.DecodeString(raw)
		if err != nil {
			w.t.Fatal(err)
		}
		p, err := crypt.ParsePacket(packet)
		if err != nil {
			w.t.Fatal(err)
		}
		private, err := p.Open(kek)
		if err != nil {
			w.t.Fatal(err)
		}
		var o struct {
			SymKey []byte `json:"symkey"`
		}
		if err := json.Unmarshal(private.Reveal(), &o); err != nil || len(o.SymKey) != 32 {
			w.t.Fatalf("layer key: %v", err)
		}
		keys = append(keys, o.SymKey)
	}
	return keys
}

// captureStdio diverts what the process prints until the test ends.
func captureStdio(t *testing.T) func() string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "stdio")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	out, errOut := os.Stdout, os.Stderr
	os.Stdout, os.Stderr = f, f
	t.Cleanup(func() {
		os.Stdout, os.Stderr = out, errOut
		_ = f.Close()
	})
	return func() string {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
}

func errorText(t *testing.T, err error) string {
	t.Helper()
	if err == nil {
		t.Fatal("not refused")
	}
	return err.Error()
}

func body(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func rand40() string { return hex.EncodeToString(secret.Random(20).Reveal()) }

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func newSigner() (secret.Bytes, []byte, error) { return ship.GenerateKey() }
