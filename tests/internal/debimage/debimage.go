// Package debimage assembles a real container image from the packages of the
// Debian or Ubuntu release it runs on: nginx with everything it needs, a
// shell, and programs whose files are awkward on purpose (setuid bits, hard
// links, a file capability, whiteouts). It needs apt-get and dpkg-deb, and no
// container engine.
package debimage

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Port is where the image's nginx listens.
const Port = 8088

// SecretPath is the resource that the image's entry point fetches from the
// guest's loopback API and puts into its page.
const SecretPath = "default/demo/greeting"

// Layers of the image, lowest first. Dependencies of a package go into the
// layer that first needs them.
var layers = []struct {
	name     string
	packages []string
}{
	{"base", []string{"base-files", "libc6", "dash", "busybox"}},
	{"tools", []string{"passwd", "perl-base", "gzip"}},
	{"nginx", []string{"nginx-light"}},
}

// Packages that a dependency walk meets and a container does without: they
// serve the package manager.
var unwanted = []string{
	"debconf", "debconf-2.0", "cdebconf", "dpkg", "install-info", "tar", "iproute2", "init-system-helpers",
	"perl", "perl-modules", "awk", "mawk", "gawk", "original-awk", "base-passwd", "login", "libpam-modules",
	"libpam-modules-bin", "libpam-runtime", "libpam0g", "libaudit1", "libaudit-common", "libsystemd0",
}

// Build writes the image as an OCI layout below dir and returns dir. If a
// layout is already there it is used as it is: dir is a cache.
func Build(ctx context.Context, dir string) (string, error) {
	if _, err := os.Stat(filepath.Join(dir, "index.json")); err == nil {
		return dir, nil
	}
	work, err := os.MkdirTemp("", "debimage-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(work) }()

	var parts []v1.Layer
	have := map[string]bool{}
	for _, l := range layers {
		packages, err := closure(ctx, l.packages, have)
		if err != nil {
			return "", err
		}
		debs, err := download(ctx, filepath.Join(work, "debs"), packages)
		if err != nil {
			return "", err
		}
		path := filepath.Join(work, l.name+".tar")
		if err := writeTar(path, func(w *layerWriter) error { return packageLayer(ctx, w, l.name, debs) }); err != nil {
			return "", fmt.Errorf("layer %s: %w", l.name, err)
		}
		layer, err := compressed(path, l.name)
		if err != nil {
			return "", err
		}
		parts = append(parts, layer)
	}
	for name, fill := range map[string]func(*layerWriter) error{"site": siteLayer, "trim": trimLayer} {
		if err := writeTar(filepath.Join(work, name+".tar"), fill); err != nil {
			return "", fmt.Errorf("layer %s: %w", name, err)
		}
	}
	for _, name := range []string{"site", "trim"} {
		layer, err := compressed(filepath.Join(work, name+".tar"), name)
		if err != nil {
			return "", err
		}
		parts = append(parts, layer)
	}
	return dir, writeLayout(dir, parts)
}

func writeLayout(dir string, parts []v1.Layer) error {
	base := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	base = mutate.ConfigMediaType(base, types.OCIConfigJSON)
	img, err := mutate.AppendLayers(base, parts...)
	if err != nil {
		return err
	}
	file, err := img.ConfigFile()
	if err != nil {
		return err
	}
	file.OS, file.Architecture = "linux", arch()
	file.Config.Entrypoint = []string{"/entrypoint"}
	file.Config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	file.Config.WorkingDir = "/"
	if img, err = mutate.ConfigFile(img, file); err != nil {
		return err
	}
	// Written aside and renamed, so that a run that dies leaves no half cache.
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	staging, err := os.MkdirTemp(filepath.Dir(dir), ".debimage-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(staging) }()
	path, err := layout.Write(staging, empty.Index)
	if err != nil {
		return err
	}
	if err := path.AppendImage(img); err != nil {
		return err
	}
	return os.Rename(staging, dir)
}

// compressed makes a gzip layer of a tar file, except that "nginx" becomes a
// zstd layer, so that both forms travel.
func compressed(path, name string) (v1.Layer, error) {
	if name == "nginx" {
		return zstdLayer(path)
	}
	return tarball.LayerFromFile(path, tarball.WithMediaType(types.OCILayer))
}

// closure lists the packages that must be installed for the named ones, less
// those that `have` holds already, and adds them to it.
func closure(ctx context.Context, names []string, have map[string]bool) ([]string, error) {
	args := append([]string{"depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts",
		"--no-breaks", "--no-replaces", "--no-enhances"}, names...)
	out, err := run(ctx, "", "apt-cache", args...)
	if err != nil {
		return nil, err
	}
	var list []string
	for line := range strings.Lines(out) {
		name := strings.TrimSpace(line)
		// Real package names start a line; relations are indented and virtual
		// packages stand in angle brackets.
		if line[0] == ' ' || line[0] == '<' || line[0] == '|' || strings.Contains(name, ":") || have[name] || slices.Contains(unwanted, name) {
			continue
		}
		have[name] = true
		list = append(list, name)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("apt knows none of %v; has `apt-get update` run?", names)
	}
	slices.Sort(list)
	return list, nil
}

// download fetches the .deb files of packages. Names that no package has (a
// dependency may name an alternative that this release lacks) are skipped.
func download(ctx context.Context, dir string, packages []string) ([]string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	policy, err := run(ctx, "", "apt-cache", append([]string{"policy"}, packages...)...)
	if err != nil {
		return nil, err
	}
	args := []string{"-q", "-o", "APT::Sandbox::User=root", "download"}
	var name string
	for line := range strings.Lines(policy) {
		line = strings.TrimRight(line, "\n")
		if !strings.HasPrefix(line, " ") {
			name = strings.TrimSuffix(line, ":")
		} else if candidate, ok := strings.CutPrefix(line, "  Candidate: "); ok && candidate != "(none)" {
			args = append(args, name)
		}
	}
	fresh, err := os.MkdirTemp(dir, "")
	if err != nil {
		return nil, err
	}
	if _, err := run(ctx, fresh, "apt-get", args...); err != nil {
		return nil, err
	}
	return filepath.Glob(filepath.Join(fresh, "*.deb"))
}

func packageLayer(ctx context.Context, w *layerWriter, name string, debs []string) error {
	if name == "base" {
		if err := mergedUsr(w); err != nil {
			return err
		}
	}
	slices.Sort(debs)
	for _, deb := range debs {
		if err := addDeb(ctx, w, deb); err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(deb), err)
		}
	}
	return nil
}

// addDeb copies the files of one package into the layer.
func addDeb(ctx context.Context, w *layerWriter, deb string) error {
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	err = copyTar(w, tar.NewReader(bufio.NewReaderSize(out, 1<<20)))
	_, drain := io.Copy(io.Discard, out)
	return errors.Join(err, drain, cmd.Wait())
}

func copyTar(w *layerWriter, r *tar.Reader) error {
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := w.add(h, r); err != nil {
			return err
		}
	}
}

func run(ctx context.Context, dir, command string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, command, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", command, args[0], err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}
