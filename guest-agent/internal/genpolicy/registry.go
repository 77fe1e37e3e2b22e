package genpolicy

import (
	"context"
	"fmt"
	"slices"

	"github.com/vouchsafe-cc/vouchsafe/image/pull"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
)

// Registries finds images where their names say, for one platform.
type Registries struct {
	Client   *registry.Client
	Platform registry.Platform
	// Layouts says for the names of images in which OCI layout, as
	// "oci:DIR[:TAG]", they lie instead: before they were pushed, or without a
	// network.
	Layouts map[string]string
}

// imageConfig is the part of an image's configuration that says what to run.
type imageConfig struct {
	Config struct {
		Entrypoint []string `json:"Entrypoint"`
		Cmd        []string `json:"Cmd"`
		Env        []string `json:"Env"`
		WorkingDir string   `json:"WorkingDir"`
		User       string   `json:"User"`
	} `json:"config"`
}

// Image resolves a reference as an agent does when it pulls.
func (r Registries) Image(ctx context.Context, name string) (Image, error) {
	ref, err := registry.ParseReference(name)
	if err != nil {
		return Image{}, err
	}
	place, version, err := r.place(name, ref)
	if err != nil {
		return Image{}, err
	}
	found, err := registry.Resolve(ctx, place, version, r.Platform)
	if err != nil {
		return Image{}, err
	}
	var c imageConfig
	if err := registry.ReadConfig(ctx, place, found.Image.Config, &c); err != nil {
		return Image{}, fmt.Errorf("the configuration of %s: %w", name, err)
	}
	return Image{
		References: spellings(name, ref, found),
		Digests:    distinct(found.Manifest.Digest.String(), found.Root.Digest.String()),
		Entrypoint: c.Config.Entrypoint, Cmd: c.Config.Cmd, Env: c.Config.Env,
		WorkingDir: c.Config.WorkingDir, User: c.Config.User,
		Files: func(ctx context.Context, names ...string) (map[string][]byte, error) {
			return pull.ReadFiles(ctx, place, found.Image, names...)
		},
	}, nil
}

func (r Registries) place(name string, ref registry.Reference) (registry.Source, string, error) {
	local, ok := r.Layouts[name]
	if !ok {
		repository, err := r.Client.Repository(ref)
		return repository, ref.Version(), err
	}
	dir, tag, ok := registry.ParseLayout(local)
	if !ok {
		return nil, "", fmt.Errorf("%q is not of the form oci:DIR[:TAG]", local)
	}
	layout, err := registry.OpenLayout(dir)
	return layout, tag, err
}

// spellings are the names under which a runtime may ask for the image: as the pod
// has it, spelled out, and by digest. Snapshotters change one into another.
func spellings(name string, ref registry.Reference, found *registry.Resolved) []string {
	all := []string{name, ref.String()}
	for _, d := range []string{found.Root.Digest.String(), found.Manifest.Digest.String()} {
		all = append(all, ref.Name()+"@"+d)
	}
	return distinct(all...)
}

func distinct(s ...string) []string {
	slices.Sort(s)
	return slices.Compact(s)
}
