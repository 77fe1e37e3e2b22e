package sandbox

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/device"
)

// Storage drivers (kata-agent 2.10). Others are refused.
const (
	driverEphemeral = "ephemeral"
	driverLocal     = "local"
	driverBind      = "bind"
	driverGuestPull = "image_guest_pull"
	driverShare     = "virtio-fs"
)

// Drivers lists the storage drivers that the agent has.
func Drivers() []string {
	return append(device.Kinds(), driverEphemeral, driverLocal, driverBind, driverGuestPull, driverShare, driverLayers, driverOverlay, driverWatch)
}

// Foreign says whether the content of a storage is the host's, so that somebody
// must have allowed it.
func Foreign(st *agent.Storage) bool {
	return slices.Contains(device.Kinds(), st.GetDriver()) || st.GetDriver() == driverShare || isLayer(st)
}

// Volumes are the storages that one container, or the sandbox, uses.
type Volumes struct {
	s    *Sandbox
	held []*entry
	pods []*entry        // of those held: what lives as long as the pod
	made map[string]bool // places in the bundle that EmptyDir returned
	keys map[string]Key  // by mount point; each is taken out by its storage
	// Rootfs is the directory that a guest pull, or disks of the host's, have
	// filled; empty if the request had none.
	Rootfs string
	// Image is the digest of the manifest of the image in Rootfs, or "verity:" and
	// the root hashes of the disks that were allowed.
	Image string
	// Pause says that Rootfs holds the built-in pause program instead of an
	// image.
	Pause bool
}

// Prepare makes the storages of a request. If one fails, those before it are
// undone. The owner is a checked container id, or empty for the sandbox itself.
func (s *Sandbox) Prepare(ctx context.Context, owner string, list []*agent.Storage) (*Volumes, error) {
	return s.PrepareWith(ctx, owner, list, nil)
}

// PrepareWith is Prepare where disks hold volumes that are opened with keys, by
// the mount points of their storages as the request has them. A key that no disk
// of the request is for is an error: whoever has named it relies on it.
func (s *Sandbox) PrepareWith(ctx context.Context, owner string, list []*agent.Storage, keys map[string]Key) (*Volumes, error) {
	v := &Volumes{s: s, keys: maps.Clone(keys)}
	layered := 0
	for _, st := range list {
		var err error
		if isLayer(st) {
			if layered++; layered > 1 {
				continue // all together with the first
			}
			err = v.addLayers(ctx, owner, slices.DeleteFunc(slices.Clone(list), func(st *agent.Storage) bool { return !isLayer(st) }))
		} else {
			err = v.add(ctx, owner, st)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("storage %q: %w", st.GetMountPoint(), err), v.Release(context.WithoutCancel(ctx)))
		}
	}
	for at := range v.keys {
		return nil, errors.Join(invalidf("there is no disk for the volume that is mounted at %q", at), v.Release(context.WithoutCancel(ctx)))
	}
	return v, nil
}

func (v *Volumes) add(ctx context.Context, owner string, st *agent.Storage) error {
	rel, err := v.s.rel(st.GetMountPoint())
	if err != nil {
		return err
	}
	var mk func(context.Context) (undo, error)
	kind := st.GetDriver()
	switch kind {
	case driverEphemeral:
		mk = func(context.Context) (undo, error) { return v.s.ephemeral(rel, st) }
	case driverWatch:
		kind = identity(st, "")
		mk = func(context.Context) (undo, error) { return v.s.watch(v.s.target(owner, rel), st) }
	case driverLocal:
		mk = func(context.Context) (undo, error) { return v.s.local(rel, st) }
	case driverBind:
		kind = identity(st, "")
		mk = func(context.Context) (undo, error) { return v.s.bind(rel, st) }
	case driverGuestPull:
		if owner == "" || rel != filepath.Join(owner, "rootfs") || v.Rootfs != "" {
			return invalidf("an image's mount point must be the root of its own container")
		}
		pause, err := isPause(st)
		if err != nil {
			return err
		}
		v.Pause, v.Rootfs = pause, v.s.translate(st.GetMountPoint())
		mk = func(ctx context.Context) (release undo, err error) {
			v.Image, release, err = v.s.image(ctx, owner, pause, st.GetSource())
			return release, err
		}
	case driverShare:
		kind = identity(st, "")
		mk = func(context.Context) (undo, error) { return v.s.share(v.s.target(owner, rel), st) }
	case driverOverlay:
		kind = identity(st, "")
		if mk, err = v.overlay(owner, rel, st); err != nil {
			return err
		}
	default:
		kind = identity(st, v.keys[st.GetMountPoint()].Location)
		if mk, err = v.disk(owner, rel, st); err != nil {
			return err
		}
	}
	e, err := v.s.storages.acquire(ctx, rel, kind, mk)
	if err != nil {
		return err
	}
	v.held = append(v.held, e)
	if owner != "" && ofPod(st) {
		v.pods = append(v.pods, e)
	}
	return nil
}

// identity tells storages at one mount point apart whose content is not the agent's
// own: who names another source, other options (the root hash of dm-verity is one)
// or another key means another volume. It was judged as that, and gets no other.
func identity(st *agent.Storage, key string) string {
	h := sha256.New()
	for _, part := range slices.Concat([]string{st.GetSource(), st.GetFstype(), key}, st.GetOptions(), []string{""}, st.GetDriverOptions()) {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return fmt.Sprintf("%.64s %x", st.GetDriver(), h.Sum(nil)[:8])
}

// disk is a storage on a disk of the host's.
func (v *Volumes) disk(owner, rel string, st *agent.Storage) (func(context.Context) (undo, error), error) {
	if !slices.Contains(device.Kinds(), st.GetDriver()) {
		return nil, unsupported(st.GetDriver())
	}
	own, rest := kataOptions(st.GetOptions())
	d, err := parseDisk(st, own, rest)
	if err != nil {
		return nil, err
	}
	if key, ok := v.keys[st.GetMountPoint()]; ok {
		if d.encrypted || d.verity != nil || d.partition != 0 || d.o.data != "" {
			return nil, invalidf("a volume with a key of its owner's has no other options")
		}
		d.key, d.create = &key, false
		delete(v.keys, st.GetMountPoint())
	}
	t := v.s.target(owner, rel)
	if t.own {
		if err := v.root(st); err != nil {
			return nil, err
		}
		if d.verity != nil {
			v.Image = layers{lower: []disk{d}}.identity()
		}
	}
	return func(ctx context.Context) (undo, error) { return v.s.block(ctx, t, d) }, nil
}

func unsupported(driver string) error {
	switch driver {
	case "9p":
		return invalidf("storage driver \"9p\" is not supported: its client in the kernel was not written for hostile servers, and runtimes share by virtio-fs")
	case "blk-ccw":
		return invalidf("storage driver \"blk-ccw\" is not supported: it is for s390x, for which this agent is not built")
	}
	return invalidf("storage driver %.64q is not supported", driver)
}

// overlay lies over directories of other storages.
func (v *Volumes) overlay(owner, rel string, st *agent.Storage) (func(context.Context) (undo, error), error) {
	o, err := v.s.parseOverlay(st)
	if err != nil {
		return nil, err
	}
	t := v.s.target(owner, rel)
	if t.own {
		if err := v.root(st); err != nil {
			return nil, err
		}
	}
	return func(context.Context) (undo, error) { return v.s.overlayStorage(owner, t, o) }, nil
}

// root notes that a storage is the container's root, which can be one only.
func (v *Volumes) root(st *agent.Storage) error {
	if v.Rootfs != "" {
		return invalidf("a container has one root")
	}
	v.Rootfs = v.s.translate(st.GetMountPoint())
	return nil
}

// addLayers makes a root of several storages.
func (v *Volumes) addLayers(ctx context.Context, owner string, list []*agent.Storage) error {
	rel, err := v.s.rel(list[0].GetMountPoint())
	if err != nil {
		return err
	}
	l, err := parseLayers(list)
	if err != nil {
		return err
	}
	t := v.s.target(owner, rel)
	if owner == "" || !t.own && rel != filepath.Join(sharedDir, owner, "rootfs") {
		return invalidf("layers are mounted as the root of their own container alone")
	}
	if t.own {
		if err := v.root(list[0]); err != nil {
			return err
		}
	}
	v.Image = l.identity()
	e, err := v.s.storages.acquire(ctx, rel, driverLayers, func(ctx context.Context) (undo, error) { return v.s.stack(ctx, owner, t, l) })
	if err != nil {
		return err
	}
	v.held = append(v.held, e)
	return nil
}

// Release gives the storages up, the last first. What fails stays held, so that
// Release can be tried again.
func (v *Volumes) Release(ctx context.Context) error {
	var errs []error
	var left []*entry
	for _, e := range slices.Backward(v.held) {
		if err := v.s.storages.release(ctx, e); err != nil {
			errs = append(errs, err)
			left = append(left, e)
		}
	}
	slices.Reverse(left)
	v.held = left
	return errors.Join(errs...)
}

// group returns the group that a storage wants its files to have; its own field
// wins over the option.
func group(st *agent.Storage, o options) (int, error) {
	g := st.GetFsGroup()
	switch {
	case g == nil:
		return o.gid, nil
	case g.GetGroupId() > 1<<31-1:
		return -1, invalidf("%d is not a group id", g.GetGroupId())
	}
	return int(g.GetGroupId()), nil
}

// ephemeral mounts a tmpfs.
func (s *Sandbox) ephemeral(rel string, st *agent.Storage) (undo, error) {
	if st.GetFstype() == hugeFilesystem {
		return s.huge(rel, st)
	}
	if st.GetFstype() != "tmpfs" {
		return nil, invalidf("filesystem %q of an ephemeral storage is not supported", st.GetFstype())
	}
	o, err := parseOptions(st.GetOptions(), false)
	if err != nil {
		return nil, err
	}
	gid, err := group(st, o)
	if err != nil {
		return nil, err
	}
	dir, err := s.mountPoint(rel)
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }()
	path, err := mountOn(dir, "tmpfs", "tmpfs", o.flags, o.data)
	if err != nil {
		return nil, err
	}
	if err := own(path, gid); err != nil {
		return nil, errors.Join(err, unmount(path))
	}
	return s.unmounter(rel, path), nil
}

// bind makes a directory of the state directory visible in another place of it.
func (s *Sandbox) bind(rel string, st *agent.Storage) (undo, error) {
	from, err := s.rel(st.GetSource())
	if err != nil {
		return nil, err
	}
	o, err := parseOptions(st.GetOptions(), false)
	if err != nil {
		return nil, err
	}
	if o.data != "" {
		return nil, invalidf("options %q of a bind storage are not supported", o.data)
	}
	source, err := s.openFile(from)
	if err != nil {
		return nil, err
	}
	defer func() { _ = source.Close() }()
	dir, err := s.mountPoint(rel)
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }()
	path, err := mountOn(dir, fdPath(source), "", unix.MS_BIND|unix.MS_REC, "")
	if err != nil {
		return nil, err
	}
	if o.flags != 0 { // a bind mount takes its flags in a second step, and loses those of its source
		keep, err := lastingFlags(source)
		if err == nil {
			err = unix.Mount("", path, "", unix.MS_BIND|unix.MS_REMOUNT|o.flags|keep, "")
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("mount %s with its options: %w", path, err), unmount(path))
		}
	}
	return s.unmounter(rel, path), nil
}

// unmounter also removes the mount point if it is empty; other storages may lie
// beside it in the same parent.
func (s *Sandbox) unmounter(rel, path string) undo {
	return func(context.Context) error {
		if err := unmount(path); err != nil {
			return err
		}
		part, name, err := s.open(rel)
		if err != nil {
			return err
		}
		_ = part.Remove(name)
		return part.Close()
	}
}

// local makes a directory on the guest's own filesystem.
func (s *Sandbox) local(rel string, st *agent.Storage) (undo, error) {
	o, err := parseOptions(st.GetOptions(), true)
	if err != nil {
		return nil, err
	}
	gid, err := group(st, o)
	if err != nil {
		return nil, err
	}
	dir, err := s.mountPoint(rel)
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }()
	if o.mode == 0 {
		o.mode = 0o777
	}
	remove := func(context.Context) error {
		part, name, err := s.open(rel)
		if err != nil {
			return err
		}
		return errors.Join(part.RemoveAll(name), part.Close())
	}
	if err := errors.Join(dir.Chmod(o.mode), own(fdPath(dir), gid)); err != nil {
		return nil, errors.Join(err, remove(context.Background()))
	}
	return remove, nil
}

// bundle is the directory of a container.
func (s *Sandbox) bundle(id string) string { return filepath.Join(s.dir, id) }

// image fills the root of a container with an image, whose digest it returns, or
// with the pause program.
func (s *Sandbox) image(ctx context.Context, id string, pause bool, ref string) (string, undo, error) {
	bundle := s.bundle(id)
	if pause {
		release, err := pauseRoot(bundle, s.cfg.PauseBinary)
		return "", release, err
	}
	if s.cfg.Images == nil {
		return "", nil, errors.New("image pulls are not configured")
	}
	img, err := s.cfg.Images.PullImage(ctx, ref, bundle)
	if err != nil {
		return "", nil, err
	}
	release := func(ctx context.Context) error { return s.cfg.Images.ReleaseImage(ctx, bundle) }
	if want := filepath.Join(bundle, "rootfs"); img.Rootfs != want {
		return "", nil, errors.Join(fmt.Errorf("the image was mounted at %s, not at %s", img.Rootfs, want), release(ctx))
	}
	s.log.Info("image pulled", slog.String("container", id), slog.String("digest", img.Digest))
	return img.Digest, release, nil
}

// NewBundle makes the directory of a container. Its name is a checked id.
func (s *Sandbox) NewBundle(id string) (string, error) {
	if err := CheckID(id); err != nil {
		return "", err
	}
	path := s.bundle(id)
	if err := os.Mkdir(path, 0o711); err != nil {
		return "", fmt.Errorf("make the bundle: %w", err)
	}
	return path, nil
}

// RemoveBundle removes the directory of a container, and refuses while anything
// is mounted below it.
func (s *Sandbox) RemoveBundle(id string) error {
	if err := CheckID(id); err != nil {
		return err
	}
	path := s.bundle(id)
	mounts, err := mountsBelow(path)
	if err != nil {
		return err
	}
	if len(mounts) > 0 {
		return fmt.Errorf("bundle of %s is still in use: %d mounts", id, len(mounts))
	}
	return os.RemoveAll(path)
}
