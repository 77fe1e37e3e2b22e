package build

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/bom"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/lock"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/manifest"
)

// used lists the packages that something of the image was taken from.
func (i *Image) used(in Inputs) []lock.Package {
	origins := map[string]bool{}
	for _, t := range i.Trees {
		for _, p := range t.Paths() {
			f, _ := t.Get(p)
			name, _, _ := strings.Cut(f.Origin, " ")
			origins[name] = true
		}
	}
	origins[in.Lock.Kernel] = true
	if in.Form.FirmwareStarts() {
		origins[in.Recipe.UKI.Package] = true
	}
	return slices.DeleteFunc(slices.Clone(in.Lock.Package), func(p lock.Package) bool { return !origins[p.Name] })
}

// Describe returns the image's table of contents.
func (i *Image) Describe(in Inputs) *manifest.Manifest {
	sum := sha256.Sum256(in.RecipeText)
	m := &manifest.Manifest{
		Schema: manifest.Schema, Name: in.Recipe.Name, Form: string(in.Form), Kernel: i.Release,
		Recipe: hex.EncodeToString(sum[:]), Contents: map[string][]manifest.File{},
	}
	for _, p := range i.used(in) {
		m.Packages = append(m.Packages, manifest.Package{Name: p.Name, Version: p.Version, Architecture: p.Architecture, Source: p.Source, SHA256: p.SHA256})
	}
	for where, t := range i.Trees {
		m.Contents[where] = manifest.Files(t)
	}
	return m
}

// Bill returns what the image is made of.
func (i *Image) Bill(in Inputs) (bom.Bill, error) {
	all := sha256.New()
	b := bom.Bill{Name: in.Recipe.Name, Created: in.Created}
	for _, p := range i.used(in) {
		c := bom.Debian(p.Name, p.Version, p.Architecture, p.SHA256)
		b.Components = append(b.Components, c)
		_, _ = all.Write([]byte(c.PURL + " " + c.SHA256 + "\n")) // a hash never fails
	}
	if in.Kernel != nil {
		c := bom.Kernel(in.Kernel.Release, in.Kernel.SHA256)
		b.Components = append(b.Components, c)
		_, _ = all.Write([]byte(c.PURL + " " + c.SHA256 + " " + in.Kernel.Modules + "\n"))
	}
	agent, err := bom.Program("guest-agent", in.Agent)
	if err != nil {
		return b, err
	}
	b.Components = append(b.Components, agent...)
	_, _ = all.Write([]byte(string(in.Form) + agent[0].SHA256))
	b.Digest = hex.EncodeToString(all.Sum(nil))
	return b, nil
}
