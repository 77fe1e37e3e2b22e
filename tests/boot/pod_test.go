package boot

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/tests/internal/world"
)

// diskSize is that of the disk behind the pod's emptyDir, in bytes, and diskPath
// where its containers have it.
const (
	diskSize = 24 << 20
	diskPath = "/data"
)

// sharing are containers beside the one that prints the secret.
func sharing() []world.Beside {
	shell := func(name, script string) world.Beside {
		return world.Beside{Name: name, Command: []string{"/bin/sh", "-c", script}, Scratch: diskPath}
	}
	// Past the page cache, in which the guest has what it wrote.
	const direct = "busybox dd if=/data/word of=/dev/null bs=4096 iflag=direct 2>&1 && echo got it; "
	return []world.Beside{
		shell("writer", "busybox wget -q -O /data/word http://127.0.0.1:8006/cdh/resource/"+world.SecretResource+" && sync && echo done"),
		shell("reader", "busybox grep ' /data ' /proc/mounts; busybox cat /sys/block/*/dm/name; "+direct+"busybox cat /data/word; echo; echo done"),
		shell("late", direct+"echo done"),
	}
}

// sharesDisk runs a pod of pause and three containers. The first writes its secret
// to an emptyDir that lies on a disk of the host's, the second reads it there. The
// host finds nothing of it on its disk; and when it has altered what it finds, the
// third reads nothing.
func (s *stage) sharesDisk(t *testing.T, disk string) {
	config, err := s.ImageConfig(t.Context(), s.Ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RunPod(t.Context(), s.Booted(), func(k *world.Kata) error {
		outputs := map[string]string{}
		for _, c := range sharing() {
			if c.Name == "late" {
				if err := s.alter(t, disk); err != nil {
					return err
				}
			}
			config.Entrypoint, config.Cmd = c.Command, nil
			if err := k.Run(t.Context(), world.Container{
				ID: c.Name, Name: c.Name, Image: s.Ref, Config: config, Disks: map[string]string{diskPath: world.DiskSlot},
			}); err != nil {
				return err
			}
			if outputs[c.Name], err = k.Output(t.Context(), c.Name, "done"); err != nil {
				return err
			}
		}
		for _, part := range []string{s.secret, " /data ext4 ", "-integrity\n", "got it"} {
			if !strings.Contains(outputs["reader"], part) {
				t.Errorf("the second container lacks %q: %q", part, outputs["reader"])
			}
		}
		if strings.Contains(outputs["late"], "got it") {
			t.Errorf("the guest takes what the host has altered: %q", outputs["late"])
		}
		t.Logf("what was altered: %q", outputs["late"])
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// alter plays the host: it looks for the secret on its disk, and flips one bit in
// each sector that the guest has written.
func (s *stage) alter(t *testing.T, disk string) error {
	t.Helper()
	raw, err := os.ReadFile(disk)
	if err != nil {
		return err
	}
	if bytes.Contains(raw, []byte(s.secret)) {
		t.Error("the host reads the secret on its disk")
	}
	const sector = 4096
	written := 0
	for at := sector; at < len(raw); at += sector { // behind the superblock, which the kernel has read
		if part := raw[at:min(at+sector, len(raw))]; len(bytes.Trim(part, "\x00")) > 0 {
			part[100] ^= 1
			written++
		}
	}
	if written < 10 {
		t.Errorf("the guest has written %d sectors", written)
	}
	f, err := os.OpenFile(disk, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	_, err = f.WriteAt(raw[sector:], sector)
	return err
}
