package pull_test

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/image/internal/imagetest"
	"github.com/vouchsafe-cc/vouchsafe/image/pull"
)

// told collects the events of pulls.
type told struct {
	mu     sync.Mutex
	events []pull.Event
}

func (e *told) add(ev pull.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.events = append(e.events, ev)
}

// phases lists what was told about a layer, or with -1 about the image, each
// phase once in a row.
func (e *told) phases(layer int) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []string
	for _, ev := range e.events {
		if ev.Layer == layer {
			all = append(all, string(ev.Phase))
		}
	}
	return strings.Join(slices.Compact(all), " ")
}

func (w *world) listening() *told {
	w.t.Helper()
	heard := &told{}
	config := w.config()
	config.Progress = heard.add
	var err error
	w.puller, err = pull.New(config)
	imagetest.Must(w.t, err)
	return heard
}

// Every layer tells where it is, and the bytes add up.
func TestProgress(t *testing.T) {
	w := newWorld(t)
	raw := imagetest.Tar(t, imagetest.File("big", strings.Repeat("0123456789abcdef", 300<<10)))
	big := imagetest.Layer{MediaType: ocispec.MediaTypeImageLayer, Blob: raw, DiffID: digest.FromBytes(raw)}
	ref := w.ship("told:v1", big, imagetest.GzipLayer(t, imagetest.File("small", "x")))

	heard := w.listening()
	img := w.pull(ref)
	if seen := heard.phases(-1); seen != "resolving judging accepted pulled" {
		t.Errorf("of the image: %s", seen)
	}
	for layer := range 2 {
		if seen := heard.phases(layer); seen != "key fetching committed" {
			t.Errorf("of layer %d: %s", layer, seen)
		}
	}
	var steps int
	last := map[int]pull.Event{}
	for _, e := range heard.events {
		if before := last[e.Layer]; e.Bytes < before.Bytes || e.Unpacked < before.Unpacked || e.Reference != ref {
			t.Errorf("%+v after %+v", e, before)
		}
		if e.Layer == 0 && e.Phase == pull.PhaseFetching {
			steps++
		}
		last[e.Layer] = e
	}
	if size := int64(len(raw)); steps < 4 || last[0].Bytes != size || last[0].Total != size || last[0].Unpacked != size {
		t.Errorf("%d steps of the large layer, then %+v", steps, last[0])
	}
	sum := last[0].Total + last[1].Total
	if end := last[-1]; end.Bytes != sum || end.Total != sum || end.Layers != 2 || end.Digest.String() != img.Digest {
		t.Errorf("the layers have %d bytes: %+v", sum, end)
	}

	heard = w.listening()
	w.pull(ref)
	if seen := heard.phases(0); seen != "key cached" {
		t.Errorf("of a layer that is there: %s", seen)
	}
	if end := heard.events[len(heard.events)-1]; end.Phase != pull.PhasePulled || end.Bytes != 0 {
		t.Errorf("nothing was fetched: %+v", end)
	}
}

// Refusals are told with their reason, those of a layer first.
func TestProgressOfFailures(t *testing.T) {
	w := newWorld(t)
	heard := w.listening()
	w.refused("::", fault.InvalidRequest)
	if len(heard.events) != 1 || heard.events[0].Phase != pull.PhaseFailed || heard.events[0].Err == nil {
		t.Errorf("of a name that is none: %+v", heard.events)
	}
	ref := w.ship("gone:v1", imagetest.GzipLayer(t, imagetest.File("a", "b")))
	w.unwrapErr = errors.New("no")
	heard = w.listening()
	w.refused(ref, fault.ImageKey)
	if image, layer := heard.phases(-1), heard.phases(0); image != "resolving judging accepted failed" || layer != "key failed" {
		t.Errorf("image: %s; layer: %s", image, layer)
	}
}
