package pull_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/image/internal/imagetest"
	"github.com/vouchsafe-cc/vouchsafe/image/pull"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/image/trust"
)

// Wherever the bytes come from, the policy is that of the name the user asked
// for: neither a mirror's name nor a rewritten one opens or closes anything.
func TestPolicyIsThatOfTheNameAskedFor(t *testing.T) {
	w := newWorld(t)
	imagetest.Push(t, w.Server, w.Host+"/mirror/app:v1", nil, layers(t)...)
	conf := "[[registry]]\nprefix='asked.test'\nlocation='" + w.Host + "'\ninsecure=true\n[[registry.mirror]]\nlocation='" + w.Host + "/mirror'\ninsecure=true\n" +
		"[[registry]]\nprefix='blocked.test'\nblocked=true"
	rules, err := registry.ParseRegistries([]byte(conf))
	imagetest.Must(t, err)
	policy := func(name string) string {
		return `{"default":[{"type":"reject"}],"transports":{"docker":{"` + name + `":[{"type":"insecureAcceptAnything"}]}}}`
	}
	w.puller, err = pull.New(pull.Config{
		Store: w.store, Registry: registry.Config{Registries: rules, Clock: w.Clock},
		Policy: func(context.Context) (*trust.Policy, error) { return trust.ParsePolicy([]byte(w.policy)) },
	})
	imagetest.Must(t, err)

	w.policy = policy(w.Host)
	w.refused("asked.test/app:v1", fault.ImageUnsigned)
	w.policy = policy("asked.test")
	img := w.pull("asked.test/app:v1")
	if img.Reference != "asked.test/app:v1" || img.Verdict.Scope != `transports.docker["asked.test"]` {
		t.Errorf("judged as %s by %s", img.Reference, img.Verdict.Scope)
	}
	w.policy = policy("blocked.test")
	w.Forget()
	w.refused("blocked.test/app:v1", fault.ImageBlocked)
	if n := w.Requests(); n != 0 {
		t.Errorf("%d requests for a blocked name", n)
	}
}

// A mirror dies in the middle of a layer, for good. The origin goes on.
func TestMirrorDiesInMidLayer(t *testing.T) {
	w := newWorld(t)
	f := &imagetest.Flaky{Breaks: []int{70_000, 70_000, 70_000, 70_000, 70_000, 70_000}}
	body := w.flaky(w.Host+"/signed/app:v1", f)
	origin := imagetest.Serve(t)
	imagetest.Push(t, origin, origin.Host+"/signed/app:v1", nil, imagetest.GzipLayer(t, imagetest.File("noise", body)))
	rules, err := registry.ParseRegistries([]byte("[[registry]]\nlocation='" + origin.Host + "'\n[[registry.mirror]]\nlocation='" + w.Host + "'"))
	imagetest.Must(t, err)
	w.policy = `{"default":[{"type":"insecureAcceptAnything"}],"transports":{}}`
	w.puller, err = pull.New(pull.Config{
		Store: w.store, Registry: registry.Config{Registries: rules, Clock: w.Clock, InsecureHTTPHosts: []string{w.Host, origin.Host}},
		Policy: func(context.Context) (*trust.Policy, error) { return trust.ParsePolicy([]byte(w.policy)) },
	})
	imagetest.Must(t, err)
	origin.Forget()
	if read(t, w.mount(w.pull(origin.Host+"/signed/app:v1")), "noise") != body {
		t.Error("the file is not as it was pushed")
	}
	if n := origin.Requests("/blobs/"); n != 1 {
		t.Errorf("the origin was asked for %d blobs", n)
	}
}

// Mirrors that send wrong bytes, or too many, or too few, cost time, not the
// pull: the layer is fetched anew at the next place, and so is the config.
func TestMirrorsLie(t *testing.T) {
	for _, about := range []string{"layer", "config"} {
		t.Run(about, func(t *testing.T) {
			w := newWorld(t)
			layer := imagetest.GzipLayer(t, imagetest.File("a", "right"), imagetest.File("b", strings.Repeat("0123456789", 1000)))
			m := imagetest.Push(t, w.Server, w.Host+"/signed/app:v1", nil, layer)
			doc, err := m.Image()
			imagetest.Must(t, err)
			blob, right := digest.FromBytes(layer.Blob), layer.Blob
			if about == "config" {
				blob, right = doc.Config.Digest, imagetest.Config(t, []imagetest.Layer{layer})
			}
			wrong := append([]byte(nil), right...)
			wrong[len(wrong)/2] ^= 1
			var liars []*imagetest.Server
			for _, body := range [][]byte{wrong, right[:len(right)-1], append(right[:len(right):len(right)], 1), imagetest.Gzip(t, []byte("no archive")), nil} {
				liar := imagetest.Serve(t)
				imagetest.Push(t, liar, liar.Host+"/signed/app:v1", nil, layer)
				liar.Replace("/v2/signed/app/blobs/"+blob.String(), chunked(body))
				liars = append(liars, liar)
			}
			w.mirrored(liars...)
			if read(t, w.mount(w.pull(w.Host+"/signed/app:v1")), "a") != "right" {
				t.Error("the file is not as it was pushed")
			}
			for i, liar := range liars {
				if n := liar.Requests("GET", blob.String()); n != 1 {
					t.Errorf("mirror %d was asked %d times", i, n)
				}
			}
		})
	}
}

// mirrored lets the world's server have mirrors, and everything be accepted.
func (w *world) mirrored(mirrors ...*imagetest.Server) {
	w.t.Helper()
	conf, hosts := "[[registry]]\nlocation='"+w.Host+"'\n", []string{w.Host}
	for _, m := range mirrors {
		hosts = append(hosts, m.Host)
		conf += "[[registry.mirror]]\nlocation='" + m.Host + "'\n"
	}
	rules, err := registry.ParseRegistries([]byte(conf))
	imagetest.Must(w.t, err)
	w.policy = `{"default":[{"type":"insecureAcceptAnything"}],"transports":{}}`
	c := w.config()
	c.Registry = registry.Config{Registries: rules, Clock: w.Clock, InsecureHTTPHosts: hosts}
	w.puller, err = pull.New(c)
	imagetest.Must(w.t, err)
}

// When all lie, what the last one sent is what the refusal speaks of, and
// nothing is left.
func TestMirrorsAllLie(t *testing.T) {
	w := newWorld(t)
	layer := imagetest.GzipLayer(t, imagetest.File("a", "right"))
	imagetest.Push(t, w.Server, w.Host+"/signed/app:v1", nil, layer)
	mirror := imagetest.Serve(t)
	imagetest.Push(t, mirror, mirror.Host+"/signed/app:v1", nil, layer)
	wrong := append([]byte(nil), layer.Blob...)
	wrong[len(wrong)/2] ^= 1
	path := "/v2/signed/app/blobs/" + digest.FromBytes(layer.Blob).String()
	w.Replace(path, imagetest.Body(wrong))
	mirror.Replace(path, imagetest.Body(wrong))
	w.mirrored(mirror)
	w.Forget()
	if le, ok := errors.AsType[*pull.LayerError](w.refused(w.Host+"/signed/app:v1", fault.ImageCorrupt)); !ok || le.What != pull.WhatDigest {
		t.Errorf("%v", le)
	}
	if a, b := mirror.Requests("GET", path), w.Requests("GET", path); a != 1 || b != 1 {
		t.Errorf("%d and %d requests for the layer", a, b)
	}
}

// chunked serves bytes without saying how many they are.
func chunked(body []byte) http.HandlerFunc {
	return func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "application/octet-stream")
		_ = http.NewResponseController(rw).Flush()
		_, _ = rw.Write(body)
	}
}
