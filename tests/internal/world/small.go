package world

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// SmallImage makes an image of one program, busybox, that prints the secret which
// it gets from the agent, and ends: for guests in emulation, where every byte is
// hashed slowly. It returns a source for Encrypt.
func (w *World) SmallImage() (string, error) {
	content, err := w.SmallProgram()
	if err != nil {
		return "", err
	}
	var archive bytes.Buffer
	t := tar.NewWriter(&archive)
	for _, h := range []*tar.Header{
		{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(content))},
		{Name: "bin/sh", Typeflag: tar.TypeSymlink, Linkname: "busybox"},
		{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777},
	} {
		if err := t.WriteHeader(h); err != nil {
			return "", err
		}
		if h.Size > 0 {
			if _, err := t.Write(content); err != nil {
				return "", err
			}
		}
	}
	if err := t.Close(); err != nil {
		return "", err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(archive.Bytes())), nil })
	if err != nil {
		return "", err
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return "", err
	}
	const say = "busybox wget -q -O - http://127.0.0.1:8006/cdh/resource/" + SecretResource + " && echo && echo done"
	file, err := img.ConfigFile()
	if err != nil {
		return "", err
	}
	file = file.DeepCopy()
	file.Architecture, file.OS = "amd64", "linux"
	file.Config = v1.Config{Entrypoint: []string{"/bin/sh", "-c", say}, Env: []string{"PATH=/bin"}, WorkingDir: "/"}
	if img, err = mutate.ConfigFile(img, file); err != nil {
		return "", err
	}
	dir := w.Path("small")
	index := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: img})
	_, err = layout.Write(dir, index)
	return "oci:" + dir, err
}

// SmallProgram is what that image has.
func (w *World) SmallProgram() ([]byte, error) {
	program, err := exec.LookPath("busybox")
	if err != nil {
		return nil, fmt.Errorf("%w (Debian: busybox-static)", err)
	}
	return os.ReadFile(program)
}
