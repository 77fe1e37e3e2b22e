package verity

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// The tree and its root are those of veritysetup, byte for byte, and it accepts
// them; one bit more or less anywhere, and it does not.
func TestLikeVeritysetup(t *testing.T) {
	if _, err := exec.LookPath("veritysetup"); err != nil {
		t.Skip("veritysetup (Debian: cryptsetup-bin) is not installed; make test installs it")
	}
	for _, blocks := range []int{1, 2, 127, 128, 129, 128*128 + 1} {
		for _, salt := range []string{"", "00ff", strings.Repeat("5a", 256)} {
			t.Run(fmt.Sprintf("%d blocks, salt of %d", blocks, len(salt)/2), func(t *testing.T) {
				data := make([]byte, blocks*BlockSize)
				_, err := rand.Read(data)
				must(t, err)
				raw, err := hex.DecodeString(salt)
				must(t, err)
				b, err := NewBuilder(raw)
				must(t, err)
				for rest, size := data, 1; len(rest) > 0; size = size*3%9001 + 1 { // in pieces of many sizes
					n := min(len(rest), size)
					_, err := b.Write(rest[:n])
					must(t, err)
					rest = rest[n:]
				}
				var tree bytes.Buffer
				root, err := b.Finish(&tree)
				must(t, err)
				check(t, data, tree.Bytes(), root, salt)
			})
		}
	}
}

func check(t *testing.T, data, tree []byte, root Root, salt string) {
	t.Helper()
	dir := t.TempDir()
	dataFile, ours, theirs := filepath.Join(dir, "data"), filepath.Join(dir, "ours"), filepath.Join(dir, "theirs")
	must(t, os.WriteFile(dataFile, data, 0o600))
	must(t, os.WriteFile(ours, tree, 0o600))
	if salt == "" {
		salt = "-"
	}
	hash := hex.EncodeToString(root.Hash[:])
	args := []string{"--no-superblock", "--salt=" + salt, "--hash=sha256", fmt.Sprintf("--data-blocks=%d", root.Blocks)}
	out, err := exec.CommandContext(t.Context(), "veritysetup", append([]string{"format", dataFile, theirs}, args...)...).CombinedOutput()
	if err != nil || !strings.Contains(string(out), hash) {
		t.Fatalf("veritysetup has another root than %s (%v):\n%s", hash, err, out)
	}
	if b, err := os.ReadFile(theirs); err != nil || !bytes.Equal(bytes.TrimRight(b, "\x00"), bytes.TrimRight(tree, "\x00")) {
		t.Fatalf("veritysetup has another tree (%v)", err)
	}
	verify := func() error {
		return exec.CommandContext(t.Context(), "veritysetup", append([]string{"verify", dataFile, ours, hash}, args...)...).Run()
	}
	if len(tree) > 0 {
		must(t, verify())
		data[len(data)/2] ^= 1
		must(t, os.WriteFile(dataFile, data, 0o600))
		if verify() == nil {
			t.Error("a changed block was accepted")
		}
	}
}

func TestRefused(t *testing.T) {
	if _, err := NewBuilder(make([]byte, 257)); err == nil {
		t.Error("a salt that no kernel takes")
	}
	b, err := NewBuilder(nil)
	must(t, err)
	if _, err := b.Finish(&bytes.Buffer{}); err == nil {
		t.Error("no data")
	}
	_, err = b.Write(make([]byte, BlockSize+1))
	must(t, err)
	if _, err := b.Finish(&bytes.Buffer{}); err == nil {
		t.Error("a part of a block")
	}
}
