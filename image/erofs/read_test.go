package erofs

import (
	"bytes"
	"errors"
	"io/fs"
	"strings"
	"testing"
)

func few() []Entry {
	out := []Entry{
		{Path: "/", Mode: fs.ModeDir | 0o755},
		{Path: "/bin", Mode: fs.ModeDir | 0o755},
		{Path: "/bin/agent", Mode: 0o755, Content: bytes.Repeat([]byte("agent"), 3000)},
		{Path: "/empty", Mode: 0o600},
		{Path: "/init", Mode: fs.ModeSymlink | 0o777, Target: "bin/agent"},
		{Path: "/many", Mode: fs.ModeDir | 0o700},
		{Path: "/tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777},
	}
	for i := range 200 {
		out = append(out, Entry{Path: "/many/" + strings.Repeat("n", i+1), Mode: 0o644, Content: []byte{byte(i)}})
	}
	return out
}

func image(t testing.TB, entries []Entry) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := WriteEntries(t.Context(), &b, entries); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestReadAgain(t *testing.T) {
	raw := image(t, few())
	got, err := ReadEntries(t.Context(), raw)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(few()) || !bytes.Equal(image(t, got), raw) {
		t.Error("what was read is not what was written")
	}
	for at := superOffset; at < len(raw); at += 501 {
		other := bytes.Clone(raw)
		other[at] ^= 1
		again, err := ReadEntries(t.Context(), other)
		if err == nil && bytes.Equal(image(t, again), raw) {
			t.Errorf("byte %d is another, and nothing shows it", at)
		}
		if err != nil && !errors.Is(err, ErrImage) {
			t.Errorf("byte %d: %v", at, err)
		}
	}
}

// What is accepted is the same bytes when it is written again.
func FuzzReadEntries(f *testing.F) {
	f.Add(image(f, few()[:5]))
	f.Add(make([]byte, 2*BlockSize))
	f.Fuzz(func(t *testing.T, raw []byte) {
		entries, err := ReadEntries(t.Context(), raw)
		if err == nil && !bytes.Equal(image(t, entries), raw) {
			t.Error("accepted, and is something else when written again")
		}
	})
}
