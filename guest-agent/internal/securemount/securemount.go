// Package securemount mounts block devices of the host so that what is on them
// is encrypted and cannot be altered unnoticed: the confidential-data-hub's
// SecureMount (guest-protocol 13), Kata's encrypted emptyDir (kata-agent 2.10),
// and the scratch disk of images.
//
// An ephemeral volume has a random key that nobody but the kernel ever holds,
// and no header. A persistent one has a LUKS2 header, see package luks2, and a
// key that the broker releases. Both lie on the same two layers of
// device-mapper: dm-integrity keeps a tag for each sector, dm-crypt encrypts it
// and computes the tag (AES-256-XTS and HMAC-SHA-256, over the sector's number
// too). A sector that the host altered or moved reads as an I/O error. One that
// it put back to an older state does not: see ADR 37.
//
// Device-mapper is used by ioctls, without cryptsetup, so that keys go from our
// memory into the kernel's keyring and nowhere else. The only programs that are
// called are [Programs].
//
// A Mounter is safe for concurrent use. It holds no lock while it waits for the
// broker, a device or a program. A mount that fails leaves no mapping, no mount
// and no key; what it had begun to write to an empty device is wiped.
package securemount

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// Programs are what a guest's image must have for volumes, by the names under
// which they are looked for: e2fsprogs, and xfsprogs if XFS is wanted. The
// kernel needs dm-crypt, dm-integrity, authenc, hmac, sha256, xts and aes.
func Programs() []string { return []string{Ext4.program(), XFS.program()} }

// Keys find the keys of persistent volumes. internal/hub does.
type Keys interface {
	Resource(ctx context.Context, uri string) (secret.Bytes, error)
	Unseal(ctx context.Context, text string) (secret.Bytes, error)
}

// Config is what a Mounter works with.
type Config struct {
	// Keys may be nil: then only ephemeral volumes can be had.
	Keys Keys
	// Refuse gives an error of a volume that was to be mounted somewhere a ticket;
	// nil leaves it without.
	Refuse func(ctx context.Context, mountPoint string, err error) error
	// Logger gets no names of devices' contents, keys or options. Nil discards.
	Logger *slog.Logger

	kernel kernel // nil for the real one
}

// A Mounter knows the volumes that it mounted.
type Mounter struct {
	keys   Keys
	kernel kernel
	refuse func(ctx context.Context, mountPoint string, err error) error
	log    *slog.Logger

	mu     sync.Mutex
	closed bool
	mounts map[string]*mounted // by mount point
}

// mounted is one entry. Its volume is set when it stands; while busy somebody
// brings it up or down.
type mounted struct {
	busy   bool
	volume *volume
}

// New returns a Mounter.
func New(cfg Config) *Mounter {
	m := &Mounter{keys: cfg.Keys, kernel: cfg.kernel, refuse: cfg.Refuse, log: cfg.Logger, mounts: map[string]*mounted{}}
	if m.refuse == nil {
		m.refuse = func(_ context.Context, _ string, err error) error { return err }
	}
	if m.kernel == nil {
		m.kernel = linux{}
	}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	return m
}

// SecureMount mounts what a SecureMountRequest asks for (guest-protocol 13),
// see [Parse] and [Mounter.Mount].
func (m *Mounter) SecureMount(ctx context.Context, volumeType string, options map[string]string, flags []string, mountPoint string) error {
	v, err := Parse(volumeType, options, flags, mountPoint)
	if err != nil {
		return m.refused(ctx, mountPoint, err)
	}
	return m.Mount(ctx, v)
}

// Mount opens a volume and mounts it at its mount point, which must be an
// existing directory and no symbolic link, or, for the target device, not exist.
// Errors are *fault.Fault. Should even the way back fail, the volume stays in the
// list until Unmount succeeds.
func (m *Mounter) Mount(ctx context.Context, v Volume) error {
	if v.Filesystem == NoFilesystem {
		return m.refused(ctx, v.MountPoint, m.add(ctx, v, nil))
	}
	dir, err := os.OpenFile(v.MountPoint, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return m.refused(ctx, v.MountPoint, fault.New(fault.InvalidRequest, fmt.Errorf("the mount point: %w", err)))
	}
	defer func() { _ = dir.Close() }()
	return m.refused(ctx, v.MountPoint, m.add(ctx, v, dir))
}

// MountOn is Mount for a directory that is already open, so that no symbolic
// link can lead elsewhere. Where that lies counts instead of v.MountPoint, and
// is what Unmount takes.
func (m *Mounter) MountOn(ctx context.Context, v Volume, dir *os.File) (path string, err error) {
	if path, err = os.Readlink(fdPath(dir)); err != nil {
		return "", m.refused(ctx, "", err)
	}
	v.MountPoint = path
	return path, m.refused(ctx, path, m.add(ctx, v, dir))
}

func (m *Mounter) add(ctx context.Context, v Volume, dir *os.File) error {
	if err := v.check(); err != nil {
		return err
	}
	e, err := m.reserve(v.MountPoint)
	if err != nil {
		return err
	}
	up, err := m.bringUp(ctx, v, dir)
	if err == nil {
		err = m.stand(e, up)
	}
	if errors.Is(err, errEnding) { // nobody would take it away
		if undone := up.bringDown(context.WithoutCancel(ctx)); undone == nil {
			up = nil
		} else {
			err = errors.Join(err, undone)
		}
	}
	if err != nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		e.busy, e.volume = false, up
		if up == nil {
			delete(m.mounts, v.MountPoint)
		}
		return err
	}
	m.log.Info("volume mounted", slog.Bool("ephemeral", v.Key == ""), slog.Bool("integrity", v.Integrity))
	return nil
}

var errEnding = errors.New("the guest is ending")

// stand enters a volume, unless Close has looked for volumes meanwhile.
func (m *Mounter) stand(e *mounted, up *volume) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return fault.New(fault.Unavailable, errEnding)
	}
	e.busy, e.volume = false, up
	return nil
}

// reserve keeps others from the same mount point while one is at it.
func (m *Mounter) reserve(path string) (*mounted, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, fault.New(fault.Unavailable, errEnding)
	}
	if _, taken := m.mounts[path]; taken {
		return nil, fault.New(fault.VolumeBusy, fmt.Errorf("there is a volume at %s", path))
	}
	e := &mounted{busy: true}
	m.mounts[path] = e
	return e, nil
}

// Unmount takes a volume away: the mount, the mappings and with them the key. An
// ephemeral one is wiped. When it fails, for example because a file is open, it
// may be tried again. Errors are *fault.Fault.
func (m *Mounter) Unmount(ctx context.Context, mountPoint string) error {
	e, err := m.take(mountPoint)
	if err != nil {
		return m.refused(ctx, mountPoint, err)
	}
	err = e.volume.bringDown(ctx)
	m.mu.Lock()
	e.busy = false
	if err == nil {
		delete(m.mounts, mountPoint)
	}
	m.mu.Unlock()
	return m.refused(ctx, mountPoint, err)
}

func (m *Mounter) take(mountPoint string) (*mounted, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.mounts[mountPoint]
	switch {
	case !ok:
		return nil, fault.New(fault.NotFound, fmt.Errorf("there is no volume at %s", mountPoint))
	case e.busy:
		return nil, fault.New(fault.VolumeBusy, fmt.Errorf("the volume at %s is being mounted or unmounted", mountPoint))
	}
	e.busy = true
	return e, nil
}

// Mounted is a volume that stands.
type Mounted struct {
	MountPoint string
	// Key is where its key came from; empty for an ephemeral volume.
	Key string
	// Lent says that the key came from outside the guest.
	Lent bool
}

// List returns the volumes that stand, by mount point.
func (m *Mounter) List() []Mounted {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []Mounted
	for path, e := range m.mounts {
		if e.volume != nil {
			all = append(all, Mounted{path, e.volume.key, e.volume.lent()})
		}
	}
	slices.SortFunc(all, func(a, b Mounted) int { return strings.Compare(a.MountPoint, b.MountPoint) })
	return all
}

// AskAgain asks for the key of a volume as Mount did, and says what came of it;
// the key itself is not looked at. An ephemeral volume was lent by nobody, and
// neither was a key of the guest's own files. Errors are *fault.Fault, with no
// ticket of the volume's.
func (m *Mounter) AskAgain(ctx context.Context, mountPoint string) error {
	v := m.standing(mountPoint)
	if v == nil {
		return fault.New(fault.NotFound, fmt.Errorf("there is no volume at %s", mountPoint))
	}
	if !v.lent() {
		return nil
	}
	key, err := m.findKey(ctx, v.key)
	key.Destroy()
	return err
}

// standing returns nil if no volume stands there.
func (m *Mounter) standing(mountPoint string) *volume {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e, ok := m.mounts[mountPoint]; ok {
		return e.volume
	}
	return nil
}

// Revoke makes a volume unusable at once, also for those who have files of it
// open: the key is dropped, and what is read or written fails from then on. It
// is for a key that the owner takes back. The mount stays until Unmount.
func (m *Mounter) Revoke(ctx context.Context, mountPoint string) error {
	e, err := m.take(mountPoint)
	if err != nil {
		return m.refused(ctx, mountPoint, err)
	}
	err = e.volume.revoke(ctx)
	m.mu.Lock()
	e.busy = false
	m.mu.Unlock()
	return m.refused(ctx, mountPoint, err)
}

// Close unmounts all volumes, the last first, and mounts no more. It may be
// called again for those that could not be unmounted.
func (m *Mounter) Close(ctx context.Context) error {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	var errs []error
	for _, v := range slices.Backward(m.List()) {
		errs = append(errs, m.Unmount(ctx, v.MountPoint))
	}
	return errors.Join(errs...)
}

// refused gives an error a code, if it has none, and a ticket.
func (m *Mounter) refused(ctx context.Context, mountPoint string, err error) error {
	if err == nil {
		return nil
	}
	return m.refuse(ctx, mountPoint, coded(err))
}

func coded(err error) error {
	if _, is := errors.AsType[*fault.Fault](err); is {
		return err
	}
	code := fault.Internal
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		code = fault.Unavailable
	case errors.Is(err, unix.EBUSY):
		code = fault.VolumeBusy
	}
	return fault.New(code, err)
}
