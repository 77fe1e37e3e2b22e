package inflate

import "math/bits"

const (
	maxCode   = 15  // bits of the longest code (RFC 1951 3.2.7)
	maxLit    = 286 // literals, end of block and lengths that a block may define
	maxDist   = 30
	endSymbol = 256

	litRoot  = 11
	distRoot = 9
	lenRoot  = 7 // codes of code lengths have at most seven bits
)

// An entry of a table:
//
//	bits  0-7   bits to consume: the code's and its extra bits
//	bits  8-12  bits of the code alone; of a link, those of the second table's index
//	bits 13-15  kind
//	bits 16-31  literal, or what the extra bits are added to; of a link, the second table's place
//
// An entry of kind special is a link, the end of the block, a symbol that must
// not occur or, being zero bits long, no code at all.
type entry uint32

const (
	literal entry = 1 << 13
	link    entry = 1 << 14
	special entry = 1 << 15

	endOfBlock = special | 1<<16
)

func (e entry) width() uint    { return uint(e) & 0xff }
func (e entry) codeBits() uint { return uint(e) >> 8 & 0x1f }
func (e entry) base() int      { return int(e >> 16) }

// value returns base and extra bits; b begins with the code.
func (e entry) value(b uint64) int {
	return e.base() + int((b&(1<<(e.width()&63)-1))>>(e.codeBits()&63))
}

// second returns the place of the entry that the link e leads to; b begins with
// the code.
func (e entry) second(b uint64, root int) int {
	return e.base() + int(b>>root&(1<<(e.codeBits()&63)-1))
}

// Tables end after their root and all second tables. A second table of 2^k
// entries belongs to at least k+1 codes, as the code is complete. Of 288
// literals and lengths with k <= 4 that makes less than 57*16 more than 2048
// entries, of 32 distances with k <= 6 less than 5*64 more than 512. The sizes
// are powers of two, so that a mask keeps every index inside.
type (
	litTable  [4096]entry
	distTable [1024]entry
	lenTable  [1 << lenRoot]entry
)

// litMeaning, distMeaning and lenMeaning hold per symbol the entry without the
// bits of its code, extra bits in bits 0-7 (RFC 1951 3.2.5).
var (
	litMeaning  = literals()
	distMeaning = distances()
	lenMeaning  = lengths()

	fixedLit, fixedDist = fixedTables()
)

func literals() (m [288]entry) {
	for s := range endSymbol {
		m[s] = literal | entry(s)<<16
	}
	m[endSymbol] = endOfBlock
	base, extra := 3, 0
	for s := 257; s < 285; s++ {
		if s >= 265 && (s-265)%4 == 0 {
			extra++
		}
		m[s] = entry(base<<16 | extra)
		base += 1 << extra
	}
	m[285] = 258 << 16
	m[286], m[287] = special, special // have codes in fixed blocks, and no meaning
	return m
}

func distances() (m [32]entry) {
	base, extra := 1, 0
	for s := range maxDist {
		if s >= 4 && s%2 == 0 {
			extra++
		}
		m[s] = entry(base<<16 | extra)
		base += 1 << extra
	}
	m[30], m[31] = special, special
	return m
}

func lengths() (m [19]entry) {
	for s := range m {
		m[s] = entry(s) << 16
	}
	return m
}

func fixedTables() (*litTable, *distTable) {
	var widths [288]uint8
	for s := range widths {
		switch {
		case s < 144, s >= 280:
			widths[s] = 8
		case s < 256:
			widths[s] = 9
		default:
			widths[s] = 7
		}
	}
	var lit litTable
	fill(lit[:], litRoot, widths[:], litMeaning[:])
	for s := range 32 {
		widths[s] = 5
	}
	var dist distTable
	fill(dist[:], distRoot, widths[:32], distMeaning[:])
	return &lit, &dist
}

// fill makes the table of the canonical code with the given widths in bits, 0
// for symbols without a code. It reports whether the code is one: complete, or
// empty, or a single code of one bit, as compress/flate and zlib have it.
func fill(table []entry, root int, widths []uint8, meaning []entry) bool {
	var count [maxCode + 1]int
	for _, w := range widths {
		count[w]++
	}
	var next [maxCode + 1]int // the next code of each width
	code, used := 0, len(widths)-count[0]
	for w := 1; w <= maxCode; w++ {
		code <<= 1
		next[w] = code
		code += count[w]
	}
	for i := range table[:1<<root] {
		table[i] = special
	}
	if code != 1<<maxCode {
		if used == 0 {
			return true
		}
		if used != 1 || count[1] != 1 {
			return false
		}
	}
	free := seconds(table, root, count, next)
	for symbol, w := range widths {
		if w == 0 {
			continue
		}
		place(table[:free], root, next[w], int(w), meaning[symbol])
		next[w]++
	}
	return true
}

// seconds lays out the second tables, one per prefix of root bits that longer
// codes share, and returns where they end. The codes of a canonical code grow
// with their width, so the last code of a prefix is its widest.
func seconds(table []entry, root int, count, next [maxCode + 1]int) int {
	free := 1 << root
	widest := [1 << litRoot]uint8{}
	for w := root + 1; w <= maxCode; w++ {
		if count[w] == 0 {
			continue
		}
		first, last := next[w]>>(w-root), (next[w]+count[w]-1)>>(w-root)
		for prefix := first; prefix <= last; prefix++ {
			widest[prefix] = uint8(w)
		}
	}
	for prefix, w := range widest[:1<<root] {
		if w == 0 {
			continue
		}
		index := int(w) - root
		table[reverse(prefix, root)] = special | link | entry(free<<16|index<<8|root)
		free += 1 << index
	}
	return free
}

// place writes the entry of one code wherever its bits, lowest first, lead.
func place(table []entry, root, code, width int, meaning entry) {
	from, to, step := reverse(code, width), 1<<root, 1<<width
	if width > root {
		l := table[from&(1<<root-1)]
		table = table[l.base():]
		from, to, step = from>>root, 1<<l.codeBits(), 1<<(width-root)
	}
	e := meaning + entry(width<<8|width)
	for i := from; i < to; i += step {
		table[i] = e
	}
}

func reverse(code, width int) int {
	return int(bits.Reverse16(uint16(code)) >> (16 - width))
}
