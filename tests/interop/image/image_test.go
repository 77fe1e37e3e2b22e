// Package image holds our images against programs of the field that are too
// heavy for every test run: cosign, notation, and containerd's imgcrypt. Each
// direction is tried: what they write we read, what we write they read. `make
// interop-image` builds them and runs it; without them the tests say so and skip.
package image

import (
	"context"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	cregistry "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/image/ship"
	"github.com/vouchsafe-cc/vouchsafe/image/trust"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// peer returns a program that make interop-image has built.
func peer(t testing.TB, program string) string {
	t.Helper()
	dir := os.Getenv("VOUCHSAFE_PEERS")
	if dir == "" {
		t.Skip("make interop-image builds what this is held against")
	}
	path := filepath.Join(dir, program)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%s could not be built: see %s.log above %s", program, program, dir)
	}
	return path
}

// A tool is a program with a home of its own.
type tool struct {
	t    testing.TB
	path string
	home string
	env  []string
}

func newTool(t testing.TB, program string, env ...string) *tool {
	t.Helper()
	home := t.TempDir()
	env = append(env, "HOME="+home, "XDG_CONFIG_HOME="+filepath.Join(home, ".config"), "PATH="+os.Getenv("PATH"))
	return &tool{t: t, path: peer(t, program), home: home, env: env}
}

func (p *tool) try(args ...string) (string, error) {
	cmd := exec.CommandContext(p.t.Context(), p.path, args...)
	cmd.Env, cmd.Dir = p.env, p.home
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (p *tool) run(args ...string) string {
	p.t.Helper()
	out, err := p.try(args...)
	if err != nil {
		p.t.Fatalf("%s %s: %v\n%s", filepath.Base(p.path), strings.Join(args, " "), err, out)
	}
	return out
}

// fails runs what must be refused with a word.
func (p *tool) fails(word string, args ...string) {
	p.t.Helper()
	if out, err := p.try(args...); err == nil || !strings.Contains(out, word) {
		p.t.Errorf("%s %s: %v, want %q in\n%s", filepath.Base(p.path), strings.Join(args, " "), err, word, out)
	}
}

func (p *tool) file(name string) string { return filepath.Join(p.home, name) }

func (p *tool) write(name string, content []byte) string {
	p.t.Helper()
	must(p.t, os.MkdirAll(filepath.Dir(p.file(name)), 0o700))
	must(p.t, os.WriteFile(p.file(name), content, 0o600))
	return p.file(name)
}

func (p *tool) read(name string) []byte {
	p.t.Helper()
	b, err := os.ReadFile(p.file(name))
	must(p.t, err)
	return b
}

// A world is a registry with an image in it.
type world struct {
	testing.TB

	host, ref string
	image     v1.Image
}

// newWorld starts a registry that lists referrers itself, or not: then they lie
// under the fallback tag.
func newWorld(t testing.TB, referrers bool) *world {
	t.Helper()
	server := httptest.NewServer(cregistry.New(cregistry.Logger(log.New(io.Discard, "", 0)), cregistry.WithReferrersSupport(referrers)))
	t.Cleanup(server.Close)
	w := &world{TB: t, host: strings.TrimPrefix(server.URL, "http://")}
	img, err := random.Image(2000, 2)
	must(t, err)
	config, err := img.ConfigFile()
	must(t, err)
	config.OS, config.Architecture = "linux", registry.Native().Architecture
	img, err = mutate.ConfigFile(mutate.MediaType(img, types.OCIManifestSchema1), config)
	must(t, err)
	w.image = mutate.ConfigMediaType(img, types.OCIConfigJSON)
	w.push(w.host+"/app:v1", w.image)
	digest, err := w.image.Digest()
	must(t, err)
	w.ref = w.host + "/app@" + digest.String()
	return w
}

func (w *world) push(to string, img v1.Image) {
	w.Helper()
	ref, err := name.ParseReference(to, name.Insecure)
	must(w, err)
	must(w, remote.Write(ref, img, remote.WithContext(w.Context())))
}

func (w *world) config() registry.Config {
	return registry.Config{InsecureHTTPHosts: []string{w.host}}
}

func (w *world) sign(key secret.Bytes, o ship.SignOptions) {
	w.Helper()
	o.Registry = w.config()
	_, err := ship.Sign(w.Context(), w.ref, key, o)
	must(w, err)
}

// judge holds the image against one requirement.
func (w *world) judge(requirement string, files map[string][]byte) (trust.Verdict, error) {
	w.Helper()
	policy, err := trust.ParsePolicy([]byte(`{"default":[` + requirement + `],"transports":{}}`))
	must(w, err)
	ref, err := registry.ParseReference(w.ref)
	must(w, err)
	client, err := registry.NewClient(w.config())
	must(w, err)
	repo, err := client.Repository(ref)
	must(w, err)
	return policy.Evaluate(w.Context(), trust.Subject{Reference: ref, Root: ref.Digest, Manifest: ref.Digest},
		trust.Evidence{Signatures: repo, Keys: func(_ context.Context, path string) ([]byte, error) { return files[path], nil }})
}

// everywhere runs a test with both kinds of registries.
func everywhere(t *testing.T, test func(t *testing.T, w *world)) {
	for name, referrers := range map[string]bool{"a registry with referrers": true, "a registry without": false} {
		t.Run(name, func(t *testing.T) { test(t, newWorld(t, referrers)) })
	}
}
