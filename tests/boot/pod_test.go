package boot

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/tests/internal/world"
)

// diskSize is that of the disk behind the pod's emptyDir, in bytes.
const diskSize = 24 << 20

// sharesDisk runs a pod of pause and three containers. The first writes its secret
// to an emptyDir that lies on a disk of the host's, the second reads it there. The
// host finds nothing of it on its disk; and when it has altered what it finds, the
// third reads nothing.
func (s *stage) sharesDisk(t *testing.T, disk string) {
	shell := func(script string) []string { return []string{"/bin/sh", "-c", script} }
	// Past the page cache, in which the guest has what it wrote.
	const direct = "busybox dd if=/data/word of=/dev/null bs=4096 iflag=direct 2>&1 && echo got it; "
	pod := world.Pod{
		Image: s.Ref, Scratch: "/data",
		Command: shell("busybox wget -q -O /data/word http://127.0.0.1:8006/cdh/resource/" + world.SecretResource + " && sync && echo done"),
		Beside: []world.Beside{
			{Name: "reader", Command: shell("busybox grep ' /data ' /proc/mounts; busybox cat /sys/block/*/dm/name; " + direct + "busybox cat /data/word; echo; echo done")},
			{Name: "late", Command: shell(direct + "echo done")},
		},
	}
	file, err := s.WriteInitData(t.Context(), "sharing", pod)
	s.must(err)
	s.must(s.KnowInitData(t.Context(), file))
	config, err := s.ImageConfig(t.Context(), s.Ref)
	s.must(err)
	cfg := s.Booted()
	cfg.InitData = file
	s.must(s.RunPod(t.Context(), cfg, func(k *world.Kata) error {
		run := func(name string, command []string) (string, error) {
			config.Entrypoint, config.Cmd = command, nil
			if err := k.Run(t.Context(), world.Container{
				ID: name, Name: name, Image: s.Ref, Config: config, Disks: map[string]string{pod.Scratch: world.DiskSlot},
			}); err != nil {
				return "", err
			}
			return k.Output(t.Context(), name, "done")
		}
		if _, err := run("app", pod.Command); err != nil {
			return err
		}
		out, err := run("reader", pod.Beside[0].Command)
		if err != nil {
			return err
		}
		for _, part := range []string{s.secret, " /data ext4 ", "-integrity\n", "got it"} {
			if !strings.Contains(out, part) {
				t.Errorf("the second container lacks %q: %q", part, out)
			}
		}
		if err := s.alter(t, disk); err != nil {
			return err
		}
		if out, err = run("late", pod.Beside[1].Command); strings.Contains(out, "got it") {
			t.Errorf("the guest takes what the host has altered: %q", out)
		}
		t.Logf("what was altered: %q", out)
		return err
	}))
	s.must(s.KnowInitData(t.Context(), s.InitData))
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
