package securemount

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/luks2"
	"github.com/vouchsafe-cc/vouchsafe/image/dm"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// volume is one that stands, or is being brought up or down.
type volume struct {
	kernel kernel
	key    string // where it came from
	name   string // of the mapping that decrypts
	layout layout
	// The device stays open, so that its number cannot become another's.
	disk    disk
	sectors int64 // of the mapping
	mapped  bool  // it decrypts, until it is revoked
	keep    bool  // what is on the device
	undos   []func(context.Context) error
}

// bringUp does all of it or nothing. If what it had begun cannot be undone, it
// returns that beside the error, for another try.
func (m *Mounter) bringUp(ctx context.Context, v Volume, dir *os.File) (up *volume, err error) {
	up = &volume{kernel: m.kernel, key: v.Key, name: v.Name}
	if up.name == "" {
		up.name = fmt.Sprintf("vouchsafe-%x", secret.Random(8).Reveal()) // not secret, only random
	}
	defer func() {
		if err == nil {
			return
		}
		undone := up.bringDown(context.WithoutCancel(ctx))
		if err = errors.Join(err, undone); undone == nil {
			up = nil
		}
	}()
	if up.disk, err = m.kernel.openDisk(v.Device); err != nil {
		return up, err
	}
	up.push(func(context.Context) error { return up.disk.Close() })
	if v.Format {
		if err := blank(up.disk); err != nil {
			return up, err
		}
		up.push(up.wipe)
	}
	volumeKey, err := m.unlock(ctx, v, up)
	if err != nil {
		return up, err
	}
	defer volumeKey.Destroy()
	if err := up.mapAll(ctx, v.Format, volumeKey); err != nil {
		return up, err
	}
	if err := up.place(ctx, v, dir); err != nil {
		return up, err
	}
	up.keep = !up.layout.ephemeral
	return up, nil
}

// unlock finds the layout and the volume key. Whether the header is acceptable
// is seen before any key is asked for.
func (m *Mounter) unlock(ctx context.Context, v Volume, up *volume) (secret.Bytes, error) {
	up.layout = layout{ephemeral: v.Key == "", integrity: v.Integrity, sector: sectorSize}
	if up.layout.ephemeral {
		if up.disk.Size() < minSize {
			return secret.Bytes{}, invalid("a device of %d bytes is too small", up.disk.Size())
		}
		if !v.Integrity {
			return secret.Random(plainKey), nil
		}
		return secret.Random(luks2.VolumeKeySize), nil
	}
	var header *luks2.Header
	var err error
	if !v.Format {
		if header, err = luks2.Read(up.disk); err != nil {
			return secret.Bytes{}, headerFault(err)
		}
	} else if up.disk.Size() < luks2.HeaderSize+minSize {
		return secret.Bytes{}, invalid("a device of %d bytes is too small", up.disk.Size())
	}
	key, err := m.findKey(ctx, v.Key)
	if err != nil {
		return secret.Bytes{}, err
	}
	defer key.Destroy()
	var volumeKey secret.Bytes
	if v.Format {
		if key.Len() < luks2.MinKeySize {
			return secret.Bytes{}, fault.Newf(fault.VolumeRefused, "a key of %d bytes, a new volume needs %d random ones", key.Len(), luks2.MinKeySize)
		}
		header, volumeKey, err = luks2.Format(up.disk, key)
	} else {
		volumeKey, err = header.Open(key)
	}
	if err != nil {
		return secret.Bytes{}, headerFault(err)
	}
	up.layout.sector, up.layout.offset = header.SectorSize, header.Offset
	if up.layout.offset > up.disk.Size()-minSize {
		volumeKey.Destroy()
		return secret.Bytes{}, fault.Newf(fault.VolumeRefused, "the data starts at %d of a device of %d bytes", up.layout.offset, up.disk.Size())
	}
	return volumeKey, nil
}

func headerFault(err error) error {
	if errors.Is(err, luks2.ErrHeader) || errors.Is(err, luks2.ErrKey) {
		return fault.New(fault.VolumeRefused, err)
	}
	return err
}

// blank refuses a device that has anything where filesystems, tables of
// partitions and other volumes keep what they are known by.
func blank(d disk) error {
	for _, r := range ends(d.Size()) {
		b, zeros := make([]byte, 1<<20), make([]byte, 1<<20)
		for at := r.from; at < r.to; at += int64(len(b)) {
			part := b[:min(int64(len(b)), r.to-at)]
			if _, err := d.ReadAt(part, at); err != nil {
				return fmt.Errorf("look at the device: %w", err)
			}
			if !bytes.Equal(part, zeros[:len(part)]) {
				return fault.Newf(fault.VolumeNotEmpty, "there is something on the device, near %d bytes", at)
			}
		}
	}
	return nil
}

type span struct{ from, to int64 }

// ends are the start and the end of a device.
func ends(size int64) []span {
	if size <= head+tail {
		return []span{{0, size}}
	}
	return []span{{0, head}, {size - tail, size}}
}

// wipe makes the device empty again, unless the volume is to be kept.
func (up *volume) wipe(context.Context) error {
	if up.keep {
		return nil
	}
	up.disk.Discard() // gives the host its space back, where it can
	zeros := make([]byte, 1<<20)
	for _, r := range ends(up.disk.Size()) {
		for at := r.from; at < r.to; at += int64(len(zeros)) {
			if _, err := up.disk.WriteAt(zeros[:min(int64(len(zeros)), r.to-at)], at); err != nil {
				return fmt.Errorf("wipe the device: %w", err)
			}
		}
	}
	return up.disk.Flush()
}

// mapAll makes the mappings, the upper over the lower.
func (up *volume) mapAll(ctx context.Context, format bool, key secret.Bytes) error {
	device := up.disk.Number()
	if up.layout.integrity {
		if format {
			if err := up.formatIntegrity(ctx); err != nil {
				return err
			}
		}
		var err error
		if device, err = up.mapIntegrity(); err != nil {
			return err
		}
	} else {
		up.sectors = up.disk.Size() / int64(up.layout.sector) * int64(up.layout.sector) / dm.SectorSize
	}
	if err := up.disk.Flush(); err != nil { // the kernel reads past this handle's cache
		return err
	}
	if _, err := up.kernel.mapDevice(up.name, cryptTarget(device, up.name, up.layout, up.sectors), key); err != nil {
		return err
	}
	up.mapped = true
	up.push(func(ctx context.Context) error { return up.kernel.unmapDevice(ctx, up.name) })
	return nil
}

func (up *volume) lower() string { return up.name + "-integrity" }

// formatIntegrity lets the kernel write the superblock: where it finds zeros and
// is asked for one block only, it does (Linux, dm-integrity.rst).
func (up *volume) formatIntegrity(ctx context.Context) error {
	if _, err := up.disk.WriteAt(make([]byte, superblock), up.layout.offset); err != nil {
		return fmt.Errorf("make room for integrity data: %w", err)
	}
	if err := up.disk.Flush(); err != nil {
		return err
	}
	one := integrityTarget(up.disk.Number(), up.layout, int64(up.layout.sector/dm.SectorSize))
	if _, err := up.kernel.mapDevice(up.lower(), one, secret.Bytes{}); err != nil {
		return err
	}
	before := len(up.undos)
	up.push(func(ctx context.Context) error { return up.kernel.unmapDevice(ctx, up.lower()) })
	if err := up.undoAbove(ctx, before); err != nil {
		return err
	}
	return up.disk.Flush()
}

func (up *volume) mapIntegrity() (node string, err error) {
	b := make([]byte, superblock)
	if _, err := up.disk.ReadAt(b, up.layout.offset); err != nil {
		return "", fmt.Errorf("read the integrity data: %w", err)
	}
	if up.sectors, err = provided(b, up.layout, up.disk.Size()); err != nil {
		return "", err
	}
	target := integrityTarget(up.disk.Number(), up.layout, up.sectors)
	if node, err = up.kernel.mapDevice(up.lower(), target, secret.Bytes{}); err != nil {
		return "", err
	}
	up.push(func(ctx context.Context) error { return up.kernel.unmapDevice(ctx, up.lower()) })
	return node, nil
}

// place formats the mapping if it is new, and shows it at the mount point.
func (up *volume) place(ctx context.Context, v Volume, dir *os.File) error {
	node := up.kernel.node(up.name)
	if v.Filesystem == NoFilesystem {
		if v.Format { // else no program could even look whether something is there
			if err := up.kernel.zero(node); err != nil {
				return err
			}
		}
		if err := up.kernel.link(node, v.MountPoint); err != nil {
			return err
		}
		up.push(func(context.Context) error { return up.kernel.unlink(v.MountPoint) })
		return nil
	}
	if v.Format {
		args, err := v.Filesystem.arguments(v.MkfsOptions, v.Integrity)
		if err != nil {
			return err
		}
		if err := up.kernel.zero(node); err != nil {
			return err
		}
		if err := up.kernel.run(ctx, v.Filesystem.program(), append(args, node)...); err != nil {
			return err
		}
	}
	if err := up.kernel.mount(node, dir, string(v.Filesystem), v.MountFlags); err != nil {
		return err
	}
	up.push(func(context.Context) error { return up.kernel.unmount(v.MountPoint) })
	return nil
}

func (up *volume) push(undo func(context.Context) error) { up.undos = append(up.undos, undo) }

// bringDown undoes every step, the last first, and stops at the first that
// fails, because those below depend on it. It may be called again.
func (up *volume) bringDown(ctx context.Context) error { return up.undoAbove(ctx, 0) }

func (up *volume) undoAbove(ctx context.Context, keep int) error {
	for len(up.undos) > keep {
		last := len(up.undos) - 1
		if err := up.undos[last](ctx); err != nil {
			return err
		}
		up.undos = up.undos[:last]
	}
	return nil
}

// revoke drops the key, whoever has files open.
func (up *volume) revoke(context.Context) error {
	if !up.mapped {
		return nil
	}
	if err := up.kernel.failDevice(up.name, up.sectors); err != nil {
		return err
	}
	up.mapped = false
	return nil
}
