package hub

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	ggcrname "github.com/google/go-containerregistry/pkg/name"
	ggcrregistry "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/image/ship"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// Where the broker keeps what a pod needs.
const (
	policyPath = "default/security-policy/main"
	signerPath = "default/cosign-public-key/app"
	kekPath    = "default/image-kek/app"
	layers     = 20
)

// world is a broker, a registry with one encrypted and signed image, and a hub
// between them. Only the hardware and the network are not the real ones.
type world struct {
	t        *testing.T
	broker   *testBroker
	registry *testRegistry
	hub      *Hub
	ref      string // of the encrypted image
	digest   string // its manifest
	kek      []byte
	log      *safeBuffer
	journal  string
	images   string // of the hub that is open
}

// newWorld builds a world; change edits the hub's configuration.
func newWorld(t *testing.T, change func(*Config)) *world {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting an image needs root")
	}
	p := simulated(t)
	w := &world{
		t: t, broker: newTestBroker(t, p.verifier, p.doc.Digest()), registry: newTestRegistry(t),
		log: new(safeBuffer), journal: filepath.Join(t.TempDir(), "private", "refusals"),
	}
	w.ship()
	w.open(change)
	return w
}

// open opens another hub, with nothing of what the one before had fetched.
func (w *world) open(change func(*Config)) {
	t := w.t
	t.Helper()
	p := simulated(t)
	journal, err := OpenJournal(w.journal, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	cfg := Config{
		Broker: w.broker.attested(p, log), Attester: p.attester, ImageDir: filepath.Join(t.TempDir(), "images"),
		ImagePolicyURI: "kbs:///" + policyPath, Registry: w.registry.config(), Journal: journal, Logger: log,
	}
	if change != nil {
		change(&cfg)
	}
	h, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w.hub, w.images = h, cfg.ImageDir
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		_ = journal.Close()
	})
}

// ship builds, encrypts, signs and pushes the image and gives the broker what
// guests need to run it.
func (w *world) ship() {
	t := w.t
	t.Helper()
	plain := w.registry.host + "/shop/plain:1"
	w.ref = w.registry.host + "/shop/app:1"
	w.registry.push(plain, testImage(t))

	kek := secret.Random(32)
	w.kek = bytes.Clone(kek.Reveal())
	_, err := ship.Encrypt(t.Context(), plain, w.ref, ship.EncryptOptions{
		KID: "kbs:///" + kekPath, KEK: kek, Registry: w.registry.config(),
	})
	if err != nil {
		t.Fatalf("encrypt: %v", err)
	}
	signer := w.sign(w.ref)
	w.broker.put(kekPath, w.kek)
	w.broker.put(signerPath, signer)
	w.broker.put(policyPath, w.signedPolicy())
}

// sign signs ref with a new key and returns the public one.
func (w *world) sign(ref string) []byte {
	w.t.Helper()
	private, public, err := ship.GenerateKey()
	if err != nil {
		w.t.Fatal(err)
	}
	signed, err := ship.Sign(w.t.Context(), ref, private, ship.SignOptions{Registry: w.registry.config()})
	if err != nil {
		w.t.Fatalf("sign: %v", err)
	}
	w.digest = signed.Digest
	return public
}

func (w *world) signedPolicy() []byte {
	return fmt.Appendf(nil, `{"default":[{"type":"reject"}],"transports":{"docker":{%q:[{"type":"sigstoreSigned","keyPath":%q}]}}}`,
		w.registry.host+"/shop", "kbs:///"+signerPath)
}

// bundle returns a new bundle directory.
func (w *world) bundle() string { return filepath.Join(w.t.TempDir(), "container") }

// journalText returns what is in the journal.
func (w *world) journalText() string {
	w.t.Helper()
	raw, err := os.ReadFile(w.journal)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(raw)
}

func testImage(t *testing.T) v1.Image {
	t.Helper()
	var add []v1.Layer
	for i := range layers {
		var buf bytes.Buffer
		tw := tar.NewWriter(&buf)
		text := fmt.Sprintf("contents of layer %d\n", i)
		if err := tw.WriteHeader(&tar.Header{Name: fmt.Sprintf("layer-%d", i), Mode: 0o644, Size: int64(len(text))}); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if err := tw.Close(); err != nil {
			t.Fatal(err)
		}
		l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil })
		if err != nil {
			t.Fatal(err)
		}
		add = append(add, l)
	}
	img, err := mutate.AppendLayers(empty.Image, add...)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	cfg = cfg.DeepCopy()
	cfg.OS, cfg.Architecture = "linux", "amd64"
	cfg.Config.Entrypoint = []string{"/bin/app"}
	if img, err = mutate.ConfigFile(img, cfg); err != nil {
		t.Fatal(err)
	}
	return img
}

// testRegistry is a registry that can spoil a blob on its way out.
type testRegistry struct {
	t       *testing.T
	host    string
	handler http.Handler
	cut     *cutting
	mu      sync.Mutex
	spoil   string // digest of the blob to flip a byte in
}

func newTestRegistry(t *testing.T) *testRegistry {
	r := &testRegistry{t: t}
	inner := ggcrregistry.New(ggcrregistry.Logger(slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)))
	r.cut = &cutting{gone: make(chan struct{})}
	r.cut.next = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		spoil := r.spoil != "" && strings.HasSuffix(req.URL.Path, "/blobs/"+r.spoil)
		r.mu.Unlock()
		if !spoil || req.Method != http.MethodGet {
			inner.ServeHTTP(w, req)
			return
		}
		rec := httptest.NewRecorder()
		inner.ServeHTTP(rec, req)
		body := rec.Body.Bytes()
		body[len(body)/2] ^= 1
		for k, v := range rec.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(rec.Code)
		_, _ = w.Write(body)
	})
	srv := httptest.NewServer(r.cut)
	t.Cleanup(func() { close(r.cut.gone); srv.Close() })
	r.host, r.handler = strings.TrimPrefix(srv.URL, "http://"), srv.Config.Handler
	return r
}

func (r *testRegistry) config() registry.Config {
	return registry.Config{InsecureHTTPHosts: []string{r.host}}
}

func (r *testRegistry) push(ref string, img v1.Image) {
	r.t.Helper()
	if err := remote.Write(r.name(ref), img); err != nil {
		r.t.Fatal(err)
	}
}

func (r *testRegistry) name(ref string) ggcrname.Reference {
	r.t.Helper()
	n, err := ggcrname.ParseReference(ref, ggcrname.Insecure)
	if err != nil {
		r.t.Fatal(err)
	}
	return n
}

// manifest reads the manifest of ref past our own code.
func (r *testRegistry) manifest(ref string) *v1.Manifest {
	r.t.Helper()
	img, err := remote.Image(r.name(ref))
	if err != nil {
		r.t.Fatal(err)
	}
	m, err := img.Manifest()
	if err != nil {
		r.t.Fatal(err)
	}
	return m
}

// flip spoils one layer of ref from now on and returns its digest.
func (r *testRegistry) flip(ref string, layer int) string {
	r.t.Helper()
	digest := r.manifest(ref).Layers[layer].Digest.String()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.spoil = digest
	return digest
}

// safeBuffer is a log that goroutines share.
type safeBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
