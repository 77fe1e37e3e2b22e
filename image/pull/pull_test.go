package pull_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/image/crypt"
	"github.com/vouchsafe-cc/vouchsafe/image/internal/imagetest"
	"github.com/vouchsafe-cc/vouchsafe/image/pull"
	"github.com/vouchsafe-cc/vouchsafe/image/ship"
	"github.com/vouchsafe-cc/vouchsafe/image/store"
	"github.com/vouchsafe-cc/vouchsafe/image/trust"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

const (
	kid     = "kbs:///default/image-kek/1"
	keyPath = "kbs:///default/cosign/1"
)

// world is a registry, a guest's store, a signing key and a key broker that
// counts what it is asked.
type world struct {
	*imagetest.Server
	t         testing.TB
	dir       string
	store     *store.Store
	puller    *pull.Puller
	key       secret.Bytes // signs
	pub       []byte
	kek       secret.Bytes
	mu        sync.Mutex
	unwraps   int
	unwrapErr error
	policy    string
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("unpacking with owners and devices needs root")
	}
}

func newWorld(t testing.TB) *world {
	t.Helper()
	needRoot(t)
	w := &world{Server: imagetest.Serve(t), t: t, dir: filepath.Join(t.TempDir(), "store"), kek: secret.Random(32)}
	var err error
	w.key, w.pub, err = ship.GenerateKey()
	imagetest.Must(t, err)
	w.policy = fmt.Sprintf(`{"default":[{"type":"reject"}],"transports":{"docker":{%q:[{"type":"sigstoreSigned","keyPath":%q}]}}}`, w.Host+"/signed", keyPath)
	w.store, err = store.Open(w.dir)
	imagetest.Must(t, err)
	t.Cleanup(func() { _ = w.store.Close() })
	w.puller, err = pull.New(w.config())
	imagetest.Must(t, err)
	return w
}

func (w *world) config() pull.Config {
	return pull.Config{
		Store: w.store, Registry: w.Config(), Unwrapper: w,
		Policy: func(context.Context) (*trust.Policy, error) { return trust.ParsePolicy([]byte(w.policy)) },
		Keys: func(_ context.Context, path string) ([]byte, error) {
			if path != keyPath {
				return nil, errors.New("no such key")
			}
			return w.pub, nil
		},
	}
}

// pullWith pulls with our gzip decoder or the library's.
func (w *world) pullWith(library bool, ref string) *pull.Image {
	w.t.Helper()
	config := w.config()
	config.LibraryGzip = library
	p, err := pull.New(config)
	imagetest.Must(w.t, err)
	img, err := p.Pull(w.t.Context(), ref)
	imagetest.Must(w.t, err)
	return img
}

// Unwrap is the broker: it opens packets of the one key.
func (w *world) Unwrap(_ context.Context, key crypt.WrappedKey) (secret.Bytes, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unwraps++
	if w.unwrapErr != nil {
		return secret.Bytes{}, w.unwrapErr
	}
	p, err := crypt.ParsePacket(key.Packet)
	if err != nil {
		return secret.Bytes{}, err
	}
	if p.KID != kid {
		return secret.Bytes{}, fmt.Errorf("no key %s", p.KID)
	}
	return p.Open(w.kek)
}

func (w *world) ref(name string) string { return w.Host + "/signed/" + name }

func (w *world) sign(ref string) {
	w.t.Helper()
	_, err := ship.Sign(w.t.Context(), ref, w.key, ship.SignOptions{Registry: w.Config()})
	imagetest.Must(w.t, err)
}

// ship pushes the layers in the clear, encrypts and signs them as ref.
func (w *world) ship(name string, layers ...imagetest.Layer) string {
	w.t.Helper()
	imagetest.Push(w.t, w.Server, w.Host+"/plain/"+name, nil, layers...)
	_, err := ship.Encrypt(w.t.Context(), w.Host+"/plain/"+name, w.ref(name), ship.EncryptOptions{KID: kid, KEK: w.kek, Registry: w.Config()})
	imagetest.Must(w.t, err)
	w.sign(w.ref(name))
	return w.ref(name)
}

// tree lists everything under the store with modes, sizes and contents.
func (w *world) tree() string {
	w.t.Helper()
	var b strings.Builder
	imagetest.Must(w.t, filepath.WalkDir(w.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s %v", path, info.Mode())
		if info.Mode().IsRegular() {
			fmt.Fprintf(&b, " %d", info.Size())
		}
		b.WriteByte('\n')
		return nil
	}))
	return b.String()
}

// refused pulls and expects a refusal that leaves nothing behind.
func (w *world) refused(ref string, code fault.Code) error {
	w.t.Helper()
	before := w.tree()
	img, err := w.puller.Pull(w.t.Context(), ref)
	if err == nil {
		_ = img.Release()
		w.t.Fatalf("%s was accepted", ref)
	}
	f, ok := errors.AsType[*fault.Fault](err)
	if !ok || f.Code != code {
		w.t.Fatalf("got %v (%v), want %s", err, cause(err), code)
	}
	if after := w.tree(); after != before {
		w.t.Fatalf("left behind:\n%s\nbefore:\n%s", after, before)
	}
	return err
}

func cause(err error) error {
	if f, ok := errors.AsType[*fault.Fault](err); ok {
		return f.Cause()
	}
	return nil
}

func (w *world) layerError(err error, index int, what string) *pull.LayerError {
	w.t.Helper()
	le, ok := errors.AsType[*pull.LayerError](err)
	if !ok || le.Index != index || le.What != what {
		w.t.Fatalf("cause %v, want layer %d and %q", cause(err), index, what)
	}
	return le
}

func (w *world) pull(ref string) *pull.Image {
	w.t.Helper()
	img, err := w.puller.Pull(w.t.Context(), ref)
	if err != nil {
		w.t.Fatalf("%v: %v", err, cause(err))
	}
	w.t.Cleanup(func() { _ = img.Release() })
	return img
}

func (w *world) mount(img *pull.Image) string {
	w.t.Helper()
	target := filepath.Join(w.t.TempDir(), "rootfs")
	if err := img.Mount(w.t.Context(), target); err != nil {
		w.t.Fatalf("%v: %v", err, cause(err))
	}
	w.t.Cleanup(func() { _ = unix.Unmount(target, unix.MNT_DETACH) })
	return target
}

func read(t testing.TB, parts ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(parts...))
	imagetest.Must(t, err)
	return string(b)
}

func layers(t testing.TB) []imagetest.Layer {
	t.Helper()
	raw := imagetest.Tar(t, imagetest.File("three", "3"))
	return []imagetest.Layer{
		imagetest.GzipLayer(t, imagetest.Dir("etc"), imagetest.File("etc/one", "1"), imagetest.File("gone", "x"), imagetest.Dir("dir"), imagetest.File("dir/old", "x")),
		imagetest.GzipLayer(t, imagetest.File("two", "2"), imagetest.File(".wh.gone", ""), imagetest.Dir("dir"), imagetest.File("dir/.wh..wh..opq", "")),
		{MediaType: "application/vnd.oci.image.layer.v1.tar+zstd", Blob: imagetest.Zstd(t, raw), DiffID: digest.FromBytes(raw)},
	}
}

func TestPullEncryptedSigned(t *testing.T) {
	w := newWorld(t)
	ref := w.ship("app:v1", layers(t)...)
	img := w.pull(ref)
	if img.Reference != ref || !strings.HasPrefix(img.Digest, "sha256:") || img.Config.Cmd[0] != "/bin/true" {
		t.Errorf("%+v", img)
	}
	if v := img.Verdict; !v.Accepted || v.Waived || len(v.Signers) != 1 || v.Digest != img.Digest || !strings.Contains(v.Scope, "/signed") {
		t.Errorf("verdict %+v", v)
	}
	root := w.mount(img)
	if read(t, root, "etc/one")+read(t, root, "two")+read(t, root, "three") != "123" {
		t.Error("content")
	}
	for _, name := range []string{"gone", "dir/old"} {
		if _, err := os.Lstat(filepath.Join(root, name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s came back: %v", name, err)
		}
	}
	imagetest.Must(t, os.WriteFile(filepath.Join(root, "two"), []byte("written"), 0o600))
	if err := img.Mount(t.Context(), root); fault.CodeOf(err) != fault.Conflict {
		t.Errorf("a second mount at the same place: %v", err)
	}
	imagetest.Must(t, img.Unmount(root))
	imagetest.Must(t, img.Mount(t.Context(), root))
	if read(t, root, "two") != "2" {
		t.Error("what one mount wrote is in the next one")
	}
	closed := t.TempDir()
	imagetest.Must(t, img.MountReadOnly(t.Context(), closed))
	if err := os.WriteFile(filepath.Join(closed, "two"), nil, 0o600); read(t, closed, "two") != "2" || !errors.Is(err, unix.EROFS) {
		t.Errorf("a read-only mount: %v", err)
	}
	imagetest.Must(t, img.Release())
	if err := img.Mount(t.Context(), root); err == nil {
		t.Error("mounted after the release")
	}
	if n, err := w.store.GC(); n != 3 || err != nil {
		t.Errorf("GC %d, %v", n, err)
	}
}

func TestMediaTypes(t *testing.T) {
	w := newWorld(t)
	raw := imagetest.Tar(t, imagetest.File("f", "content"))
	two := append(imagetest.Gzip(t, raw[:700]), imagetest.Gzip(t, raw[700:])...) // two gzip members
	oci, docker := "application/vnd.oci.image.layer.v1.tar", "application/vnd.docker.image.rootfs.diff.tar"
	for mediaType, blob := range map[string][]byte{
		oci: raw, oci + "+gzip": two, oci + "+zstd": imagetest.Zstd(t, raw), docker: raw, docker + ".gzip": two, docker + ".zstd": imagetest.Zstd(t, raw),
	} {
		for _, encrypted := range []bool{false, true} {
			l := imagetest.Layer{MediaType: mediaType, Blob: blob, DiffID: digest.FromBytes(raw)}
			ref := w.ref("types:v1")
			if encrypted {
				w.ship("types:v1", l)
			} else {
				imagetest.Push(t, w.Server, ref, nil, l)
				w.sign(ref)
			}
			for _, library := range []bool{false, true} {
				img := w.pullWith(library, ref)
				if root := w.mount(img); read(t, root, "f") != "content" {
					t.Errorf("%s encrypted %v, library %v", mediaType, encrypted, library)
				}
				imagetest.Must(t, img.Release())
				_, err := w.store.GC()
				imagetest.Must(t, err)
			}
		}
	}
	for _, bad := range []string{"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
		oci + "+xz", docker + ".gzip+encrypted", "", "text/plain", oci + "+gzip+encrypted"} {
		ref := w.ref("bad:v1")
		imagetest.Push(t, w.Server, ref, nil, imagetest.Layer{MediaType: bad, Blob: two, DiffID: digest.FromBytes(raw)})
		w.sign(ref)
		w.refused(ref, fault.ImageMalformed)
	}
	if w.unwraps != 12 {
		t.Errorf("%d keys were asked for", w.unwraps)
	}
}

// Every layer exists once, however often it is named, and is fetched once even
// by pulls at the same moment.
func TestSharedLayers(t *testing.T) {
	w := newWorld(t)
	base := imagetest.GzipLayer(t, imagetest.File("base", "b"))
	top := imagetest.GzipLayer(t, imagetest.File("top", "t"))
	for _, name := range []string{"one:v1", "two:v1"} {
		imagetest.Push(t, w.Server, w.ref(name), nil, base, top, base)
		w.sign(w.ref(name))
	}
	w.Forget()
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			img, err := w.puller.Pull(t.Context(), w.ref([]string{"one:v1", "two:v1"}[i%2]))
			if err != nil {
				t.Error(cause(err))
				return
			}
			t.Cleanup(func() { _ = img.Release() })
		})
	}
	wg.Wait()
	if n := w.Requests("GET", "/blobs/"+digest.FromBytes(base.Blob).String()); n != 1 {
		t.Errorf("the shared layer was fetched %d times", n)
	}
	img := w.pull(w.ref("one:v1"))
	if root := w.mount(img); read(t, root, "base")+read(t, root, "top") != "bt" {
		t.Error("content")
	}
}

// The policy speaks on every pull, whatever lies in the store, and before a key
// is asked for or a layer fetched.
func TestPolicyFirst(t *testing.T) {
	w := newWorld(t)
	ref := w.ship("app:v1", layers(t)...)
	w.pull(ref)
	asked := w.unwraps
	w.Forget()

	signed := w.policy
	for name, tt := range map[string]struct {
		policy string
		code   fault.Code
	}{
		"reject":      {`{"default":[{"type":"reject"}],"transports":{}}`, fault.ImageUnsigned},
		"another key": {strings.Replace(signed, keyPath, "kbs:///default/cosign/2", 1), fault.ImageUnsigned},
		"invalid":     {`{"default":[],"transports":{}}`, fault.ImagePolicyMissing},
	} {
		w.policy = tt.policy
		err := w.refused(ref, tt.code)
		if rej, ok := errors.AsType[*trust.Rejection](err); (tt.code == fault.ImageUnsigned) != ok {
			t.Errorf("%s: cause %v", name, rej)
		}
	}
	w.policy = signed
	// The same bytes under a name that the policy does not know: the cache must
	// not answer.
	other := strings.Replace(ref, "/signed/", "/elsewhere/", 1)
	_, err := ship.Encrypt(t.Context(), w.Host+"/plain/app:v1", other, ship.EncryptOptions{KID: kid, KEK: w.kek, Registry: w.Config()})
	imagetest.Must(t, err)
	w.refused(other, fault.ImageUnsigned)
	// A tag that moved to an unsigned image.
	imagetest.Push(t, w.Server, ref, nil, layers(t)[0])
	w.Forget()
	rej, ok := errors.AsType[*trust.Rejection](w.refused(ref, fault.ImageUnsigned))
	if !ok || rej.Reference != ref || len(rej.Wanted) != 1 || rej.Seen != "no signature" {
		t.Errorf("rejection %+v", rej)
	}
	if w.unwraps != asked || w.Requests("GET", "/blobs/") != 0 {
		t.Errorf("%d keys and %d blobs were asked for before the verdict", w.unwraps-asked, w.Requests("GET", "/blobs/"))
	}
}

// Where the policy demands encryption, the same image in the clear is refused,
// and so is one with a layer in the clear among encrypted ones; no layer is fetched.
func TestEncryptionIsDemanded(t *testing.T) {
	w := newWorld(t)
	w.policy = strings.Replace(w.policy, `{"type":"sigstoreSigned"`, `{"type":"encrypted"},{"type":"sigstoreSigned"`, 1)
	imagetest.Must(t, w.pull(w.ship("sealed:v1", layers(t)...)).Release())
	plain := w.ref("clear:v1")
	imagetest.Push(t, w.Server, plain, nil, layers(t)...)
	w.sign(plain)
	w.refused(plain, fault.ImageUnsigned)

	repo, _ := imagetest.Repository(t, w.Config(), w.ref("sealed"))
	m, err := repo.Manifest(t.Context(), "v1")
	imagetest.Must(t, err)
	doc, err := m.Image()
	imagetest.Must(t, err)
	doc.Layers[1] = imagetest.Blob(t, repo, layers(t)[1].MediaType, layers(t)[1].Blob)
	if doc.Layers[1].MediaType == "" {
		doc.Layers[1].MediaType = layerGzip
	}
	imagetest.Manifest(t, repo, "mixed", *doc)
	w.sign(w.ref("sealed:mixed"))
	w.Forget()
	w.refused(w.ref("sealed:mixed"), fault.ImageUnsigned)
	if n := w.Requests("/blobs/" + doc.Layers[1].Digest.String()); n != 0 {
		t.Errorf("the layer was asked for %d times", n)
	}
}

func TestNoPolicy(t *testing.T) {
	w := newWorld(t)
	ref := w.ship("app:v1", layers(t)...)
	w.Forget()
	for name, policy := range map[string]func(context.Context) (*trust.Policy, error){
		"not configured": nil,
		"none":           func(context.Context) (*trust.Policy, error) { return nil, nil },
		"error":          func(context.Context) (*trust.Policy, error) { return nil, errors.New("x") },
	} {
		p, err := pull.New(pull.Config{Store: w.store, Registry: w.Config(), Policy: policy, Unwrapper: w})
		imagetest.Must(t, err)
		if _, err := p.Pull(t.Context(), ref); fault.CodeOf(err) != fault.ImagePolicyMissing {
			t.Errorf("%s: %v", name, err)
		}
	}
	if w.Requests() != 0 {
		t.Error("the registry was asked although no policy is in force")
	}
}

func TestWaivedVerdictSaysSo(t *testing.T) {
	w := newWorld(t)
	w.policy = `{"default":[{"type":"insecureAcceptAnything"}],"transports":{}}`
	imagetest.Push(t, w.Server, w.Host+"/any:v1", nil, layers(t)[0])
	if v := w.pull(w.Host + "/any:v1").Verdict; !v.Accepted || !v.Waived || len(v.Signers) != 0 {
		t.Errorf("%+v", v)
	}
}

func TestKeyRefused(t *testing.T) {
	w := newWorld(t)
	ref := w.ship("app:v1", layers(t)...)
	w.unwrapErr = errors.New("no")
	// All layers are refused at once; any of them may be the one that is named.
	err := w.refused(ref, fault.ImageKey)
	if le, ok := errors.AsType[*pull.LayerError](err); !ok || le.What != pull.WhatKey || !errors.Is(le, w.unwrapErr) {
		t.Errorf("cause %v", cause(err))
	}
	w.unwrapErr = fault.New(fault.PolicyDenied, errors.New("measurement")).With("7QK2-M9TD")
	if f, _ := errors.AsType[*fault.Fault](w.refused(ref, fault.PolicyDenied)); f.Ticket != "7QK2-M9TD" {
		t.Errorf("the broker's ticket got lost: %v", f)
	}
	w.unwrapErr = nil
	// A guest that lost the right to the key gets nothing out of the cache.
	w.pull(ref)
	w.unwrapErr = errors.New("revoked")
	w.refused(ref, fault.ImageKey)
	w.unwrapErr, w.kek = nil, secret.Random(32)
	w.refused(ref, fault.ImageKey)
	p, err := pull.New(pull.Config{Store: w.store, Registry: w.Config(), Policy: func(context.Context) (*trust.Policy, error) { return trust.ParsePolicy([]byte(w.policy)) },
		Keys: func(context.Context, string) ([]byte, error) { return w.pub, nil }})
	imagetest.Must(t, err)
	if _, err := p.Pull(t.Context(), ref); fault.CodeOf(err) != fault.ImageKey {
		t.Errorf("without an unwrapper: %v", err)
	}
}

// A bug that a layer leads to ends that pull, and neither the agent nor another one.
func TestPanicsAreContained(t *testing.T) {
	w := newWorld(t)
	ref := w.ship("app:v1", layers(t)...)
	config := w.config()
	config.Unwrapper = buggyUnwrapper{}
	good := w.puller
	var err error
	w.puller, err = pull.New(config)
	imagetest.Must(t, err)
	if err := w.refused(ref, fault.ImageKey); !strings.Contains(cause(err).Error(), "panic: a bug") {
		t.Errorf("cause %v", cause(err))
	}
	w.puller = good
	w.pull(ref)
}

type buggyUnwrapper struct{}

func (buggyUnwrapper) Unwrap(context.Context, crypt.WrappedKey) (secret.Bytes, error) { panic("a bug") }

func TestMalformedImages(t *testing.T) {
	w := newWorld(t)
	l := layers(t)
	good := string(imagetest.Config(t, l))
	evil := imagetest.GzipLayer(t, imagetest.File("../../outside", "x"))
	notTar := imagetest.Layer{MediaType: l[0].MediaType, Blob: imagetest.Gzip(t, []byte(strings.Repeat("no archive ", 100))), DiffID: digest.FromString(strings.Repeat("no archive ", 100))}
	notGzip := imagetest.Layer{MediaType: l[0].MediaType, Blob: []byte("no gzip"), DiffID: digest.FromString("no gzip")}
	tests := []struct {
		name   string
		config string
		layers []imagetest.Layer
	}{
		{"windows", strings.Replace(good, `"os":"linux"`, `"os":"windows"`, 1), l},
		{"no OS", strings.Replace(good, `"os":"linux"`, `"os":""`, 1), l},
		{"fewer diffIDs", string(imagetest.Config(t, l[:2])), l},
		{"more diffIDs", good, l[:2]},
		{"no layers", string(imagetest.Config(t, nil)), nil},
		{"bad diffID", strings.Replace(good, "sha256:", "md5:", 1), l},
		{"rootfs type", strings.Replace(good, `"type":"layers"`, `"type":"x"`, 1), l},
		{"config is no JSON", "x", l},
		{"OS twice", strings.Replace(good, `"os":"linux"`, `"os":"linux","os":"linux"`, 1), l},
		{"OS in two cases", strings.Replace(good, `"os":"linux"`, `"os":"linux","OS":"linux"`, 1), l},
		{"two configurations", strings.Replace(good, `"config":{`, `"Config":{"User":"root"},"config":{`, 1), l},
		{"two users", strings.Replace(good, `"config":{`, `"config":{"user":"root","User":"1000",`, 1), l},
		{"two lists of diffIDs", strings.Replace(good, `"rootfs":{`, `"rootfs":{"Diff_IDs":[],`, 1), l},
		{"archive climbs out", "", []imagetest.Layer{l[0], evil}},
		{"no tar", "", []imagetest.Layer{notTar}},
		{"no gzip", "", []imagetest.Layer{notGzip}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var config []byte
			if tt.config != "" {
				config = []byte(tt.config)
			}
			imagetest.Push(t, w.Server, w.ref("bad:v1"), config, tt.layers...)
			w.sign(w.ref("bad:v1"))
			w.refused(w.ref("bad:v1"), fault.ImageMalformed)
		})
	}
	w.refused("not a reference", fault.InvalidRequest)
}

func TestUnavailable(t *testing.T) {
	w := newWorld(t)
	ref := w.ship("app:v1", layers(t)...)
	w.refused(w.ref("absent:v1"), fault.ImageUnavailable)
	in, err := ship.Inspect(t.Context(), ref, ship.InspectOptions{Registry: w.Config()})
	imagetest.Must(t, err)
	path := "/v2/signed/app/blobs/" + in.Layers[1].Digest
	w.Replace(path, func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusServiceUnavailable) })
	w.layerError(w.refused(ref, fault.ImageUnavailable), 1, pull.WhatFetch)
	w.Replace(path, nil)
	good := w.fetch(path)
	w.Replace(path, func(rw http.ResponseWriter, _ *http.Request) { // the connection breaks
		rw.Header().Set("Content-Length", fmt.Sprint(len(good)))
		_, _ = rw.Write(good[:len(good)/2])
	})
	w.layerError(w.refused(ref, fault.ImageUnavailable), 1, pull.WhatFetch)
	ctx, cancel := context.WithCancel(t.Context())
	w.Replace(path, func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Length", fmt.Sprint(len(good)))
		_, _ = rw.Write(good[:len(good)/2])
		_ = http.NewResponseController(rw).Flush()
		cancel()
		<-r.Context().Done()
	})
	before := w.tree()
	if _, err := w.puller.Pull(ctx, ref); fault.CodeOf(err) != fault.ImageUnavailable {
		t.Errorf("cancelled: %v (%v)", err, cause(err))
	}
	if w.tree() != before {
		t.Error("a cancelled pull left something behind")
	}
}

func TestErrorsTellTheHostNothing(t *testing.T) {
	w := newWorld(t)
	l := layers(t)
	l[0].DiffID = digest.FromString("x")
	err := w.refused(w.ship("private-name:v1", l...), fault.ImageCorrupt)
	if got := err.Error(); got != "image_layer_corrupt" {
		t.Errorf("public text %q", got)
	}
}
