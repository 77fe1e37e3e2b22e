package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

const (
	driverOverlay = "overlayfs"

	// overlayWritable has the agent add a writable layer, in the guest's memory.
	overlayWritable = "io.katacontainers.fs-opt.overlay-rw"
	// overlayCreate has it make a directory first.
	overlayCreate = "io.katacontainers.volume.overlayfs.create_directory="
)

// overlaid is an overlay of directories that other storages have made.
type overlaid struct {
	lower       []string // relative to the state directory
	upper, work string   // empty for none
	memory      bool     // for what is written
	create      []string
}

func (s *Sandbox) parseOverlay(st *agent.Storage) (overlaid, error) {
	var o overlaid
	options := slices.Concat(st.GetOptions(), st.GetDriverOptions())
	for _, opt := range options {
		key, value, _ := strings.Cut(opt, "=")
		var err error
		switch {
		case opt == "rw" || opt == "ro" || opt == "":
		case opt == overlayWritable:
			o.memory = true
		case strings.HasPrefix(opt, overlayCreate):
			var rel string
			rel, err = s.rel(strings.TrimPrefix(opt, overlayCreate))
			o.create = append(o.create, rel)
		case key == "upperdir":
			o.upper, err = s.rel(value)
		case key == "workdir":
			o.work, err = s.rel(value)
		case key == "lowerdir":
			for dir := range strings.SplitSeq(value, ":") {
				var rel string
				if rel, err = s.rel(dir); err != nil {
					break
				}
				o.lower = append(o.lower, rel)
			}
		default:
			err = invalidf("option %.64q of an overlay is not supported", opt)
		}
		if err != nil {
			return o, err
		}
	}
	writable := o.upper != "" || o.work != ""
	if len(o.lower) == 0 || len(o.lower) > maxLayers || writable && o.memory || writable && (o.upper == "" || o.work == "") {
		return o, invalidf("an overlay needs directories to lie below, and at most one place to write to")
	}
	return o, nil
}

// overlayStorage mounts an overlay. Each of its directories is opened without
// following a link out of the parts that are open to the host.
func (s *Sandbox) overlayStorage(owner string, t target, o overlaid) (_ undo, err error) {
	for _, rel := range o.create {
		part, name, err := s.open(rel)
		if err != nil {
			return nil, err
		}
		if err := errors.Join(part.MkdirAll(name, 0o755), part.Close()); err != nil {
			return nil, err
		}
	}
	var open []*os.File
	defer func() {
		for _, f := range open {
			_ = f.Close()
		}
	}()
	dir := func(rel string) (string, error) {
		f, err := s.openFile(rel)
		if err != nil {
			return "", err
		}
		open = append(open, f)
		return fdPath(f), nil
	}
	var lower []string
	for _, rel := range o.lower {
		path, err := dir(rel)
		if err != nil {
			return nil, fmt.Errorf("below the overlay: %w", err)
		}
		lower = append(lower, path)
	}
	var data []string
	for option, rel := range map[string]string{"upperdir=": o.upper, "workdir=": o.work} {
		if rel == "" {
			continue
		}
		path, err := dir(rel)
		if err != nil {
			return nil, fmt.Errorf("to write to: %w", err)
		}
		data = append(data, option+path)
	}
	undoMemory := func(context.Context) error { return nil }
	if o.memory {
		if owner == "" {
			return nil, invalidf("only a container's overlay is written to")
		}
		var path string
		if path, undoMemory, err = s.writable(context.Background(), filepath.Join(owner, "overlay"), layers{}); err != nil {
			return nil, err
		}
		data = append(data, "upperdir="+filepath.Join(path, "upper"), "workdir="+filepath.Join(path, "work"))
	}
	if len(data) == 0 && len(lower) == 1 {
		lower = append(lower, lower[0]) // the kernel wants two where nothing is written
	}
	slices.Sort(data) // of a map
	unmountAll, err := s.overlay(t, lower, data)
	if err != nil {
		return nil, errors.Join(err, undoMemory(context.Background()))
	}
	return func(ctx context.Context) error {
		if err := unmountAll(ctx); err != nil {
			return err
		}
		return undoMemory(ctx)
	}, nil
}

// hugeFilesystem is memory in large pages.
const hugeFilesystem = "hugetlbfs"

// huge mounts memory in large pages, of which the kernel is told to set as many
// aside as the volume may have (kata-agent 2.10).
func (s *Sandbox) huge(rel string, st *agent.Storage) (undo, error) {
	o, err := parseOptions(st.GetOptions(), false)
	if err != nil {
		return nil, err
	}
	gid, err := group(st, o)
	if err != nil {
		return nil, err
	}
	page, size, err := hugeSizes(o.data)
	if err != nil {
		return nil, err
	}
	giveBack, err := s.reservePages(page, size/page)
	if err != nil {
		return nil, err
	}
	t := s.target("", rel)
	dir, err := t.open()
	if err != nil {
		return nil, errors.Join(err, giveBack())
	}
	defer func() { _ = dir.Close() }()
	path, err := mountOn(dir, "nodev", hugeFilesystem, o.flags|unix.MS_NODEV|unix.MS_NOSUID, fmt.Sprintf("pagesize=%d,size=%d", page, size))
	if err != nil {
		return nil, errors.Join(err, giveBack())
	}
	release := func(ctx context.Context) error {
		if err := t.unmounter(path)(ctx); err != nil {
			return err
		}
		return giveBack()
	}
	if err := own(path, gid); err != nil {
		return nil, errors.Join(err, release(context.Background()))
	}
	return release, nil
}
