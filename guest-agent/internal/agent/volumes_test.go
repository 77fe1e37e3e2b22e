package agent

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/lease"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/securemount"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/settings"
)

// A guest whose disk for images is not there does not start with images in
// another place. That one which is there is used, make test-kernel shows.
func TestImageDiskMustBeThere(t *testing.T) {
	s := &settings.Settings{Agent: settings.Agent{ImageDisk: filepath.Join(t.TempDir(), "vdz")}}
	v := newVolumes(Options{StateDir: t.TempDir()}, s.Agent, slog.New(slog.DiscardHandler))
	if err := v.mountImageDisk(t.Context(), Options{StateDir: t.TempDir()}, s, newCompletion(nil).run); fault.CodeOf(err) != fault.NotFound {
		t.Errorf("a disk that is not there: %v", err)
	}
	s.Agent.ImageDisk = ""
	if err := v.mountImageDisk(t.Context(), Options{StateDir: filepath.Join(t.TempDir(), "absent", "\x00")}, s, newCompletion(nil).run); err != nil {
		t.Errorf("no disk is asked for: %v", err)
	}
	if err := v.close(t.Context()); err != nil {
		t.Error(err)
	}
}

// disks mounts what it is told to, and notes what becomes of it.
type disks struct {
	mounted []securemount.Mounted
	err     error
	asked   []string
	revoked []string
}

func (d *disks) SecureMount(context.Context, string, map[string]string, []string, string) error {
	return d.err
}
func (d *disks) List() []securemount.Mounted { return d.mounted }
func (d *disks) AskAgain(_ context.Context, at string) error {
	d.asked = append(d.asked, at)
	return d.err
}

func (d *disks) Revoke(_ context.Context, at string) error {
	d.revoked = append(d.revoked, at)
	return nil
}

type leases []lease.Lease

func (l *leases) Hold(one lease.Lease) func() {
	*l = append(*l, one)
	return func() {}
}

// The key of a persistent volume is lent, and with its lease the volume ends; what
// has no key from outside the guest is held by nobody.
func TestVolumesAreLent(t *testing.T) {
	d := &disks{mounted: []securemount.Mounted{
		{MountPoint: "/a", Key: "kbs:///a/key/1", Lent: true}, {MountPoint: "/b"}, {MountPoint: "/c", Key: "file:///key"},
	}}
	var held leases
	v := lentVolumes{d, &held}
	for _, at := range []string{"/a", "/b", "/c"} {
		if err := v.SecureMount(t.Context(), "", nil, nil, at); err != nil {
			t.Fatal(err)
		}
	}
	if len(held) != 1 {
		t.Fatalf("%d leases, want that of /a", len(held))
	}
	if err := errors.Join(held[0].Ask(t.Context()), held[0].Cut()); err != nil || !slices.Equal(d.asked, []string{"/a"}) || !slices.Equal(d.revoked, []string{"/a"}) {
		t.Errorf("asked for %v, revoked %v: %v", d.asked, d.revoked, err)
	}
	d.err = fault.Newf(fault.VolumeRefused, "no")
	if err := v.SecureMount(t.Context(), "", nil, nil, "/a"); err == nil || len(held) != 1 {
		t.Errorf("a volume that was refused: %v, %d leases", err, len(held))
	}
}
