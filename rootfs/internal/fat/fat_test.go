package fat

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const boot = "EFI/BOOT/BOOTX64.EFI"

func content(size int) []byte {
	out := make([]byte, size)
	for i := range out {
		out[i] = byte(i * 7 / 3)
	}
	return out
}

func TestWrite(t *testing.T) {
	raw, err := Write(boot, content(3000))
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Write(boot, content(3000)); err != nil || !bytes.Equal(raw, again) {
		t.Errorf("written twice, and not the same: %v", err)
	}
	le := binary.LittleEndian
	clusters := (int(le.Uint32(raw[32:])) - reserved - tables*int(le.Uint32(raw[36:]))) / int(raw[13])
	if clusters < minClusters {
		t.Errorf("%d clusters: drivers read this as FAT16", clusters)
	}
	if len(raw) != int(le.Uint32(raw[32:]))*sector {
		t.Errorf("it has %d bytes and tells of %d sectors", len(raw), le.Uint32(raw[32:]))
	}
	for _, bad := range []string{"", "a", "/A", "A//B", "LONGERTHAN8", "A.LONG", "A.B.C", "Ä"} {
		if _, err := Write(bad, []byte("x")); err == nil {
			t.Errorf("%q was written", bad)
		}
	}
	if _, err := Write(boot, nil); err == nil {
		t.Error("an empty file was written")
	}
}

// The field's tools find nothing wrong, and the file.
func TestOtherTools(t *testing.T) {
	for _, p := range []string{"fsck.vfat", "mtype"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is not installed, which judges the file system here (make test installs it)", p)
		}
	}
	for _, size := range []int{1, sector, sector + 1, 40 << 20} {
		want := content(size)
		raw, err := Write(boot, want)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(t.TempDir(), "esp")
		if err := os.WriteFile(name, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), "fsck.vfat", "-n", "-v", name).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "32 bits/entry") && !strings.Contains(string(out), "FAT32") && !strings.Contains(string(out), "32 bit") {
			t.Errorf("%d bytes: %v\n%s", size, err, out)
		}
		cmd := exec.CommandContext(t.Context(), "mtype", "-i", name, "::/"+boot)
		cmd.Env = append(os.Environ(), "MTOOLS_SKIP_CHECK=0")
		if got, err := cmd.Output(); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes: mtype reads %d, %v", size, len(got), err)
		}
	}
}
