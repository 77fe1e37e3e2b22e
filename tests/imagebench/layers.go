package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"

	"github.com/klauspost/compress/zstd"

	"github.com/vouchsafe-cc/vouchsafe/tests/internal/debimage"
)

// What is in the images: programs, libraries with many small files, and a few
// large ones, as images have them. With a layer of whiteouts they are ten.
var common = []debimage.Set{
	{Name: "base", Packages: []string{"base-files", "bash", "coreutils", "libc-bin", "dash", "tar", "gzip", "findutils", "grep", "sed"}},
	{Name: "python", Packages: []string{"python3", "python3-pip", "python3-setuptools"}},
	{Name: "gcc", Packages: []string{"gcc", "g++", "make", "gdb"}},
	{Name: "tools", Packages: []string{"git", "perl", "vim"}},
	{Name: "java", Packages: []string{"default-jdk-headless"}},
	{Name: "science", Packages: []string{"python3-numpy", "python3-django", "r-base-core"}},
	{Name: "office", Packages: []string{"libreoffice-core-nogui", "libreoffice-writer-nogui", "libreoffice-calc-nogui"}},
	{Name: "llvm", Packages: []string{"clang", "llvm"}},
	{Name: "services", Packages: []string{"nginx", "postgresql"}},
}

// more is what the large image has on top.
var more = []debimage.Set{
	{Name: "go", Packages: []string{"golang-go"}},
	{Name: "rust", Packages: []string{"rustc", "cargo"}},
	{Name: "tex", Packages: []string{"texlive-latex-recommended", "texlive-fonts-recommended"}}, // of Debian alone: other sources bring Node.js of their own
	{Name: "haskell", Packages: []string{"ghc"}},
}

// archives assembles the layers of the case, lowest first.
func (c testCase) archives(ctx context.Context, cache string) ([]string, error) {
	dir, sets := filepath.Join(cache, "layers"), common
	if c.size == large {
		dir, sets = filepath.Join(cache, "large"), append(append([]debimage.Set{}, common...), more...)
	}
	files, err := debimage.Tars(ctx, dir, sets)
	if err != nil || c.size != single {
		return files, err
	}
	one := filepath.Join(dir, "one.tar")
	return []string{one}, join(files[:len(files)-1], one) // less the whiteouts, which have nothing to hide there
}

// join makes one archive of several, in which each name is once: Debian's
// podman and buildah refuse a layer that has a directory twice.
func join(files []string, to string) error {
	return cached(to, func(out io.Writer) error {
		z, seen := tar.NewWriter(out), map[string]bool{}
		for _, name := range files {
			f, err := os.Open(name)
			if err != nil {
				return err
			}
			if err := errors.Join(copyNew(z, tar.NewReader(f), seen), f.Close()); err != nil {
				return err
			}
		}
		return z.Close()
	})
}

// copyNew copies the entries whose names were not seen.
func copyNew(to *tar.Writer, from *tar.Reader, seen map[string]bool) error {
	for {
		h, err := from.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := path.Clean(h.Name)
		if seen[name] {
			continue
		}
		seen[name] = true
		if err := to.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(to, from); err != nil {
			return err
		}
	}
}

// compress writes a compressed copy, as the field's builders do: gzip by Go's
// standard library at its default level, zstd at its own.
func compress(ctx context.Context, from, to string, f format) error {
	return cached(to, func(out io.Writer) error {
		in, err := os.Open(from)
		if err != nil {
			return err
		}
		defer func() { _ = in.Close() }()
		var z io.WriteCloser = gzip.NewWriter(out)
		if f == zstandard {
			if z, err = zstd.NewWriter(out, zstd.WithEncoderConcurrency(1)); err != nil {
				return err
			}
		}
		_, err = io.CopyBuffer(z, &interruptible{ctx, in}, make([]byte, 1<<20))
		return errors.Join(err, z.Close())
	})
}

// interruptible stops reading with its context.
type interruptible struct {
	ctx context.Context //nolint:containedctx // for the length of one copy
	r   io.Reader
}

func (i *interruptible) Read(p []byte) (int, error) {
	if err := i.ctx.Err(); err != nil {
		return 0, err
	}
	return i.r.Read(p)
}

// cached writes a file unless it is there.
func cached(file string, write func(io.Writer) error) error {
	if _, err := os.Stat(file); err == nil {
		return nil
	}
	f, err := os.Create(file + ".part")
	if err != nil {
		return err
	}
	if err := errors.Join(write(f), f.Close()); err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(file), err)
	}
	return os.Rename(file+".part", file)
}
