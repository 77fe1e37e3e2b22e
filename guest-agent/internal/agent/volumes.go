package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/device"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/hub"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/kata"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/lease"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/securemount"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/settings"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/swap"
	"github.com/vouchsafe-cc/vouchsafe/image/store"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// served is what the side doors serve.
type served struct {
	*hub.Hub
	lentVolumes
}

// lentVolumes mounts volumes, and keeps their keys as what they are: lent.
type lentVolumes struct {
	mounter interface {
		SecureMount(ctx context.Context, volumeType string, options map[string]string, flags []string, mountPoint string) error
		List() []securemount.Mounted
		AskAgain(ctx context.Context, mountPoint string) error
		Revoke(ctx context.Context, mountPoint string) error
	}
	leases kata.Leases
}

// SecureMount is [securemount.Mounter.SecureMount]; the key is lent from then on.
// Nothing unmounts it before the agent ends.
func (v lentVolumes) SecureMount(ctx context.Context, volumeType string, options map[string]string, flags []string, mountPoint string) error {
	if err := v.mounter.SecureMount(ctx, volumeType, options, flags, mountPoint); err != nil {
		return err
	}
	v.hold(ctx, mountPoint)
	return nil
}

// hold keeps the lease of a volume's key until what it returns is called. Where the end of a lease stops
// containers, the end of the key's cuts the volume off, for whatever process uses
// it: a volume is the whole pod's.
func (v lentVolumes) hold(ctx context.Context, mountPoint string) (giveBack func()) {
	giveBack = func() {}
	for _, m := range v.mounter.List() {
		if m.MountPoint != mountPoint || !m.Lent {
			continue
		}
		giveBack = v.leases.Hold(lease.Lease{
			What: "a volume",
			Ask:  func(ctx context.Context) error { return v.mounter.AskAgain(ctx, mountPoint) },
			Cut: func() error {
				bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), destroyTimeout)
				defer cancel()
				return v.mounter.Revoke(bounded, mountPoint)
			},
		})
	}
	return giveBack
}

// volumes joins the Mounter and the hub. The Mounter comes first, for the disk
// on which the hub keeps images, and needs the hub for keys and tickets
// afterwards.
type volumes struct {
	mounter *securemount.Mounter
	swap    *swap.Space
	hub     *hub.Hub // set before anything is served
}

func newVolumes(o Options, s settings.Agent, log *slog.Logger) *volumes {
	v := &volumes{}
	v.mounter = securemount.New(securemount.Config{Keys: v, Refuse: v.refuse, Logger: log})
	v.swap = swap.New(swap.Config{Volumes: v.mounter, Dir: filepath.Join(o.StateDir, "swap")})
	if s.InsecureNoStorageIntegrity {
		log.Warn("agent.secure_storage_integrity: the host can alter, unnoticed, what pods write to encrypted volumes on its disks")
	}
	return v
}

// Resource is [hub.Hub.Resource].
func (v *volumes) Resource(ctx context.Context, uri string) (secret.Bytes, error) {
	return v.hub.Resource(ctx, uri)
}

// Unseal is [hub.Hub.Unseal].
func (v *volumes) Unseal(ctx context.Context, text string) (secret.Bytes, error) {
	return v.hub.Unseal(ctx, text)
}

func (v *volumes) refuse(ctx context.Context, mountPoint string, err error) error {
	if v.hub == nil {
		return err // the agent does not start
	}
	return v.hub.Refuse(ctx, hub.ObjectVolume, mountPoint, err)
}

// imageDiskOptions make a filesystem that lives as long as its guest: without a
// journal, and with inodes for the many small files of images.
var imageDiskOptions = []string{"-O", "^has_journal", "-m", "0", "-i", "65536"}

// imagePlace makes the place where the hub keeps images, as far as that takes a
// machine that is complete. On one that cannot be, no image is ever pulled, so that
// the hub opens in a plain directory.
func (v *volumes) imagePlace(ctx context.Context, o Options, s *settings.Settings, rest *completion) error {
	if s.Agent.ImageDisk == "" && !s.Image.Verity {
		return nil
	}
	if rest.run(ctx) != nil { // whoever waits for it learns why
		s.Image.Verity = false
		return nil //nolint:nilerr // not this one's
	}
	return v.mountImageDisk(ctx, o, s)
}

// mountImageDisk puts the hub's directory on the disk that the settings name.
func (v *volumes) mountImageDisk(ctx context.Context, o Options, s *settings.Settings) error {
	if s.Agent.ImageDisk == "" {
		return nil
	}
	d, err := openDir(hubDir(o, s.Image))
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	if _, err = v.mounter.MountOn(ctx, imageVolume(s.Agent.ImageDisk), d); err != nil {
		return fmt.Errorf("image_disk: %w", err)
	}
	return nil
}

func imageVolume(node string) securemount.Volume {
	return securemount.Volume{
		Device: securemount.Device{Path: node}, Format: true, Integrity: true,
		Filesystem: securemount.Ext4, MkfsOptions: imageDiskOptions,
	}
}

// keepImages returns what moves images to a disk that a runtime names
// (/dev/trusted_store), nil where the settings say where they are kept.
func (v *volumes) keepImages(o Options, s *settings.Settings) func(ctx context.Context, b device.Block) error {
	if s.Agent.ImageDisk != "" || s.Image.InMemory {
		return nil
	}
	return func(ctx context.Context, b device.Block) error {
		d, err := openDir(hubDir(o, s.Image) + imageDiskSuffix)
		if err != nil {
			return err
		}
		defer func() { _ = d.Close() }()
		path, err := v.mounter.MountOn(ctx, imageVolume(b.Path), d)
		if err != nil {
			return err
		}
		var options []store.Option
		if s.Image.Verity {
			options = append(options, store.AsImages())
		}
		if err := v.hub.MoveImages(path, options...); err != nil {
			return errors.Join(err, v.mounter.Unmount(context.WithoutCancel(ctx), path))
		}
		return nil
	}
}

// imageDiskSuffix makes the directory for images on a runtime's disk of that for
// others. In a state directory no container can have the name.
const imageDiskSuffix = "-disk"

func openDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, err
	}
	return os.Open(dir)
}

// close takes all volumes away, and their keys.
func (v *volumes) close(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), destroyTimeout)
	defer cancel()
	return errors.Join(v.swap.Close(bounded), v.mounter.Close(bounded))
}
