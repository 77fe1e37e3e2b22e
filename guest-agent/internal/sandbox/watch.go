package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

// A watchable directory is one whose changes a container shall notice: a config
// map on a share, where the kernel tells nobody of the host's changes. What is
// small is copied into memory again and again; what is large is bound as it is
// (kata-agent 2.10).

const driverWatch = "watchable-bind"

const (
	watchEntries = 16
	watchBytes   = 1 << 20
	watchEvery   = 2 * time.Second
)

// errLarge says that a directory is not copied.
var errLarge = errors.New("more than a watched directory may hold")

// stamp is what tells one content of a file from another.
type stamp struct {
	size    int64
	mode    fs.FileMode
	changed time.Time
	link    string
}

// mirror copies a directory.
type mirror struct {
	from, to *os.Root
	seen     map[string]stamp // what was copied; others may have put things beside it
}

// watch mounts a directory in memory that follows another.
func (s *Sandbox) watch(t target, st *agent.Storage) (undo, error) {
	rel, err := s.rel(st.GetSource())
	if err != nil {
		return nil, err
	}
	part, name, err := s.open(rel)
	if err != nil {
		return nil, err
	}
	defer func() { _ = part.Close() }()
	from, err := part.OpenRoot(name)
	if err != nil {
		return s.bind(t.rel, st) // a file
	}
	m := &mirror{from: from, seen: map[string]stamp{}}
	if _, err := m.list(); errors.Is(err, errLarge) {
		_ = from.Close()
		return s.bind(t.rel, st)
	}
	dir, err := t.open()
	if err != nil {
		return nil, errors.Join(err, from.Close())
	}
	defer func() { _ = dir.Close() }()
	at, err := mountOn(dir, "tmpfs", "tmpfs", unix.MS_NODEV|unix.MS_NOSUID|unix.MS_NOEXEC, fmt.Sprintf("mode=0755,size=%d", 4*watchBytes))
	if err != nil {
		return nil, errors.Join(err, from.Close())
	}
	if m.to, err = os.OpenRoot(at); err == nil {
		err = m.copy()
	}
	if err != nil {
		return nil, errors.Join(err, m.close(), t.unmounter(at)(context.Background()))
	}
	stop := s.follow(m)
	return func(ctx context.Context) error {
		stop()
		return t.unmounter(at)(ctx)
	}, nil
}

// follow copies until stop, which may be called again.
func (s *Sandbox) follow(m *mirror) (stop func()) {
	every := s.cfg.WatchEvery
	if every == 0 {
		every = watchEvery
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				_ = m.close()
				return
			case <-tick.C:
			}
			if err := m.copy(); err != nil {
				s.log.Warn("a watched directory is not followed for now", slog.Any("err", err))
			}
		}
	})
	return func() { cancel(); wg.Wait() }
}

func (m *mirror) close() error {
	if m.to != nil {
		return errors.Join(m.from.Close(), m.to.Close())
	}
	return m.from.Close()
}

// list returns what there is to copy: directories before what is in them.
func (m *mirror) list() (map[string]stamp, error) {
	found := map[string]stamp{}
	var bytes int64
	err := fs.WalkDir(m.from.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		st := stamp{size: fi.Size(), mode: fi.Mode(), changed: fi.ModTime()}
		switch fi.Mode().Type() {
		case fs.ModeDir:
			st.size, st.changed = 0, time.Time{}
		case fs.ModeSymlink:
			if st.link, err = m.from.Readlink(name); err != nil {
				return err
			}
		case 0:
			bytes += fi.Size()
		default:
			return nil // a pipe or a device is nothing to copy
		}
		found[name] = st
		if len(found) > watchEntries || bytes > watchBytes {
			return errLarge
		}
		return nil
	})
	return found, err
}

// copy brings what has changed: directories, then files, then links, so that the
// link by which Kubernetes switches to new content changes last; then what is no
// more goes.
func (m *mirror) copy() error {
	now, err := m.list()
	if err != nil {
		return err
	}
	for _, kind := range []fs.FileMode{fs.ModeDir, 0, fs.ModeSymlink} {
		for depth, done := 0, 0; done < len(now); depth++ {
			for name, st := range now {
				if levels(name) != depth {
					continue
				}
				done++
				if st.mode.Type() != kind || m.seen[name] == st {
					continue
				}
				if err := m.one(name, st); err != nil {
					return fmt.Errorf("copy %s: %w", name, err)
				}
				m.seen[name] = st
			}
		}
	}
	for name := range m.seen {
		if _, there := now[name]; !there {
			if err := m.drop(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// drop removes what was copied under a name, and below it.
func (m *mirror) drop(name string) error {
	maps.DeleteFunc(m.seen, func(known string, _ stamp) bool { return known == name || strings.HasPrefix(known, name+"/") })
	return m.to.RemoveAll(name)
}

// levels is how many directories a name lies in.
func levels(name string) int {
	n := 0
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		n++
	}
	return n
}

func (m *mirror) one(name string, st stamp) error {
	if was, known := m.seen[name]; known && was.mode.Type() != st.mode.Type() {
		if err := m.drop(name); err != nil {
			return err
		}
	}
	if st.mode.IsDir() {
		if err := m.to.Mkdir(name, st.mode.Perm()); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		return m.to.Chmod(name, st.mode.Perm())
	}
	tmp := filepath.Join(filepath.Dir(name), ".incoming")
	if err := m.to.RemoveAll(tmp); err != nil {
		return err
	}
	var err error
	if st.mode.Type() == fs.ModeSymlink {
		err = m.to.Symlink(st.link, tmp)
	} else {
		err = m.file(name, tmp, st)
	}
	if err != nil {
		return err
	}
	if fi, err := m.to.Lstat(name); err == nil && fi.IsDir() {
		if err := m.to.RemoveAll(name); err != nil {
			return err
		}
	}
	return m.to.Rename(tmp, name)
}

func (m *mirror) file(name, tmp string, st stamp) error {
	in, err := m.from.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	if fi, err := in.Stat(); err != nil || !fi.Mode().IsRegular() {
		return errors.Join(errors.New("it is no file any more"), err) // a pipe would hold us
	}
	out, err := m.to.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, io.LimitReader(in, watchBytes))
	if err == nil {
		err = out.Chmod(st.mode.Perm())
	}
	return errors.Join(err, out.Close())
}
