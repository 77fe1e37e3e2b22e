package audit

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// ErrHandover says that a hand-over is malformed, not signed by both keys, or
// does not join on to the key that is trusted.
var ErrHandover = errors.New("audit: invalid hand-over of the signing key")

// Limits of what an auditor follows.
const (
	maxHandover  = 4 << 10 // bytes
	maxHandovers = 1000
)

const handoverTitle = "vouchsafe audit key hand-over v1"

// handover says that one key speaks for a log up to a size, and another for
// all that is larger. It is a signed note with the signatures of both: the old
// key names its heir, and the new one vouches for what the old one signed.
type handover struct {
	origin   string
	size     int64
	old, new string // verifier keys
}

func (h handover) text() string {
	return fmt.Sprintf("%s\n%s\n%d\n%s\n%s\n", handoverTitle, h.origin, h.size, h.old, h.new)
}

func parseHandover(msg string) (handover, error) {
	bad := func(format string, args ...any) (handover, error) {
		return handover{}, fmt.Errorf("%w: %w", ErrHandover, fmt.Errorf(format, args...))
	}
	if len(msg) > maxHandover {
		return bad("%d bytes", len(msg))
	}
	lines := strings.SplitN(msg, "\n", 6)
	if len(lines) != 6 || lines[0] != handoverTitle {
		return bad("it is not one")
	}
	h := handover{origin: lines[1], old: lines[3], new: lines[4]}
	var err error
	if h.size, err = strconv.ParseInt(lines[2], 10, 64); err != nil || h.size < 0 || strconv.FormatInt(h.size, 10) != lines[2] {
		return bad("size %q", lines[2])
	}
	var both []note.Verifier
	for _, vkey := range []string{h.old, h.new} {
		v, err := note.NewVerifier(vkey)
		if err != nil {
			return bad("key: %w", err)
		}
		if v.Name() != h.origin {
			return bad("a key of %q for the log %q", v.Name(), h.origin)
		}
		both = append(both, v)
	}
	if both[0].KeyHash() == both[1].KeyHash() {
		return bad("both keys are the same")
	}
	n, err := note.Open([]byte(msg), note.VerifierList(both...))
	if err != nil {
		return bad("%w", err)
	}
	if n.Text != h.text() || len(n.Sigs) != 2 {
		return bad("it wants the signatures of both keys, under nothing else")
	}
	return h, nil
}

// Trust is whom an auditor believes about a log: one key that reached him by a
// way of its own, and those that it was handed over from and to.
type Trust struct {
	chain []trusted // in the order of the hand-overs
}

// trusted is one key, which speaks for the sizes after < size <= until.
type trusted struct {
	vkey         string
	verifier     note.Verifier
	after, until int64
}

// NewTrust trusts one key, in the verifier form of signed notes.
func NewTrust(vkey string) (Trust, error) {
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return Trust{}, fmt.Errorf("%w: public key: %w", ErrCheckpoint, err)
	}
	return Trust{chain: []trusted{{vkey: vkey, verifier: v, after: -1, until: math.MaxInt64}}}, nil
}

// Follow returns the trust that follows from these hand-overs, the oldest
// first and none left out. Its errors wrap [ErrHandover].
func (t Trust) Follow(handovers []string) (Trust, error) {
	if len(t.chain) == 0 || len(handovers) == 0 {
		return t, nil
	}
	if len(handovers) > maxHandovers {
		return t, fmt.Errorf("%w: %d of them", ErrHandover, len(handovers))
	}
	var out Trust
	for i, msg := range handovers {
		h, err := parseHandover(msg)
		if err != nil {
			return t, err
		}
		if i == 0 {
			out, _ = NewTrust(h.old) // parsed above
		}
		last := &out.chain[len(out.chain)-1]
		if last.vkey != h.old || h.size <= last.after {
			return t, fmt.Errorf("%w: number %d does not continue the one before", ErrHandover, i)
		}
		last.until = h.size
		next, _ := NewTrust(h.new)
		next.chain[0].after = h.size
		out.chain = append(out.chain, next.chain...)
	}
	for _, had := range t.chain {
		if !out.knows(had.vkey) {
			return t, fmt.Errorf("%w: they neither lead from nor to the key that you trust", ErrHandover)
		}
	}
	return out, nil
}

func (t Trust) knows(vkey string) bool {
	for _, k := range t.chain {
		if k.vkey == vkey {
			return true
		}
	}
	return false
}

// Current returns the verifier key in force.
func (t Trust) Current() string {
	if len(t.chain) == 0 {
		return ""
	}
	return t.chain[len(t.chain)-1].vkey
}

// Origin returns the name of the log.
func (t Trust) Origin() string {
	if len(t.chain) == 0 {
		return ""
	}
	return t.chain[0].verifier.Name()
}

func (t Trust) verifiers() note.Verifiers {
	all := make([]note.Verifier, len(t.chain))
	for i, k := range t.chain {
		all[i] = k.verifier
	}
	return note.VerifierList(all...)
}

// speaks reports whether the key of this hash may sign for a log of this size.
func (t Trust) speaks(hash uint32, size int64) bool {
	for _, k := range t.chain {
		if k.verifier.KeyHash() == hash {
			return k.after < size && size <= k.until
		}
	}
	return false
}
