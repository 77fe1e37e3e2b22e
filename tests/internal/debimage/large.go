package debimage

import (
	"archive/tar"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A Set is a layer's packages.
type Set struct {
	Name     string
	Packages []string
}

// Trim is the name of the set that takes away again what lower layers brought.
const Trim = "trim"

// Tars writes a layer for each set as NAME.tar below dir and returns their
// paths: the packages with everything they need, less what a lower layer has,
// as apt would install it on a machine with nothing. Where two packages have a
// file, the first has it. The last layer, [Trim], is whiteouts. Layers that are
// there already are left as they are: dir is a cache.
func Tars(ctx context.Context, dir string, sets []Set) ([]string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	var files []string
	have := map[string]bool{}
	for _, s := range sets {
		packages, err := resolve(ctx, s.Packages, have)
		if err != nil {
			return nil, err
		}
		file := filepath.Join(dir, s.Name+".tar")
		if err := cachedTar(file, func(w *layerWriter) error { return w.packages(ctx, s.Name, packages) }); err != nil {
			return nil, fmt.Errorf("layer %s: %w", s.Name, err)
		}
		files = append(files, file)
	}
	file := filepath.Join(dir, Trim+".tar")
	return append(files, file), cachedTar(file, trimLarge)
}

// cachedTar writes a tar aside and renames it, so that a run that dies leaves
// no half of it.
func cachedTar(file string, fill func(*layerWriter) error) error {
	if _, err := os.Stat(file); err == nil {
		return nil
	}
	part := file + ".part"
	err := writeTar(part, func(w *layerWriter) error {
		w.shared = true
		return fill(w)
	})
	if err != nil {
		return err
	}
	return os.Rename(part, file)
}

// resolve lists what apt would install for the packages on an empty machine,
// less what `have` holds, and adds it there.
func resolve(ctx context.Context, packages []string, have map[string]bool) ([]string, error) {
	args := append([]string{"-q", "-s", "-o", "Dir::State::status=/dev/null", "--no-install-recommends", "install"}, packages...)
	out, err := run(ctx, "", "apt-get", args...)
	if err != nil {
		return nil, err
	}
	var list []string
	for line := range strings.Lines(out) {
		words := strings.Fields(line)
		if len(words) < 2 || words[0] != "Inst" || have[words[1]] {
			continue
		}
		have[words[1]] = true
		list = append(list, words[1])
	}
	slices.Sort(list)
	return list, nil
}

// packages writes the files of packages, which are downloaded for that.
func (w *layerWriter) packages(ctx context.Context, name string, packages []string) error {
	work, err := os.MkdirTemp("", "debimage-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	debs, err := download(ctx, work, packages)
	if err != nil {
		return err
	}
	return packageLayer(ctx, w, name, debs)
}

// trimLarge deletes files of several layers, and the contents of a directory.
func trimLarge(w *layerWriter) error {
	for _, d := range []string{"usr", "usr/share", "usr/share/man", "usr/share/locale", "usr/include"} {
		if err := w.dir(d, 0o755, 0); err != nil {
			return err
		}
	}
	for _, name := range []string{"usr/share/man/.wh..wh..opq", "usr/share/locale/.wh.de", "usr/include/.wh.stdio.h"} {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, ModTime: epoch}); err != nil {
			return err
		}
	}
	return nil
}
