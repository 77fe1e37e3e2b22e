package sandbox

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

// A root of layers is several storages with one mount point: disks with an EROFS
// image each, the uppermost first, which dm-verity checks, and one that is meant
// for what the container writes (kata-agent 2.10, erofs.multi-layer).
//
// The last one is not used as the host offers it. What lies on it would cover the
// files of the layers, and the host can change it at any time. What the container
// writes lies in the guest's memory, or on that disk under a random key where the
// host asks for it with the driver option encryption_key=ephemeral.

const (
	optionLayers = "multi-layer"
	optionUpper  = "overlay-upper"
	optionLower  = "overlay-lower"
	optionMkdir  = "mkdir.path"

	driverLayers = "erofs.multi-layer"

	layersDir = "layers" // in a bundle
	maxLayers = 500      // of an overlay (Linux, OVL_MAX_STACK)
)

// isLayer says whether a storage is part of a root of layers.
func isLayer(st *agent.Storage) bool {
	own, _ := kataOptions(st.GetOptions())
	return slices.Contains(own[optionLayers], "true") || st.GetDriver() == driverLayers
}

// layers is such a root, taken apart.
type layers struct {
	lower []disk
	upper *disk // nil for the guest's memory
	mkdir []string
}

func parseLayers(list []*agent.Storage) (layers, error) {
	var l layers
	writable := 0
	for _, st := range list {
		own, rest := kataOptions(st.GetOptions())
		if st.GetMountPoint() != list[0].GetMountPoint() {
			return l, invalidf("layers of one root have several mount points")
		}
		if st.GetDriver() == driverLayers {
			return l, invalidf("driver %q does not say where its disk is", driverLayers)
		}
		d, err := parseDisk(st, own, rest)
		if err != nil {
			return l, err
		}
		upper, lower := len(own[optionUpper]) > 0, len(own[optionLower]) > 0
		switch {
		case upper == lower:
			return l, invalidf("a layer must be one of the upper and the lower ones")
		case upper:
			writable++
			l.mkdir = append(l.mkdir, own[optionMkdir]...)
			if d.encrypted {
				l.upper = &d
			}
		case d.fstype != "erofs" || d.encrypted || d.create:
			return l, invalidf("a lower layer is an EROFS image as it is")
		default:
			l.lower = append(l.lower, d)
		}
	}
	if writable != 1 || len(l.lower) == 0 || len(l.lower) > maxLayers {
		return l, invalidf("a root of %d layers, and %d to write to", len(l.lower), writable)
	}
	return l, nil
}

// identity names the content that is believed: by root hashes, if all layers are
// checked.
func (l layers) identity() string {
	var hashes []string
	for _, d := range l.lower {
		if d.verity == nil {
			return ""
		}
		hashes = append(hashes, hex.EncodeToString(d.verity.root))
	}
	return "verity:" + strings.Join(hashes, ",")
}

// stack mounts the layers of an owner's root.
func (s *Sandbox) stack(ctx context.Context, owner string, t target, l layers) (_ undo, err error) {
	var undos []undo
	all := func(ctx context.Context) error {
		for len(undos) > 0 {
			if err := undos[len(undos)-1](ctx); err != nil {
				return err // what is above must go first: to be tried again
			}
			undos = undos[:len(undos)-1]
		}
		return nil
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, all(context.WithoutCancel(ctx)))
		}
	}()
	base := filepath.Join(owner, layersDir)
	if err := s.root.Mkdir(base, 0o700); err != nil {
		return nil, err
	}
	undos = append(undos, func(context.Context) error { return s.root.Remove(base) })

	writable, release, err := s.writable(ctx, filepath.Join(base, "rw"), l)
	if err != nil {
		return nil, err
	}
	undos = append(undos, release)
	data := []string{"upperdir=" + filepath.Join(writable, "upper"), "workdir=" + filepath.Join(writable, "work")}

	var lower []string
	for i, d := range l.lower {
		rel := filepath.Join(base, strconv.Itoa(i))
		release, err := s.layer(ctx, rel, d)
		if err != nil {
			return nil, fmt.Errorf("layer %d: %w", i, err)
		}
		undos = append(undos, release)
		lower = append(lower, filepath.Join(s.dir, rel))
	}
	release, err = s.overlay(t, lower, data)
	if err != nil {
		return nil, err
	}
	undos = append(undos, release)
	return all, nil
}

// layer mounts one lower layer in the bundle.
func (s *Sandbox) layer(ctx context.Context, rel string, d disk) (undo, error) {
	if err := s.root.Mkdir(rel, 0o755); err != nil {
		return nil, err
	}
	t := target{s: s, rel: rel, own: true}
	release, err := s.block(ctx, t, d)
	if err != nil {
		t.remove()
		return nil, err
	}
	return release, nil
}

// writable makes the place for what a container writes.
func (s *Sandbox) writable(ctx context.Context, rel string, l layers) (path string, _ undo, err error) {
	t := target{s: s, rel: rel, own: true}
	dir, err := t.open()
	if err != nil {
		return "", nil, err
	}
	defer func() { _ = dir.Close() }()
	var release undo
	if l.upper != nil {
		release, err = s.mountDisk(ctx, t, *l.upper, dir)
	} else {
		var at string
		if at, err = mountOn(dir, "tmpfs", "tmpfs", unix.MS_NODEV, "mode=0755"); err == nil {
			release = t.unmounter(at)
		}
	}
	if err != nil {
		t.remove()
		return "", nil, err
	}
	if err := s.makeDirs(rel, l.mkdir); err != nil {
		return "", nil, errors.Join(err, release(context.WithoutCancel(ctx)))
	}
	return filepath.Join(s.dir, rel), release, nil
}

// makeDirs makes the directories of an overlay, and those that the runtime wants
// beside them: "{{ mount 0 }}/NAME[:MODE]", where mount 0 is the writable place.
func (s *Sandbox) makeDirs(rel string, wanted []string) error {
	root, err := s.root.OpenRoot(rel)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	names := []string{"upper", "work"}
	for _, w := range wanted {
		name, ok := strings.CutPrefix(strings.SplitN(w, ":", 2)[0], "{{ mount 0 }}/")
		if !ok || !filepath.IsLocal(name) {
			return invalidf("directory %.128q is not in the writable layer", w)
		}
		names = append(names, name)
	}
	for _, name := range names {
		if err := root.MkdirAll(name, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// overlay mounts directories of the agent's over one another.
func (s *Sandbox) overlay(t target, lower, data []string) (undo, error) {
	dir, err := t.open()
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }()
	data = append(slices.Clone(data), "lowerdir="+strings.Join(lower, ":"))
	text := strings.Join(data, ",")
	if len(text) >= os.Getpagesize() {
		return nil, invalidf("%d layers are too many for one mount", len(lower))
	}
	path, err := mountOn(dir, "overlay", "overlay", unix.MS_NODEV, text)
	if err != nil {
		return nil, err
	}
	return t.unmounter(path), nil
}
