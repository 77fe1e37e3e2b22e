package progress

import (
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// An Update tells how far one layer has come.
type Update struct {
	Verb  string // what is done, for people: "encrypt"
	Past  string // the same, done: "encrypted"
	Item  int    // the layer, from 0
	Items int    // how many there are
	Name  string // of the layer: its digest
	Bytes int64  // so far
	Total int64
	All   int64 // bytes of all layers; 0 while unknown
	Done  bool
}

const (
	redraw      = 100 * time.Millisecond // between two drawings
	plainWidth  = 80
	smallest    = 30 // columns; below, nothing fits
	activeLines = 8
)

// Options of a Display. The zero value finds out by itself.
type Options struct {
	Quiet bool             // nothing is shown
	Now   func() time.Time // nil: the system's clock
	// Width returns the columns of the terminal that is written to, 0 if it is
	// none; nil asks the terminal.
	Width func() int
}

// A Display shows progress. It is safe for concurrent use.
type Display struct {
	w     io.Writer
	now   func() time.Time
	width func() int
	quiet bool

	mu    sync.Mutex
	verb  string
	items int
	all   int64
	begun time.Time
	done  map[int]int64 // bytes of finished layers
	busy  map[int]*item
	lines int // drawn and to be replaced
	drawn time.Time
}

type item struct {
	Update
	begun time.Time
}

// New returns a display on w.
func New(w io.Writer, o Options) *Display {
	d := &Display{w: w, now: o.Now, width: o.Width, quiet: o.Quiet, done: map[int]int64{}, busy: map[int]*item{}}
	if d.now == nil {
		d.now = time.Now
	}
	if d.width == nil {
		d.width = func() int { return terminalWidth(w) }
	}
	return d
}

// terminalWidth returns the columns of a terminal, 0 of anything else.
func terminalWidth(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("TERM") == "dumb" {
		return 0
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	if size.Col == 0 { // a terminal that does not know
		return plainWidth
	}
	return int(size.Col)
}

// Update shows what is told. Another verb than before starts anew: what was
// shown goes, and one line says what was done.
func (d *Display) Update(u Update) {
	if d.quiet {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	if u.Verb != d.verb {
		d.finish(now)
		d.verb, d.begun, d.all = u.Verb, now, 0
		clear(d.done)
		clear(d.busy)
	}
	d.items, d.all = u.Items, max(d.all, u.All)
	b := d.busy[u.Item]
	if b == nil {
		b = &item{begun: now}
		d.busy[u.Item] = b
	}
	b.Update = u
	if u.Done {
		d.done[u.Item] = u.Bytes
		delete(d.busy, u.Item)
	}
	width := d.width()
	switch {
	case width == 0 && u.Done:
		d.write(fmt.Sprintf("layer %d/%d %s: %s (%s)\n", len(d.done), u.Items, u.Past, u.Name, Size(u.Bytes)))
	case width > 0 && (u.Done || now.Sub(d.drawn) >= redraw):
		d.drawn = now
		d.draw(width, now)
	}
}

// Close takes away what is drawn and says what was done. The display may be
// used again.
func (d *Display) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.finish(d.now())
	d.verb = ""
}

// finish ends the block of lines on a terminal.
func (d *Display) finish(now time.Time) {
	if d.lines == 0 {
		return
	}
	d.clear()
	if sum := d.sum(); len(d.done) == d.items && d.items > 0 {
		d.write(fmt.Sprintf("%s: %d layers, %s in %s (%s)\n", d.verb, d.items, Size(sum), span(now.Sub(d.begun)), rate(sum, now.Sub(d.begun))))
	}
}

func (d *Display) sum() (n int64) {
	for _, b := range d.done {
		n += b
	}
	return n
}

// clear removes the drawn lines and leaves the cursor where they began.
func (d *Display) clear() {
	if d.lines > 0 {
		d.write(fmt.Sprintf("\x1b[%dA\x1b[J", d.lines))
		d.lines = 0
	}
}

func (d *Display) draw(width int, now time.Time) {
	width = max(width, smallest) - 1 // the last column makes some terminals wrap
	d.clear()
	var text []byte
	keys := make([]int, 0, len(d.busy))
	for k := range d.busy {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	bytes, sizes := d.sum(), d.sum()
	for i, k := range keys {
		b := d.busy[k]
		bytes, sizes = bytes+b.Bytes, sizes+b.Total
		if i < activeLines {
			text = append(text, fit(line(b.Verb, short(b.Name), b.Bytes, b.Total, now.Sub(b.begun)), width)...)
			d.lines++
		}
	}
	name := fmt.Sprintf("%d of %d layers", len(d.done), d.items)
	total := d.all // bytes that are known are no total while layers are still to come
	if total == 0 && len(d.done)+len(d.busy) == d.items {
		total = sizes
	}
	text = append(text, fit(line("total", name, bytes, total, now.Sub(d.begun)), width)...)
	d.lines++
	d.write(string(text))
}

func (d *Display) write(s string) { _, _ = io.WriteString(d.w, s) }
