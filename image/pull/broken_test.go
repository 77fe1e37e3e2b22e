package pull_test

import (
	"crypto/rand"
	"fmt"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/image/internal/imagetest"
	"github.com/vouchsafe-cc/vouchsafe/image/pull"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
)

// flaky puts an image with one layer behind connections that break.
func (w *world) flaky(ref string, f *imagetest.Flaky) (body string) {
	w.t.Helper()
	noise := make([]byte, 256<<10) // does not compress: the breaks lie inside
	_, _ = rand.Read(noise)
	layer := imagetest.GzipLayer(w.t, imagetest.File("noise", string(noise)))
	m := imagetest.Push(w.t, w.Server, ref, nil, layer)
	w.sign(ref)
	image, err := m.Image()
	imagetest.Must(w.t, err)
	f.Blob = layer.Blob
	r, err := registry.ParseReference(ref)
	imagetest.Must(w.t, err)
	w.Replace("/v2/"+r.Path+"/blobs/"+image.Layers[0].Digest.String(), f.ServeHTTP)
	return string(noise)
}

// A layer that breaks in the middle of the pipeline goes on where it stopped:
// no byte is fetched, hashed or unpacked twice.
func TestBrokenLayerResumes(t *testing.T) {
	w := newWorld(t)
	ref := w.ref("flaky:v1")
	f := &imagetest.Flaky{Breaks: []int{70_000, 200_000}}
	body := w.flaky(ref, f)
	img := w.pull(ref)
	want := []string{"", "bytes=70000-", "bytes=200000-"}
	if seen := f.Ranges(); fmt.Sprint(seen) != fmt.Sprint(want) {
		t.Errorf("ranges %q, wanted %q", seen, want)
	}
	if read(t, w.mount(img), "noise") != body {
		t.Error("the file is not as it was pushed")
	}
}

// A registry without ranges cannot mend it. Nothing stays behind.
func TestBrokenLayerWithoutRanges(t *testing.T) {
	w := newWorld(t)
	ref := w.ref("flaky:v1")
	w.flaky(ref, &imagetest.Flaky{Breaks: []int{70_000}, NoRange: true})
	w.layerError(w.refused(ref, fault.ImageUnavailable), 0, pull.WhatFetch)
}
