package unpack

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// endless repeats blocks and counts what was read of it.
type endless struct {
	blocks []byte
	read   int64
}

func (e *endless) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		n += copy(p[n:], e.blocks[int(e.read+int64(n))%len(e.blocks):])
	}
	e.read += int64(n)
	return n, nil
}

// blocks is an archive without its end.
func blocks(t testing.TB, entries ...entry) []byte {
	t.Helper()
	return bytes.TrimSuffix(archive(t, entries...), make([]byte, 1024))
}

func wantRefused(t *testing.T, err error, why string) {
	t.Helper()
	if _, ok := errors.AsType[*FormatError](err); !ok || !strings.Contains(err.Error(), why) {
		t.Fatalf("got %v, want a refusal that says %q", err, why)
	}
}

// An archive of ten million entries, or one that never ends, is refused at the
// limit and not read further.
func TestEndlessEntries(t *testing.T) {
	needRoot(t)
	for name, tt := range map[string]struct {
		entry  entry
		limits Limits
		why    string
	}{
		"files":                 {file("f", ""), Limits{Entries: 1000}, "more than 1000 entries"},
		"entries that are void": {file(".wh..wh.aufs", ""), Limits{Entries: 100_000}, "more than 100000 entries"},
		"archive":               {file("f", strings.Repeat("x", 4096)), Limits{Archive: 1 << 20}, "longer than 1048576 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			src := &endless{blocks: blocks(t, tt.entry)}
			_, err := Apply(t.Context(), src, newPlace(t).layer, tt.limits)
			wantRefused(t, err, tt.why)
			if most := int64(tt.limits.Entries+2)*int64(len(src.blocks)) + 1<<20; src.read > most {
				t.Errorf("%d bytes were read", src.read)
			}
		})
	}
	if l := (Limits{}).filled(); l.Entries >= 10_000_000 || l.Archive <= 0 || l.Bytes <= 0 || l.Depth <= 0 {
		t.Errorf("the defaults are no limits: %+v", l)
	}
}

// Directories that nobody described count as well: 200 of them come with one entry.
func TestImpliedDirectoriesCount(t *testing.T) {
	needRoot(t)
	var all []entry
	for i := range 100 {
		all = append(all, file(fmt.Sprint(i)+strings.Repeat("/d", 200)+"/f", ""))
	}
	_, err := Apply(t.Context(), bytes.NewReader(archive(t, all...)), newPlace(t).layer, Limits{Entries: 1000})
	wantRefused(t, err, "more than 1000 entries")
}

// rawHeader is an entry that archive/tar refuses to write.
func rawHeader(name string, kind byte, size int64, format tar.Format) []byte {
	var b [512]byte
	copy(b[:100], name)
	copy(b[100:], "0000644\x000000000\x000000000\x00")
	copy(b[124:], fmt.Sprintf("%011o\x00", size))
	copy(b[136:], "00000000000\x00        ")
	b[156] = kind
	if format == tar.FormatGNU {
		copy(b[257:], "ustar  \x00")
	} else {
		copy(b[257:], "ustar\x0000")
	}
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	return b[:]
}

func padded(b []byte) []byte { return append(b, make([]byte, (512-len(b)%512)%512)...) }

// record is one PAX record, which begins with its own length.
func record(key, value string) string {
	for n := len(key) + len(value) + 4; ; n++ {
		if r := fmt.Sprintf("%d %s=%s\n", n, key, value); len(r) == n {
			return r
		}
	}
}

// withPAX puts records before a file, as they are.
func withPAX(records string, after ...[]byte) []byte {
	b := slices.Concat(rawHeader("pax", 'x', int64(len(records)), tar.FormatPAX), padded([]byte(records)))
	return slices.Concat(append([][]byte{b}, after...)...)
}

func TestHeaderBombs(t *testing.T) {
	needRoot(t)
	plain := rawHeader("f", '0', 0, tar.FormatPAX)
	megabyte := strings.Repeat("n", 1<<20)
	var many strings.Builder
	for i := 0; many.Len() < 900<<10; i++ {
		many.WriteString(record(fmt.Sprintf("VOUCHSAFE.%d", i), "x"))
	}
	forever := withPAX(strings.Repeat(record("comment", strings.Repeat("c", 1000)), 200))
	for name, tt := range map[string]struct {
		src io.Reader
		why string
	}{
		"name of a megabyte, PAX":       {bytes.NewReader(withPAX(record("path", megabyte[:len(megabyte)-40]), plain)), "bad path"},
		"name over a megabyte, PAX":     {bytes.NewReader(withPAX(record("path", megabyte+megabyte), plain)), "header field too long"},
		"name of a megabyte, GNU":       {bytes.NewReader(slices.Concat(rawHeader("L", 'L', 1<<20-512, tar.FormatGNU), padded([]byte(megabyte[:1<<20-512])), plain)), "bad path"},
		"link target of a megabyte":     {bytes.NewReader(withPAX(record("linkpath", megabyte[:len(megabyte)-40]), rawHeader("s", '2', 0, tar.FormatPAX))), "bad link target"},
		"records before every record":   {&endless{blocks: forever}, "headers of one entry"},
		"records of a length that lies": {bytes.NewReader(withPAX("99999999999999999999 path=x\n", plain)), "invalid tar header"},
		"a size of 8 EiB":               {bytes.NewReader(withPAX(record("size", "9223372036854775807"), plain)), "more than"},
		"a negative size":               {bytes.NewReader(withPAX(record("size", "-1"), plain)), "invalid tar header"},
		"a name that holds a zero byte": {bytes.NewReader(withPAX(record("path", "a\x00b"), plain)), "invalid tar header"},
		"an owner that is no number":    {bytes.NewReader(withPAX(record("uid", "root"), plain)), "invalid tar header"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Apply(t.Context(), tt.src, newPlace(t).layer, Limits{})
			wantRefused(t, err, tt.why)
		})
	}
	// Many records are odd, and bounded by what one header may hold.
	_, err := Apply(t.Context(), bytes.NewReader(withPAX(many.String(), plain)), newPlace(t).layer, Limits{})
	must(t, err)
}

// A sparse file of 100 GiB in an archive of 2 KiB fills no disk, and counts.
func TestSparseBomb(t *testing.T) {
	needRoot(t)
	const size = 100 << 30
	bomb := withPAX(record("GNU.sparse.major", "0")+record("GNU.sparse.minor", "1")+record("GNU.sparse.numblocks", "1")+
		record("GNU.sparse.map", fmt.Sprintf("%d,0", int64(size)))+record("GNU.sparse.size", fmt.Sprint(int64(size))), rawHeader("f", '0', 0, tar.FormatPAX))
	_, err := Apply(t.Context(), bytes.NewReader(bomb), newPlace(t).layer, Limits{Bytes: 1 << 30})
	wantRefused(t, err, "hold more than")

	p := newPlace(t)
	ctx, cancel := context.WithCancel(t.Context())
	reads := 0
	src := readerFunc(func(b []byte) (int, error) {
		if reads++; len(bomb) == 0 {
			return 0, io.EOF
		}
		n := copy(b, bomb)
		if bomb = bomb[n:]; len(bomb) == 0 {
			cancel() // zeros that come from nowhere do not keep it from noticing
		}
		return n, nil
	})
	if _, err := Apply(ctx, src, p.layer, Limits{}); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if st := p.stat(t, "f"); st.Blocks > 0 {
		t.Errorf("%d blocks of nothing were written", st.Blocks)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// Symlinks let an archive nest directories deeper than any path in it.
func TestAbyss(t *testing.T) {
	needRoot(t)
	half := strings.Repeat("/d", 130)
	for name, below := range map[string][]entry{
		"implied":             {file("s"+half+"/f", "")},
		"described":           {dir("s" + half)},
		"implied, by another": {file("s"+half[:20]+"/f", ""), symlink("s2", "s"+half[:20]), file("s2"+half[:240]+"/f", "")},
	} {
		t.Run(name, func(t *testing.T) {
			all := append([]entry{file("a"+half+"/f", ""), symlink("s", "a"+half)}, below...)
			wantRefused(t, newPlace(t).apply(t, archive(t, all...)), "deeper than 256")
		})
	}
	must(t, newPlace(t).apply(t, archive(t, file("a"+half+"/f", ""), symlink("s", "a"+half), file("s"+half[:200]+"/f", ""), file("a", "replaces all of it"))))
}

// What was known of open directories must not outlive a link that led there.
func TestCachedDirectoriesAreForgotten(t *testing.T) {
	needRoot(t)
	p := newPlace(t)
	must(t, p.apply(t, archive(t,
		dir("one"), dir("two"), symlink("to", "one"),
		file("to/a", "1"), // opens "to"
		symlink("to", "two"),
		file("to/b", "2"),
		dir("gone"), file("gone/c", "x"), file("gone", ""), dir("gone"), file("gone/d", "3"),
		symlink("one/up", ".."), file("one/up/two/e", "4"), dir("two2"), symlink("two", "two2"), file("one/up/two/g", "5"),
	)))
	if got := p.read(t, "one/a") + p.read(t, "gone/d") + p.read(t, "two2/g"); got != "135" {
		t.Errorf("content %q", got)
	}
	for _, name := range []string{"one/b", "gone/c", "two2/e"} {
		var st unix.Stat_t
		if err := unix.Lstat(p.layer+"/"+name, &st); err == nil {
			t.Errorf("%s is there", name)
		}
	}
	if p.xattr("gone", XattrOpaque) != "y" {
		t.Error("a directory that followed a file shows what the file had hidden")
	}
}

// Many directories at once: more than stay open.
func TestManyDirectories(t *testing.T) {
	needRoot(t)
	p := newPlace(t)
	var all []entry
	for i := range 300 {
		all = append(all, dir(fmt.Sprintf("d%d", i)))
	}
	for i := range 300 {
		all = append(all, file(fmt.Sprintf("d%d/f", i), fmt.Sprint(i)), link(fmt.Sprintf("d%d/l", i), fmt.Sprintf("d%d/f", (i*7)%(i+1))))
	}
	must(t, p.apply(t, archive(t, all...)))
	if p.read(t, "d299/f") != "299" || p.stat(t, "d299/l").Ino != p.stat(t, fmt.Sprintf("d%d/f", 299*7%300)).Ino {
		t.Error("content or links")
	}
}
