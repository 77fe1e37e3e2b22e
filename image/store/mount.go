package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	upperDir   = "upper"
	workDir    = "work"
	holderFile = "mount.json"

	sourcePrefix = "vouchsafe-" // of what mount tables say; the ID follows

	// MaxLayers is what the kernel stacks in one overlay (OVL_MAX_STACK).
	MaxLayers = 500
)

// A Mount is an overlay of layers. It holds references to them.
type Mount struct {
	store    *Store
	id       string
	target   string
	layers   []string
	readOnly bool

	mu   sync.Mutex
	gone bool // unmounted, and no layer held any more
}

// holder is what mounts/ID/mount.json says. It only keeps layers from being
// removed under a live mount; nothing is believed of their content for it.
type holder struct {
	Target   string   `json:"target"`
	Layers   []string `json:"layers"`
	ReadOnly bool     `json:"read_only,omitempty"`
}

// Mount mounts the layers (the lowest first) at target with an empty writable
// directory on top. The target is made if it is missing. Nothing is left
// behind on an error.
func (s *Store) Mount(layers []*Layer, target string) (*Mount, error) {
	return s.mountAt(layers, target, false)
}

// MountReadOnly mounts the layers at target so that nothing can be written.
func (s *Store) MountReadOnly(layers []*Layer, target string) (*Mount, error) {
	return s.mountAt(layers, target, true)
}

func (s *Store) mountAt(layers []*Layer, target string, readOnly bool) (*Mount, error) {
	if len(layers) == 0 || len(layers) > MaxLayers {
		return nil, fmt.Errorf("an overlay of %d layers: 1 to %d are possible", len(layers), MaxLayers)
	}
	target, err := filepath.Abs(target)
	if err != nil {
		return nil, err
	}
	m := &Mount{store: s, target: target, readOnly: readOnly}
	if err := m.hold(layers); err != nil {
		return nil, err
	}
	err = m.prepare()
	if err == nil {
		made := os.Mkdir(target, 0o755) == nil
		if err = m.mount(); err != nil && made {
			_ = os.Remove(target)
		}
	}
	if err != nil {
		m.loosen()
		return nil, errors.Join(err, m.remove())
	}
	return m, nil
}

// hold takes a reference to each layer, all or none.
func (m *Mount) hold(layers []*Layer) error {
	s := m.store
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range layers {
		if s.layers[l.name] == nil {
			return fmt.Errorf("layer %s was released and removed", l.name)
		}
	}
	for _, l := range layers {
		s.hold(l.name)
		m.layers = append(m.layers, l.name)
	}
	return nil
}

func (m *Mount) loosen() {
	m.store.mu.Lock()
	defer m.store.mu.Unlock()
	for _, n := range m.layers {
		m.store.loosen(n)
	}
}

func (m *Mount) path(name string) string { return m.store.path(mountsDir, m.id, name) }

// prepare writes the holder before anything can be mounted.
func (m *Mount) prepare() error {
	dir, err := os.MkdirTemp(m.store.path(mountsDir), "")
	if err != nil {
		return err
	}
	m.id = filepath.Base(dir)
	raw, err := json.Marshal(holder{Target: m.target, Layers: m.layers, ReadOnly: m.readOnly})
	if err != nil {
		return err
	}
	if err := os.WriteFile(m.path(holderFile), raw, 0o600); err != nil {
		return err
	}
	if err := os.Mkdir(m.path(workDir), 0o700); err != nil {
		return err
	}
	if err := os.Mkdir(m.path(upperDir), 0o700); err != nil {
		return err
	}
	return m.describeImplied()
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
		if opaque(m.store.path(layersDir, name, fsDir)) {
			break
		}
	}
	return list
}

// mount mounts the overlay. The store is named through its descriptor, which
// keeps every option short.
func (m *Mount) mount() error {
	base := fmt.Sprintf("/proc/self/fd/%d", m.store.root.Fd())
	o := overlay{target: m.target, source: sourcePrefix + m.id}
	for _, name := range m.lowers() {
		o.lowers = append(o.lowers, filepath.Join(base, layersDir, name, fsDir))
	}
	top := filepath.Join(base, mountsDir, m.id, upperDir)
	if !m.readOnly {
		o.upper, o.work = top, filepath.Join(base, mountsDir, m.id, workDir)
	} else if names, err := os.ReadDir(top); err != nil {
		return err
	} else if len(names) > 0 || len(o.lowers) == 1 { // what it describes, or because one layer is no overlay
		o.lowers = slices.Insert(o.lowers, 0, top)
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
// the layers. While the mount is busy it fails and changes nothing. If it is
// unmounted already, by whomever, it does the rest; also when it is called again
// because that failed.
func (m *Mount) Unmount() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.gone {
		if err := m.detach(); err != nil {
			return err
		}
		m.gone = true
		m.loosen()
	}
	m.store.keepWithin()
	return m.remove()
}

// detach unmounts. Something else may be mounted over the target: then what
// lies below must not be removed.
func (m *Mount) detach() error {
	if !mounted(m.id) {
		return nil
	}
	if err := unix.Unmount(m.target, unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("unmount %s: %w", m.target, err)
	}
	if mounted(m.id) {
		return fmt.Errorf("unmount %s: something else was mounted over it, or it is mounted elsewhere too", m.target)
	}
	return nil
}

func (m *Mount) remove() error {
	if m.id == "" {
		return nil
	}
	return destroy(m.store.path(mountsDir, m.id))
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
			if err := destroy(s.path(mountsDir, e.Name())); err != nil {
				return err
			}
			continue
		}
		m := &Mount{store: s, id: e.Name(), target: h.Target, readOnly: h.ReadOnly}
		for _, n := range h.Layers {
			if s.layers[n] == nil {
				if s.layers[n], err = s.readLayer(n); err != nil {
					delete(s.layers, n)
					continue // it is not there: nothing to hold
				}
			}
			s.hold(n)
			m.layers = append(m.layers, n)
		}
		s.recovered = append(s.recovered, m)
	}
	return nil
}

// Recovered returns the mounts that an earlier process left and that were live
// when the store was opened. Their layers are held until they are unmounted.
func (s *Store) Recovered() []*Mount { return slices.Clone(s.recovered) }

// anyLive reports whether a mount of this store is live, or that it cannot be
// known.
func (s *Store) anyLive() bool {
	entries, err := os.ReadDir(s.path(mountsDir))
	if err != nil {
		return !errors.Is(err, os.ErrNotExist)
	}
	return slices.ContainsFunc(entries, func(e os.DirEntry) bool { return mounted(e.Name()) })
}

// live reports whether the holder's overlay is mounted.
func (s *Store) live(id string) (holder, bool) {
	var h holder
	raw, err := os.ReadFile(s.path(mountsDir, id, holderFile))
	if err != nil || json.Unmarshal(raw, &h) != nil {
		return h, false
	}
	return h, mounted(id)
}

// mounted looks for an overlay mount with the ID, which is random and not used
// twice, as its source.
func mounted(id string) bool {
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return true // better keep too much than pull a layer from under a container
	}
	return strings.Contains(string(raw), " - overlay "+sourcePrefix+id+" ")
}
