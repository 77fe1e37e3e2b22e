package boot

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/tests/internal/world"
)

// The disks that a pod brings: one with a volume that lasts, one for its images.
const (
	volumeSlot = "10"
	storeSlot  = "11"
	volumeSize = 32 << 20 // bytes, half of them the header's
	storeSize  = 24 << 20
)

// diskSector is the unit of encrypted volumes, in bytes.
const diskSector = 4096

// volumeData is where the data of a volume begins, behind its header and the
// superblock of dm-integrity, in bytes: what is before is read, and judged, as it is.
const volumeData = 16<<20 + diskSector

// What a pod writes to its volume in one boot of a machine, which ends as if the
// power went, it reads in the next. The host reads nothing of it on the disk; and
// once it has altered what it finds there, the volume is refused.
//
// The pod's image lies on a disk of the host's meanwhile, likewise encrypted.
func TestLongVolumes(t *testing.T) {
	long(t)
	s := newStage(t, "initrd")
	volume, err := s.AddDiskAt(volumeSlot, volumeSize)
	s.must(err)
	store, err := s.AddDiskAt(storeSlot, storeSize)
	s.must(err)
	s.must(s.KeepVolumeKey(t.Context()))

	pod := world.Pod{Image: s.Ref, Volume: "/data", NewVolume: true, Store: true}
	out, err := s.usesDisks(pod, "busybox wget -q -O /data/word http://127.0.0.1:8006/cdh/resource/"+world.SecretResource+
		" && sync && if [ -e /dev/trusted_store ]; then echo sees the disk; fi; busybox cat /sys/block/*/dm/name")
	s.must(err)
	if n := strings.Count(out, "-integrity\n"); n != 2 || strings.Contains(out, "sees the disk") {
		t.Errorf("%d disks have integrity, of 2: %q", n, out)
	}
	program, err := s.SmallProgram()
	s.must(err)
	s.hides(volume, volumeData, 1, s.secret)
	s.hides(store, diskSector, len(program)/diskSector, "BusyBox v")

	pod.NewVolume, pod.Store = false, false
	if out, err = s.usesDisks(pod, "busybox cat /data/word && echo && busybox grep ' /data ' /proc/mounts"); err != nil || !strings.Contains(out, s.secret) || !strings.Contains(out, " /data ext4 ") {
		t.Errorf("the next boot reads %q, %v", out, err)
	}

	s.must(flipSectors(volume, volumeData))
	_, err = s.usesDisks(pod, "busybox cat /data/word")
	r, err := s.Opened(t.Context(), err, fault.VolumeRefused)
	s.must(err)
	if want := "mount the volume as ext4"; !strings.Contains(r.Explanation.Cause, want) || strings.Contains(r.Public, want) {
		t.Errorf("the host reads %q, the owner %+v", r.Public, r.Explanation)
	}
	t.Logf("%s: %s", r.Code, r.Explanation.Cause)
}

// usesDisks boots the machine, runs a script in a pod that brings the disks, and cuts
// the machine's power. It returns what the script prints.
func (s *stage) usesDisks(pod world.Pod, script string) (out string, err error) {
	s.Helper()
	pod.Command = []string{"/bin/sh", "-c", script + "; echo done"}
	file, err := s.WriteInitData(s.Context(), "disks", pod)
	s.must(err)
	s.must(s.KnowInitData(s.Context(), file))
	config, err := s.ImageConfig(s.Context(), s.Ref)
	s.must(err)
	config.Entrypoint, config.Cmd = pod.Command, nil
	cfg := s.Config()
	cfg.InitData = file
	err = s.RunPod(s.Context(), cfg, func(k *world.Kata) error {
		c := world.Container{ID: "app", Name: "app", Image: s.Ref, Config: config, Volumes: map[string]string{pod.Volume: volumeSlot}}
		if pod.Store {
			c.Store = storeSlot
		}
		if err := k.Run(s.Context(), c); err != nil {
			return err
		}
		if out, err = k.Output(s.Context(), "app", "done"); err != nil {
			return fmt.Errorf("%w; its standard error: %s", err, k.Errors(s.Context(), "app"))
		}
		return nil
	})
	return out, err
}

// hides plays a host that looks at its disk: the guest has written that many sectors
// at least from a byte on, and a text is nowhere.
func (s *stage) hides(disk string, from, sectors int, text string) {
	s.Helper()
	raw, err := os.ReadFile(disk)
	s.must(err)
	if bytes.Contains(raw, []byte(text)) {
		s.Errorf("%s shows %q", disk, text)
	}
	if n := len(written(raw, from)); n < sectors {
		s.Errorf("%s has %d sectors that were written, not %d", disk, n, sectors)
	}
}

// written are the offsets of sectors that are not empty.
func written(disk []byte, from int) (list []int) {
	for at := from; at < len(disk); at += diskSector {
		if len(bytes.Trim(disk[at:min(at+diskSector, len(disk))], "\x00")) > 0 {
			list = append(list, at)
		}
	}
	return list
}

// flipSectors alters one bit in each sector that was written from a byte on.
func flipSectors(disk string, from int) error {
	raw, err := os.ReadFile(disk)
	if err != nil {
		return err
	}
	for _, at := range written(raw, from) {
		raw[at+100] ^= 1
	}
	return os.WriteFile(disk, raw, 0o600)
}
