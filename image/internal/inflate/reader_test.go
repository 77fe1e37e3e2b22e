package inflate

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// stream is a DEFLATE stream and what it means.
type stream struct {
	name    string
	deflate []byte
	raw     []byte
	bad     string // the kind of error that is wanted
}

func (s stream) gzip() []byte { return member(s.deflate, s.raw) }

func member(deflate, raw []byte) []byte {
	b := append([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}, deflate...)
	b = binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(raw))
	return binary.LittleEndian.AppendUint32(b, uint32(len(raw)))
}

func stored(raw []byte, final bool) []byte {
	n := uint16(len(raw))
	first := byte(0)
	if final {
		first = 1
	}
	b := binary.LittleEndian.AppendUint16([]byte{first}, n)
	return append(binary.LittleEndian.AppendUint16(b, ^n), raw...)
}

func deflated(t testing.TB, raw []byte, level int) []byte {
	t.Helper()
	var z bytes.Buffer
	w, err := flate.NewWriter(&z, level)
	if err == nil {
		_, err = w.Write(raw)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return z.Bytes()
}

// noise is incompressible and the same every time.
func noise(n int) []byte {
	b := make([]byte, n)
	state := uint64(1)
	for i := range b {
		state = state*6364136223846793005 + 1442695040888963407
		b[i] = byte(state >> 56)
	}
	return b
}

// writer writes bits, lowest first, and codes, highest first.
type writer struct {
	b []byte
	n int
}

func (w *writer) bits(v, n int) *writer {
	for i := range n {
		if w.n%8 == 0 {
			w.b = append(w.b, 0)
		}
		w.b[w.n/8] |= byte(v>>i&1) << (w.n % 8)
		w.n++
	}
	return w
}

func (w *writer) code(v, n int) *writer { return w.bits(reverse(v, n), n) }

// fixed begins a last block with the fixed codes.
func fixed() *writer { return new(writer).bits(1, 1).bits(1, 2) }

// dynamic begins a last block with codes of its own, of the given widths. All
// widths of 0 to 15 have four bits in the code for widths.
func dynamic(lit, dist []int) *writer {
	w := new(writer).bits(1, 1).bits(2, 2).bits(len(lit)-257, 5).bits(len(dist)-1, 5).bits(19-4, 4)
	for _, symbol := range order {
		if symbol < 16 {
			w.bits(4, 3)
		} else {
			w.bits(0, 3)
		}
	}
	for _, width := range append(lit[:len(lit):len(lit)], dist...) {
		w.code(width, 4)
	}
	return w
}

// widths makes 257 or more widths: some symbols have the ones given.
func widths(n int, of map[int]int) []int {
	w := make([]int, n)
	for s, width := range of {
		w[s] = width
	}
	return w
}

// deep gives the symbols from a on widths of 1, 2, 3 ... 15, 15.
func deep(n, from int) []int {
	w := make([]int, n)
	for i := range 15 {
		w[from+i] = i + 1
	}
	w[from+15] = 15
	return w
}

// streams returns what the tests and the fuzzers begin with.
func streams(t testing.TB) []stream {
	t.Helper()
	text := []byte(strings.Repeat("a stream of words, a word of streams; ", 20))
	var s []stream
	for level := flate.HuffmanOnly; level <= flate.BestCompression; level++ {
		s = append(s, stream{name: "level", deflate: deflated(t, text, level), raw: text})
	}
	for period := 1; period <= 20; period++ { // matches that overlap themselves
		raw := bytes.Repeat(noise(period), 300/period)
		s = append(s, stream{name: "period", deflate: deflated(t, raw, 6), raw: raw})
	}
	s = append(s,
		stream{name: "empty", deflate: deflated(t, nil, 6)},
		stream{name: "stored", deflate: append(stored([]byte("one"), false), stored([]byte("two"), true)...), raw: []byte("onetwo")},
		stream{name: "empty stored blocks", deflate: append(stored(nil, false), stored(nil, true)...)},
		stream{name: "noise", deflate: deflated(t, noise(700), 6), raw: noise(700)},
		stream{name: "fixed", deflate: fixed().code(0x30+'a', 8).code(1, 7).code(0, 5).code(0, 7).b, raw: []byte("aaaa")},
		stream{name: "one distance of one bit", deflate: dynamic(widths(258, map[int]int{'a': 2, 'b': 2, 256: 2, 257: 2}), []int{1}).
			code(0, 2).code(3, 2).code(0, 1).code(2, 2).b, raw: []byte("aaaa")},
		stream{name: "no distances", deflate: dynamic(widths(257, map[int]int{'a': 1, 256: 1}), []int{0}).code(0, 1).code(1, 1).b, raw: []byte("a")},
		stream{name: "deep codes", deflate: dynamic(deep(257, 241), deep(16, 0)).code(0x7ffe, 15).code(0x7ffe, 15).code(0x7fff, 15).b, raw: []byte{255, 255}},
		stream{name: "end alone", deflate: dynamic(widths(257, map[int]int{256: 1}), []int{0}).code(0, 1).b},
	)
	return append(s, badStreams()...)
}

func badStreams() []stream {
	ends := map[int]int{'a': 2, 'b': 2, 256: 2, 257: 2}
	with := func(symbol, width int) map[int]int {
		m := map[int]int{symbol: width}
		for s, w := range ends {
			if s != symbol {
				m[s] = w
			}
		}
		return m
	}
	all := []stream{
		{name: "block of type 3", deflate: []byte{7}},
		{name: "stored length", deflate: []byte{1, 1, 0, 0xff, 0xff, 'a'}},
		{name: "symbol 286", deflate: fixed().code(0xc6, 8).b},
		{name: "symbol 287", deflate: fixed().code(0xc7, 8).b},
		{name: "distance 30", deflate: fixed().code(0x30+'a', 8).code(1, 7).code(30, 5).code(0, 7).b},
		{name: "too far at the start", deflate: fixed().code(1, 7).code(0, 5).code(0, 7).b},
		{name: "too far by one", deflate: fixed().code(0x30+'a', 8).code(1, 7).code(1, 5).code(0, 7).bits(0, 32).bits(0, 32).bits(0, 32).bits(0, 32).b},
		{name: "over-subscribed literals", deflate: dynamic(widths(258, with('c', 2)), []int{1}).b},
		{name: "over-subscribed by the longest", deflate: dynamic(widths(258, with('c', 15)), []int{1}).b},
		{name: "under-subscribed literals", deflate: dynamic(widths(258, with('a', 3)), []int{1}).b},
		{name: "one literal of two bits", deflate: dynamic(widths(257, map[int]int{256: 2}), []int{1}).b},
		{name: "over-subscribed distances", deflate: dynamic(widths(258, ends), []int{1, 1, 1}).b},
		{name: "under-subscribed distances", deflate: dynamic(widths(258, ends), []int{1, 2}).b},
		{name: "the other bit of a single distance", deflate: dynamic(widths(258, ends), []int{1}).code(0, 2).code(3, 2).code(1, 1).code(2, 2).b},
		{name: "a distance where none is", deflate: dynamic(widths(258, ends), []int{0}).code(0, 2).code(3, 2).code(0, 1).code(2, 2).b},
		{name: "no literals", deflate: dynamic(make([]int, 257), []int{1}).b},
		{name: "287 literals", deflate: dynamic(widths(287, ends), []int{1}).b},
		{name: "31 distances", deflate: dynamic(widths(258, ends), make([]int, 31)).b},
		{name: "repeat before the first", deflate: new(writer).bits(5, 3).bits(0, 5).bits(0, 5).bits(0, 4).bits(1, 3).bits(1, 3).bits(0, 6).code(0, 1).bits(0, 2).b},
		{name: "run beyond the end", deflate: new(writer).bits(5, 3).bits(0, 5).bits(0, 5).bits(0, 4).bits(0, 6).bits(1, 3).bits(0, 3).bits(0x7f, 8).bits(0x7f<<1, 8).b},
		{name: "no code for widths", deflate: new(writer).bits(5, 3).bits(0, 5).bits(0, 5).bits(0, 4).bits(0, 12).b},
	}
	for i := range all {
		all[i].bad = "corrupt"
		all[i].deflate = append(all[i].deflate, make([]byte, 32)...) // so that nothing is missing
	}
	return all
}

func TestStreams(t *testing.T) {
	for _, s := range streams(t) {
		t.Run(s.name, func(t *testing.T) {
			if seen := kind(compareRaw(t, s.deflate)); s.bad == "" && seen != "none" || s.bad != "" && seen != s.bad {
				t.Fatalf("error: %s, want %q", seen, s.bad)
			}
			if s.bad != "" {
				return
			}
			out, err := drain(open(bytes.NewReader(s.gzip())))
			if err != nil || !bytes.Equal(out, s.raw) {
				t.Fatalf("%q, want %q: %v", out, s.raw, err)
			}
		})
	}
}

// TestMutations cuts small streams at every byte, and alters every byte.
func TestMutations(t *testing.T) {
	for _, s := range streams(t) {
		if s.bad != "" || len(s.deflate) > 200 {
			continue
		}
		z := s.gzip()
		for i := range z {
			if err := compareGzip(t, z[:i]); err == nil && i > 0 {
				t.Fatalf("%s: cut to %d bytes of %d, and taken", s.name, i, len(z))
			}
			b := bytes.Clone(z)
			b[i] ^= 1 << (i % 8)
			_ = compareGzip(t, b)
		}
		for i := range s.deflate {
			_ = compareRaw(t, s.deflate[:i])
			b := bytes.Clone(s.deflate)
			b[i] ^= 1 << (i % 8)
			_ = compareRaw(t, b)
		}
	}
}

// TestLarge goes around the window many times, with matches of all distances
// and with sources that give little at a time.
func TestLarge(t *testing.T) {
	var b []byte
	n := noise(1 << 20)
	for i := 0; i+4 < len(n) && len(b) < maxOutput-maxMatch-10; i += 4 {
		distance := int(binary.LittleEndian.Uint16(n[i:]))%32768 + 1
		if distance < len(b) && n[i+2]&3 != 0 {
			from := len(b) - distance
			for k := range int(n[i+3]) + 3 {
				b = append(b, b[from+k])
			}
		}
		b = append(b, n[i:i+1+int(n[i+2]&7)]...)
	}
	for _, level := range []int{flate.NoCompression, flate.BestSpeed, 6, flate.BestCompression, flate.HuffmanOnly} {
		z := member(deflated(t, b, level), b)
		for name, r := range map[string]io.Reader{
			"whole": bytes.NewReader(z), "halves": iotest.HalfReader(bytes.NewReader(z)), "end with data": iotest.DataErrReader(bytes.NewReader(z)),
			"bytes": iotest.OneByteReader(bytes.NewReader(z)),
		} {
			if out, err := drain(open(r)); err != nil || !bytes.Equal(out, b) {
				t.Fatalf("level %d, %s: %d bytes of %d: %v", level, name, len(out), len(b), err)
			}
		}
	}
}

// TestMembers: members follow on members, and nothing else does.
func TestMembers(t *testing.T) {
	one, none := member(deflated(t, []byte("one"), 6), []byte("one")), member(deflated(t, nil, 6), nil)
	extra := bytes.Clone(one)
	extra[3] = flagExtra | flagName | flagComment | flagHeaderCRC
	options := append([]byte{3, 0, 1, 2, 3}, "name\x00comment\x00"...)
	sum := crc32.ChecksumIEEE(append(bytes.Clone(extra[:10]), options...))
	options = binary.LittleEndian.AppendUint16(options, uint16(sum))
	extra = append(extra[:10:10], append(options, one[10:]...)...)
	badSum := bytes.Clone(extra)
	badSum[len(badSum)-len(one)+9] ^= 1
	name := func(n int) []byte {
		b := append(bytes.Clone(one[:10]), bytes.Repeat([]byte{'n'}, n)...)
		b[3] = flagName
		return append(append(b, 0), one[10:]...)
	}
	longer := bytes.Clone(one)
	longer[len(longer)-4]++
	for _, c := range []struct {
		name   string
		b      []byte
		out    string
		wanted error
	}{
		{"nothing", nil, "", io.EOF},
		{"one", one, "one", nil},
		{"empty", none, "", nil},
		{"several", slicesOf(one, none, none, one), "oneone", nil},
		{"options", slicesOf(extra, extra), "oneone", nil},
		{"sum of the header", badSum, "", gzip.ErrHeader},
		{"511 letters", name(511), "one", nil},
		{"512 letters", name(512), "", gzip.ErrHeader},
		{"zeros behind", slicesOf(one, make([]byte, 512)), "one", gzip.ErrHeader},
		{"a byte behind", slicesOf(one, []byte{0}), "one", io.ErrUnexpectedEOF},
		{"length", longer, "one", gzip.ErrChecksum},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, err := drain(open(bytes.NewReader(c.b)))
			if string(out) != c.out || !errors.Is(err, c.wanted) {
				t.Errorf("%q, %v, want %q, %v", out, err, c.out, c.wanted)
			}
			if err == nil || len(c.b) > 0 {
				_ = compareGzip(t, c.b)
			}
		})
	}
}

func slicesOf(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// TestSource: a source's own error comes back as it is, after all bytes that
// were whole, and stays.
func TestSource(t *testing.T) {
	raw := bytes.Repeat([]byte("some words "), 10000)
	z := member(deflated(t, raw, 6), raw)
	broken := errors.New("broken")
	for _, cut := range []int{0, 5, 11, len(z) / 2, len(z) - 8, len(z) - 1, len(z)} {
		r, err := NewReader(io.MultiReader(bytes.NewReader(z[:cut]), iotest.ErrReader(broken)))
		var out []byte
		if err == nil {
			out, err = io.ReadAll(r)
		}
		if !errors.Is(err, broken) || !bytes.HasPrefix(raw, out) {
			t.Errorf("cut at %d: %v after %d bytes", cut, err, len(out))
		}
		if r != nil {
			if n, again := r.Read(make([]byte, 1)); n != 0 || !errors.Is(again, broken) {
				t.Errorf("cut at %d: then %d bytes, %v", cut, n, again)
			}
		}
	}
	if _, err := NewReader(idle{}); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("a source without bytes or an error: %v", err)
	}
}

type idle struct{}

func (idle) Read([]byte) (int, error) { return 0, nil }

// TestOverrun: behind a stream at most one buffer is taken from the source.
func TestOverrun(t *testing.T) {
	z := deflated(t, []byte("one"), 6)
	src := bytes.NewReader(append(z, make([]byte, 4*inputSize)...))
	if out, err := io.ReadAll(newRaw(src)); err != nil || string(out) != "one" {
		t.Fatalf("%q, %v", out, err)
	}
	if taken := int(src.Size()) - src.Len(); taken > len(z)+inputSize {
		t.Errorf("%d bytes were taken for a stream of %d", taken, len(z))
	}
}

// TestAllocations: once made, a reader allocates nothing.
func TestAllocations(t *testing.T) {
	raw := bytes.Repeat([]byte("some words "), 100000)
	r, err := NewReader(bytes.NewReader(member(deflated(t, raw, 6), raw)))
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	if n := testing.AllocsPerRun(100, func() { _, _ = r.Read(buf) }); n != 0 {
		t.Errorf("%v allocations per read", n)
	}
}
