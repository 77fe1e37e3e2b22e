package pull

import (
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/vouchsafe-cc/vouchsafe/image/registry"
)

// A Phase is how far a pull, or one layer of it, has come.
type Phase string

// The phases of the image as a whole, whose events have Layer -1, in order. One
// of the last two ends every pull.
const (
	PhaseResolving Phase = "resolving" // the manifest is looked for
	PhaseJudging   Phase = "judging"   // signatures are fetched and held against the policy
	PhaseAccepted  Phase = "accepted"  // by the policy; Layers and Total are known from here on
	PhasePulled    Phase = "pulled"
	PhaseFailed    Phase = "failed" // Err says why; a layer may fail too, before the image does
)

// The phases of a layer, in order. PhaseKey is there for encrypted layers alone,
// PhaseCached replaces the three that follow it.
const (
	PhaseKey       Phase = "key"       // its key is asked for
	PhaseCached    Phase = "cached"    // the store has it: the layer is done
	PhaseFetching  Phase = "fetching"  // repeated as bytes come in
	PhaseCommitted Phase = "committed" // verified, unpacked and visible: the layer is done
)

// An Event tells of a pull that goes on.
type Event struct {
	Pull      int64  // numbers the pulls of a Puller, from 1: one reference may be pulled twice at a time
	Reference string // normalised; as it was given while that is not parsed
	Phase     Phase
	Layer     int           // in the manifest, from 0; -1: the image as a whole
	Layers    int           // of the image; 0 while unknown
	Digest    digest.Digest // of the layer's blob, or of the manifest; empty while unknown
	Bytes     int64         // received of the layer's blob, so far; with PhasePulled of all layers
	Total     int64         // size of the layer's blob; with Layer -1 of all layers, also of those that are cached
	Unpacked  int64         // bytes of the layer's archive, so far
	Err       error         // with PhaseFailed: what Pull returns, or what the layer failed with
}

// eventStep is how many bytes come in between two events of PhaseFetching.
const eventStep = 1 << 20

// A progress tells about one pull. A nil tell is silent.
type progress struct {
	tell   func(Event)
	pull   int64
	ref    string
	layers int
}

func (p *progress) image(e Event) {
	e.Layer = -1
	p.send(e)
}

func (p *progress) layer(lp layerPlan, e Event) {
	e.Layer, e.Digest, e.Total = lp.index, lp.desc.Digest, lp.desc.Size
	p.send(e)
}

func (p *progress) send(e Event) {
	if p.tell == nil {
		return
	}
	e.Pull, e.Reference, e.Layers = p.pull, p.ref, p.layers
	p.tell(e)
}

// accepted tells that the image will be had, and of what size it is.
func (p *progress) accepted(r *registry.Resolved) int64 {
	var total int64
	for _, l := range r.Image.Layers {
		total += l.Size
	}
	p.layers = len(r.Image.Layers)
	p.image(Event{Phase: PhaseAccepted, Digest: r.Manifest.Digest, Total: total})
	return total
}

// meter counts a layer's bytes on their way in and tells of them now and then.
type meter struct {
	io.ReadCloser
	told     int64
	n        int64
	unpacked func() int64
	tell     func(received, unpacked int64)
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.ReadCloser.Read(p)
	m.n += int64(n)
	if m.n-m.told >= eventStep {
		m.told = m.n
		m.tell(m.n, m.unpacked())
	}
	return n, err
}
