// Package synthimage makes a container image of any size out of nothing: files
// of which a third cannot be compressed, as in images of programs and data, and
// a busybox that waits. What it measures is the work of a pull, not what is in
// the image.
package synthimage

import (
	"archive/tar"
	"compress/gzip"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/errgroup"
)

const (
	layers   = 6
	fileSize = 1 << 20
	busybox  = "/bin/busybox"
)

// Write writes an image of about that many megabytes as an OCI layout in dir,
// with gzip layers.
func Write(dir string, megabytes int) error {
	work, err := os.MkdirTemp("", "synthimage-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	made := make([]v1.Layer, layers)
	var g errgroup.Group
	g.SetLimit(runtime.NumCPU())
	for i := range made {
		file := filepath.Join(work, fmt.Sprintf("%d.tar.gz", i))
		g.Go(func() (err error) {
			if err := layer(file, i, megabytes/layers); err != nil {
				return err
			}
			made[i], err = tarball.LayerFromFile(file, tarball.WithMediaType(types.OCILayer)) // hashes it twice
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	img, err := mutate.AppendLayers(mutate.MediaType(empty.Image, types.OCIManifestSchema1), made...)
	if err != nil {
		return err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return err
	}
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Config = v1.Config{Entrypoint: []string{busybox, "sleep", "1000000"}, WorkingDir: "/"}
	if img, err = mutate.ConfigFile(img, config); err != nil {
		return err
	}
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	return path.AppendImage(img)
}

// layer writes a gzip layer; the first one holds busybox.
func layer(file string, number, megabytes int) (err error) {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	z, err := gzip.NewWriterLevel(f, gzip.BestSpeed)
	if err != nil {
		return err
	}
	t := tar.NewWriter(z)
	if number == 0 {
		raw, err := os.ReadFile(busybox)
		if err != nil {
			return err
		}
		if err := put(t, "bin/busybox", raw, 0o755); err != nil {
			return err
		}
	}
	content := make([]byte, fileSize)
	for i := range megabytes {
		rand.Read(content[:fileSize/3]) // crypto/rand.Read never fails
		if err := put(t, fmt.Sprintf("data/%d/%d", number, i), content, 0o644); err != nil {
			return err
		}
	}
	return errors.Join(t.Close(), z.Close())
}

func put(t *tar.Writer, name string, content []byte, mode int64) error {
	if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(content))}); err != nil {
		return err
	}
	_, err := t.Write(content)
	return err
}
