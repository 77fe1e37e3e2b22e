package ship

import (
	"io"

	"github.com/opencontainers/go-digest"
)

// A Phase is how far a layer has come.
type Phase string

// The phases of a layer, in order. The last two are there if what was written
// is checked.
const (
	PhaseEncrypting Phase = "encrypting" // repeated as bytes pass
	PhaseEncrypted  Phase = "encrypted"  // and stored
	PhaseChecking   Phase = "checking"   // repeated as bytes come back
	PhaseChecked    Phase = "checked"
)

// An Event tells of one layer.
type Event struct {
	Phase  Phase
	Layer  int           // among the different layers, from 0
	Layers int           // how many different ones there are
	Digest digest.Digest // of the plain blob while it is encrypted, of the encrypted one from then on
	Bytes  int64         // that passed so far
	Total  int64
	All    int64 // bytes of all different layers
}

// eventStep is how many bytes pass between two events.
const eventStep = 1 << 20

type meter struct {
	r    io.Reader
	at   Event
	told int64
	tell func(Event)
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.at.Bytes += int64(n)
	if m.at.Bytes-m.told >= eventStep {
		m.told = m.at.Bytes
		m.tell(m.at)
	}
	return n, err
}
