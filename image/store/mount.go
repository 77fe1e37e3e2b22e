package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/image/unpack"
)

const (
	upperDir   = "upper"
	workDir    = "work"
	holderFile = "mount.json"

	// MaxLayers is what the kernel stacks in one overlay (OVL_MAX_STACK).
	MaxLayers = 500
)

// A Mount is a writable overlay of layers. It holds references to them.
type Mount struct {
	store  *Store
	id     string
	target string
	layers []string
}

// holder is what mounts/ID/mount.json says. It only keeps layers from being
// removed under a live mount; nothing is believed of their content for it.
type holder struct {
	Target string   `json:"target"`
	Layers []string `json:"layers"`
}

// Mount mounts the layers (the lowest first) at target with an empty writable
// directory on top. The target is made if it is missing. Nothing is left
// behind on an error.
func (s *Store) Mount(layers []*Layer, target string) (*Mount, error) {
	if len(layers) == 0 || len(layers) > MaxLayers {
		return nil, fmt.Errorf("an overlay of %d layers: 1 to %d are possible", len(layers), MaxLayers)
	}
	target, err := filepath.Abs(target)
	if err != nil {
		return nil, err
	}
	m := &Mount{store: s, target: target}
	for _, l := range layers {
		m.layers = append(m.layers, l.name)
	}
	if err := m.prepare(); err != nil {
		return nil, errors.Join(err, m.remove())
	}
	made := os.Mkdir(target, 0o755) == nil
	if err := m.mount(); err != nil {
		if made {
			_ = os.Remove(target)
		}
		return nil, errors.Join(err, m.remove())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range m.layers {
		s.refs[n]++
	}
	return m, nil
}

func (m *Mount) path(name string) string { return m.store.path(mountsDir, m.id, name) }

// prepare writes the holder before anything can be mounted.
func (m *Mount) prepare() error {
	dir, err := os.MkdirTemp(m.store.path(mountsDir), "")
	if err != nil {
		return err
	}
	m.id = filepath.Base(dir)
	raw, err := json.Marshal(holder{Target: m.target, Layers: m.layers})
	if err != nil {
		return err
	}
	if err := os.WriteFile(m.path(holderFile), raw, 0o600); err != nil {
		return err
	}
	if err := os.Mkdir(m.path(workDir), 0o700); err != nil {
		return err
	}
	return m.makeUpper()
}

// makeUpper gives the writable root the owner and mode of the image's root:
// overlayfs shows those of the topmost directory.
func (m *Mount) makeUpper() error {
	var st unix.Stat_t
	if err := unix.Stat(m.store.path(layersDir, m.layers[len(m.layers)-1], fsDir), &st); err != nil {
		return err
	}
	if err := os.Mkdir(m.path(upperDir), 0o700); err != nil {
		return err
	}
	if err := os.Lchown(m.path(upperDir), int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	return unix.Chmod(m.path(upperDir), st.Mode&0o7777)
}

// lowers returns the layers that overlayfs gets, the topmost first. An opaque
// root hides all layers below it, which overlayfs does not see by itself. A
// layer that occurs twice is hidden by itself; overlayfs refuses it.
func (m *Mount) lowers() []string {
	var list []string
	for _, name := range slices.Backward(m.layers) {
		if slices.Contains(list, name) {
			continue
		}
		list = append(list, name)
		var v [1]byte
		n, err := unix.Lgetxattr(m.store.path(layersDir, name, fsDir), unpack.XattrOpaque, v[:])
		if err == nil && n == 1 && v[0] == 'y' {
			break
		}
	}
	return list
}

// mount mounts the overlay. The store is named through its descriptor, which
// keeps every option short.
func (m *Mount) mount() error {
	base := fmt.Sprintf("/proc/self/fd/%d", m.store.root.Fd())
	o := overlay{
		upper:  filepath.Join(base, mountsDir, m.id, upperDir),
		work:   filepath.Join(base, mountsDir, m.id, workDir),
		target: m.target,
	}
	for _, name := range m.lowers() {
		o.lowers = append(o.lowers, filepath.Join(base, layersDir, name, fsDir))
	}
	err := o.mountByOption()
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		// A kernel before 6.7 does not know one option per layer.
		if legacy := o.mountByPage(m.path("")); legacy != nil {
			return errors.Join(err, legacy)
		}
		return nil
	}
	return err
}

// Target returns where the overlay is mounted.
func (m *Mount) Target() string { return m.target }

// Unmount unmounts the overlay, removes what was written to it and gives up
// the layers. While the mount is busy it fails and changes nothing.
func (m *Mount) Unmount() error {
	if err := unix.Unmount(m.target, unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("unmount %s: %w", m.target, err)
	}
	s := m.store
	s.mu.Lock()
	for _, n := range m.layers {
		if s.refs[n]--; s.refs[n] <= 0 {
			delete(s.refs, n)
		}
	}
	s.mu.Unlock()
	return m.remove()
}

func (m *Mount) remove() error {
	if m.id == "" {
		return nil
	}
	return os.RemoveAll(m.store.path(mountsDir, m.id))
}

// recoverMounts counts the layers of mounts that are still live and removes
// the rest of mounts/. A layer of another boot cannot be under a live mount.
func (s *Store) recoverMounts() error {
	entries, err := os.ReadDir(s.path(mountsDir))
	if err != nil {
		return err
	}
	for _, e := range entries {
		h, live := s.live(e.Name())
		if !live {
			if err := os.RemoveAll(s.path(mountsDir, e.Name())); err != nil {
				return err
			}
			continue
		}
		for _, n := range h.Layers {
			s.refs[n]++
		}
		s.recovered = append(s.recovered, &Mount{store: s, id: e.Name(), target: h.Target, layers: h.Layers})
	}
	return nil
}

// Recovered returns the mounts that an earlier process left and that were live
// when the store was opened. Their layers are held until they are unmounted.
func (s *Store) Recovered() []*Mount { return slices.Clone(s.recovered) }

// live reports whether an overlay is mounted over the holder's target.
func (s *Store) live(id string) (holder, bool) {
	var h holder
	raw, err := os.ReadFile(s.path(mountsDir, id, holderFile))
	if err != nil || json.Unmarshal(raw, &h) != nil {
		return h, false
	}
	return h, mountedWith(filepath.Join(mountsDir, id, upperDir))
}

// mountedWith looks for an overlay mount whose options name the upper
// directory of one mount; the ID in it is random and not used twice.
func mountedWith(upper string) bool {
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return true // better keep too much than pull a layer from under a container
	}
	for line := range strings.Lines(string(raw)) {
		if strings.Contains(line, " - overlay ") && strings.Contains(line, upper+",") {
			return true
		}
	}
	return false
}
