package agent

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/device"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/hub"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/lease"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/securemount"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/settings"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// A guest whose disk for images is not there does not start with images in
// another place. That one which is there is used, make test-kernel shows.
func TestImageDiskMustBeThere(t *testing.T) {
	s := &settings.Settings{Agent: settings.Agent{ImageDisk: filepath.Join(t.TempDir(), "vdz")}}
	v := newVolumes(Options{StateDir: t.TempDir()}, s.Agent, slog.New(slog.DiscardHandler))
	if err := v.imagePlace(t.Context(), Options{StateDir: t.TempDir()}, s, newCompletion(nil)); fault.CodeOf(err) != fault.NotFound {
		t.Errorf("a disk that is not there: %v", err)
	}
	s.Agent.ImageDisk = ""
	if err := v.imagePlace(t.Context(), Options{StateDir: filepath.Join(t.TempDir(), "absent", "\x00")}, s, newCompletion(nil)); err != nil {
		t.Errorf("no disk is asked for: %v", err)
	}
	if err := v.close(t.Context()); err != nil {
		t.Error(err)
	}
}

// Volumes have keys and tickets of the hub, from the moment that there is one.
func TestVolumesHaveTheHub(t *testing.T) {
	o := Options{StateDir: t.TempDir()}
	s := &settings.Settings{}
	v := newVolumes(o, s.Agent, slog.New(slog.DiscardHandler))
	request := func() error {
		return v.mounter.SecureMount(t.Context(), "BlockDevice", map[string]string{"nonsense": "x"}, nil, "/at/this/place")
	}
	if err := request(); fault.CodeOf(err) != fault.InvalidRequest || ticketOf(err) != "" {
		t.Errorf("before there is a hub: %v", err)
	}
	var journal bytes.Buffer
	h, err := hub.New(hub.Config{ImageDir: t.TempDir(), Journal: &journal, Broker: keyBroker{}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = h.Close() }()
	v.hub = h
	key, err := v.Resource(t.Context(), "kbs:///a/key/1")
	if err != nil || string(key.Reveal()) != "the key kbs:///a/key/1" {
		t.Errorf("a key: %v", err)
	}
	if _, err := v.Unseal(t.Context(), "sealed.nonsense"); err == nil {
		t.Error("nonsense was opened")
	}
	err = request()
	if ticket := ticketOf(err); ticket == "" || !strings.Contains(journal.String(), string(ticket)) || !strings.Contains(journal.String(), "/at/this/place") {
		t.Errorf("a refusal: %v; the journal says %s", err, journal.String())
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for range 2 { // also after the end of all else, and again
		if err := v.close(gone); err != nil {
			t.Error(err)
		}
	}
}

func ticketOf(err error) fault.Ticket {
	if f, ok := errors.AsType[*fault.Fault](err); ok {
		return f.Ticket
	}
	return ""
}

// keyBroker has every key.
type keyBroker struct{ hub.Broker }

func (keyBroker) Resource(_ context.Context, uri string) (secret.Bytes, error) {
	return secret.Copy([]byte("the key " + uri)), nil
}

func (keyBroker) ReportRefusal(context.Context, api.GuestRefusal) (fault.Ticket, error) {
	return "", errors.New("it takes no reports")
}

// A runtime moves images to a disk of its choice only where the settings leave the
// choice open, and one that cannot be had leaves them where they are.
func TestKeepImages(t *testing.T) {
	o := Options{StateDir: t.TempDir()}
	v := newVolumes(o, settings.Agent{}, slog.New(slog.DiscardHandler))
	for name, s := range map[string]*settings.Settings{
		"a disk is set": {Agent: settings.Agent{ImageDisk: "/dev/vdz"}}, "in memory": {Image: settings.Image{ImageStore: settings.ImageStore{InMemory: true}}},
	} {
		if v.keepImages(o, s) != nil {
			t.Errorf("%s: a runtime may choose", name)
		}
	}
	keep := v.keepImages(o, &settings.Settings{})
	if keep == nil {
		t.Fatal("no runtime may choose")
	}
	if err := keep(t.Context(), device.Block{Path: filepath.Join(t.TempDir(), "vdz")}); fault.CodeOf(err) != fault.NotFound {
		t.Errorf("a disk that is not there: %v", err)
	}
	if list := v.mounter.List(); len(list) != 0 {
		t.Errorf("mounted: %v", list)
	}
	if fi, err := os.Stat(imageDir(o) + imageDiskSuffix); err != nil || fi.Mode().Perm() != 0o711 {
		t.Errorf("the directory for the disk: %v", err)
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
