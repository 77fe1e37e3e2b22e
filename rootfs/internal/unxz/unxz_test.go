package unxz_test

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os/exec"
	"testing"

	"github.com/ulikunitz/xz"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/unxz"
)

func packed(t testing.TB, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := xz.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Write(content)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestRead(t *testing.T) {
	content := bytes.Repeat([]byte("content "), 10_000)
	raw := packed(t, content)
	r, err := unxz.NewReader(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	// A header that asks for 4 GiB, with the checksum that belongs to it.
	huge := bytes.Clone(raw)
	huge[16] = 40
	binary.LittleEndian.PutUint32(huge[20:], crc32.ChecksumIEEE(huge[12:20]))
	if _, err := unxz.NewReader(bytes.NewReader(huge)); !errors.Is(err, unxz.ErrDictionary) {
		t.Errorf("a dictionary of 4 GiB: %v", err)
	}
	if _, err := unxz.NewReader(bytes.NewReader(raw[:20])); err == nil {
		t.Error("a file that is cut off was accepted")
	}
}

// What the field's own program writes can be read, also with sizes in the headers
// of blocks.
func TestReadXZUtils(t *testing.T) {
	if _, err := exec.LookPath("xz"); err != nil {
		t.Skip("xz is not installed, whose files are read here (make test installs it)")
	}
	content := make([]byte, 400_000) // of which the sizes take several bytes
	if _, err := rand.Read(content); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"-9"}, {"-T2", "--block-size=100000"}} {
		cmd := exec.CommandContext(t.Context(), "xz", append(args, "-c")...)
		cmd.Stdin = bytes.NewReader(content)
		raw, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		r, err := unxz.NewReader(bytes.NewReader(raw))
		if err != nil {
			t.Errorf("%v: %v", args, err)
			continue
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%v: %d bytes, %v", args, len(got), err)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(packed(f, []byte("content")))
	f.Fuzz(func(_ *testing.T, raw []byte) {
		if r, err := unxz.NewReader(bytes.NewReader(raw)); err == nil {
			_, _ = io.Copy(io.Discard, io.LimitReader(r, 1<<20))
		}
	})
}
