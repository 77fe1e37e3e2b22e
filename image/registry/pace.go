package registry

import "time"

const (
	// maxLanes bounds the connections for one blob.
	maxLanes = 4
	// worthSpreading is how much of a blob must be left, in bytes, for more than one
	// connection.
	worthSpreading = 16 << 20

	// A stretch that a pace judges by is at least this long.
	stretchBytes = 2 << 20
	stretchTime  = 250 * time.Millisecond

	// waitingShare of a stretch must have passed in waiting for bytes: what takes
	// longer than the network to do with them is not helped by more of them.
	waitingShare = 0.6
	// gainOfMore is how many times as fast twice the connections must be to stay.
	gainOfMore = 1.15
)

// A pace decides over how many connections a blob is fetched. It begins with
// one, which is right where the registry is near: then the work on the bytes is
// what takes the time. While most of the time passes in waiting for bytes it
// tries twice as many, keeps them if that is faster, and goes back for good if
// it is not.
type pace struct {
	most    int  // connections
	lanes   int  // connections now
	settled bool // more did not help

	before float64 // bytes per second over half the connections, while twice as many are tried; 0: nothing is tried
	warmup int64   // bytes before the stretch begins: connections are being made
	start  time.Time
	bytes  int64
	waited time.Duration
}

func newPace(most int) pace { return pace{most: most, lanes: 1} }

// observe takes in a read of n bytes, and returns how many connections there
// should be from here on.
func (p *pace) observe(n int, from, to time.Time) int {
	if p.warmup > 0 {
		p.warmup -= int64(n)
		p.start = to
		return p.lanes
	}
	if p.start.IsZero() {
		p.start = from
	}
	p.bytes += int64(n)
	p.waited += to.Sub(from)
	took := to.Sub(p.start)
	if p.bytes < stretchBytes || took < stretchTime {
		return p.lanes
	}
	rate := float64(p.bytes) / took.Seconds()
	switch {
	case p.before > 0 && rate < p.before*gainOfMore:
		p.settled = true
		p.change(p.lanes/2, 0)
	case !p.settled && p.lanes*2 <= p.most && p.waited.Seconds() > took.Seconds()*waitingShare:
		p.change(p.lanes*2, rate)
	default:
		p.change(p.lanes, 0)
	}
	return p.lanes
}

// change begins a new stretch over the given number of connections, which is
// held against the rate before.
func (p *pace) change(lanes int, before float64) {
	if lanes != p.lanes {
		p.warmup = int64(lanes) * pieceSize
	}
	p.lanes, p.before, p.bytes, p.waited, p.start = lanes, before, 0, 0, time.Time{}
}

// refuse takes back that there should be more connections: there is no room for
// them now, or there are not enough bytes left.
func (p *pace) refuse() {
	p.change(max(1, p.lanes/2), 0)
	p.warmup = 0
}

// restart begins again with one connection, after a break.
func (p *pace) restart() { p.change(1, 0) }
