package disk

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/tree"
)

func sampleRoot(t testing.TB) *Verified {
	t.Helper()
	tr := tree.New()
	for i := range 300 {
		if err := tr.Add(fmt.Sprintf("/usr/lib/%03d", i), tree.File{Mode: 0o644, Content: bytes.Repeat([]byte{byte(i)}, i*100)}); err != nil {
			t.Fatal(err)
		}
	}
	v, err := Verify(t.Context(), tr, []byte("a salt"))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func sample(t testing.TB) ([]byte, Root) {
	t.Helper()
	v := sampleRoot(t)
	return v.Kata(), v.Root
}

func TestCheck(t *testing.T) {
	raw, root := sample(t)
	if _, err := Check(raw, root); err != nil {
		t.Fatal(err)
	}
	parsed, err := ParseParameters(root.Parameters() + "\n")
	if err != nil || parsed.Parameters() != root.Parameters() {
		t.Errorf("%+v, %v", parsed, err)
	}
	for _, at := range []int{510, table + 4, table + 8, table + 28, alignment, alignment + 5000, len(raw) - 1} {
		other := bytes.Clone(raw)
		other[at] ^= 0x10
		if _, err := Check(other, root); err == nil {
			t.Errorf("byte %d is another, and nothing shows it", at)
		}
	}
	wrapped := root
	wrapped.Blocks += 1 << 52 // as many bytes, in 64 bits
	if _, err := Check(raw, wrapped); err == nil {
		t.Errorf("%d blocks: accepted", wrapped.Blocks)
	}
	for _, cut := range []int{0, 511, alignment, len(raw) - 1} {
		if _, err := Check(raw[:cut], root); err == nil {
			t.Errorf("cut to %d bytes: accepted", cut)
		}
	}
}

// The tools of the field read what was written.
func TestOtherTools(t *testing.T) {
	for _, p := range []string{"veritysetup", "fsck.erofs"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is not installed, which judges the disk here (make test installs it)", p)
		}
	}
	raw, root := sample(t)
	parts, err := partitions(raw)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	data, hashes := filepath.Join(dir, "root"), filepath.Join(dir, "hashes")
	for i, name := range []string{data, hashes} {
		if err := os.WriteFile(name, parts[i], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{
		{"fsck.erofs", data},
		{"veritysetup", "verify", "--no-superblock", "--salt", hex.EncodeToString(root.Salt), "--data-blocks", fmt.Sprint(root.Blocks), data, hashes, hex.EncodeToString(root.Hash[:])},
	} {
		if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
	}
}

func FuzzParameters(f *testing.F) {
	f.Add("root_hash=" + hex.EncodeToString(make([]byte, 32)) + ",salt=00,data_blocks=1,data_block_size=4096,hash_block_size=4096")
	f.Fuzz(func(t *testing.T, line string) {
		r, err := ParseParameters(line)
		if err != nil {
			return
		}
		again, err := ParseParameters(r.Parameters())
		if err != nil || again.Parameters() != r.Parameters() {
			t.Errorf("%q is read as %q, %v", line, r.Parameters(), err)
		}
	})
}
