package disk

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure/efi"
)

func TestBootable(t *testing.T) {
	root, image := sampleRoot(t), bytes.Repeat([]byte("image"), 1000)
	whole, err := Bootable(image, root)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Bootable(image, root); err != nil || !bytes.Equal(whole, again) {
		t.Errorf("made twice, and not the same: %v", err)
	}
	if data, err := CheckBootable(whole, image, &root.Root); err != nil || !bytes.Equal(data, root.Data) {
		t.Errorf("%d bytes of a root, %v", len(data), err)
	}
	alone, err := Bootable(image, nil)
	if err != nil {
		t.Fatal(err)
	}
	if data, err := CheckBootable(alone, image, nil); err != nil || data != nil {
		t.Errorf("%d bytes of a root, %v", len(data), err)
	}
	for name, c := range map[string]struct {
		disk, image []byte
		root        *Root
	}{
		"another image": {whole, append(bytes.Clone(image), 0), &root.Root}, "a root that is not told": {whole, image, nil},
		"no root": {alone, image, &root.Root}, "another root": {whole, image, &Root{Salt: root.Salt, Blocks: root.Blocks}},
		"cut": {whole[:len(whole)-1], image, &root.Root}, "nothing": {nil, image, &root.Root}, "longer": {append(bytes.Clone(whole), 0), image, &root.Root},
	} {
		if _, err := CheckBootable(c.disk, c.image, c.root); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for _, at := range []int{0, table + 4, sector + 57, 2*sector + 20, 2*sector + 128 + 32, alignment, alignment + 40<<10, len(whole) - 1, len(whole) - sector + 57} {
		other := bytes.Clone(whole)
		other[at] ^= 0x10
		if _, err := CheckBootable(other, image, &root.Root); err == nil {
			t.Errorf("byte %d is another, and nothing shows it", at)
		}
	}
}

// Other readers find three partitions.
func TestOtherReaders(t *testing.T) {
	raw, err := Bootable([]byte("image"), sampleRoot(t))
	if err != nil {
		t.Fatal(err)
	}
	if data, err := efi.GPTData(raw); err != nil || len(data) != gptHeader+8+3*gptEntrySize {
		t.Errorf("%d bytes, %v", len(data), err)
	}
	if _, err := exec.LookPath("sfdisk"); err != nil {
		t.Skip("sfdisk is not installed, which judges the partition table here (make test installs it)")
	}
	name := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(name, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "sfdisk", "--verify", name).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "No errors detected") {
		t.Errorf("%v\n%s", err, out)
	}
	out, err = exec.CommandContext(t.Context(), "sfdisk", "--dump", name).CombinedOutput()
	for _, want := range []string{"label: gpt", "type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B", "type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709", "type=2C7357ED-EBD2-46D9-AEC1-23D437EC2BF5", `name="root-verity"`} {
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%q is missing, %v:\n%s", want, err, out)
		}
	}
}
