package initramfs

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"os/exec"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/tree"
)

// sample has a file of more than one block, in parts hard to compress.
func sample(t testing.TB) *tree.Tree {
	t.Helper()
	content := make([]byte, 9<<20)
	if _, err := rand.Read(content[:1<<20]); err != nil {
		t.Fatal(err)
	}
	tr := tree.New()
	for p, c := range map[string][]byte{"/init": content, "/etc/name": []byte("guest\n")} {
		if err := tr.Add(p, tree.File{Mode: 0o755, Content: c}); err != nil {
			t.Fatal(err)
		}
	}
	return tr
}

func TestRoundTrip(t *testing.T) {
	tr := sample(t)
	for _, c := range []Compression{LZ4, Zstd} {
		packed, err := Write(tr, c)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := Write(tr, c); err != nil || !bytes.Equal(again, packed) {
			t.Errorf("%s: other bytes the second time, %v", c, err)
		}
		read, err := Read(packed)
		if err != nil {
			t.Fatalf("%s: %v", c, err)
		}
		if len(read.Paths()) != len(tr.Paths()) {
			t.Errorf("%s: %q became %q", c, tr.Paths(), read.Paths())
		}
		for _, p := range tr.Paths() {
			want, _ := tr.Get(p)
			if got, ok := read.Get(p); !ok || got.Mode != want.Mode || !bytes.Equal(got.Content, want.Content) {
				t.Errorf("%s: %s is not what it was", c, p)
			}
		}
		if _, err := Read(packed[:len(packed)/2]); err == nil {
			t.Errorf("%s: half of it was read", c)
		}
	}
	if _, err := Write(tr, "xz"); err == nil || !strings.Contains(err.Error(), "lz4 or zstd") {
		t.Error(err)
	}
}

// The lz4 command reads what we write.
func TestOtherReader(t *testing.T) {
	program, err := exec.LookPath("lz4")
	if err != nil {
		t.Skip("lz4 is not installed, which reads the initramfs here (make test installs it)")
	}
	packed, err := Write(sample(t), LZ4)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-d", "-c")
	blocks := 4
	for n := uint32(1); n != 0; {
		if n = binary.LittleEndian.Uint32(packed[blocks:]); n != 0 {
			blocks += 4 + int(n)
		}
	}
	cmd.Stdin = bytes.NewReader(packed[:blocks]) // that program knows no end
	raw, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	ours, err := readLZ4(packed)
	if err != nil || !bytes.Equal(raw, ours) {
		t.Errorf("%d bytes, and %d of ours: %v", len(raw), len(ours), err)
	}
}

func TestMalformed(t *testing.T) {
	head := []byte{0x02, 0x21, 0x4c, 0x18}
	with := func(b ...byte) []byte { return append(bytes.Clone(head), b...) }
	for want, packed := range map[string][]byte{
		"too short":     head[:3],
		"neither":       []byte("070701"),
		"no end":        head,
		"cut short":     with(255, 255, 255, 255, 0),
		"behind the":    with(0, 0, 0, 0, 1),
		"behind the e":  with(0, 0, 0, 0, 0, 0, 0, 0),
		"lz4: lz4":      with(2, 0, 0, 0, 255, 255, 0, 0, 0, 0),
		"zstd":          {0x28, 0xb5, 0x2f, 0xfd, 255},
		"no end of the": with(0, 0, 0, 0), // an empty archive: cpio's own complaint
	} {
		_, err := Read(packed)
		if err == nil || want != "no end of the" && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	tr := tree.New()
	if err := tr.Add("/init", tree.File{Mode: 0o755, Content: []byte("x")}); err != nil {
		f.Fatal(err)
	}
	for _, c := range []Compression{LZ4, Zstd} {
		packed, err := Write(tr, c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packed)
	}
	f.Add([]byte{0x02, 0x21, 0x4c, 0x18, 255, 255, 255, 255})
	f.Fuzz(func(_ *testing.T, packed []byte) { _, _ = Read(packed) })
}
