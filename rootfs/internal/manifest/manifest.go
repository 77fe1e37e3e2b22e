// Package manifest is what an image says of itself: its form, what it was made
// from, and every file in it with its digest. It is a table of contents; what an
// image really is, is told by its bytes, with which it is compared.
package manifest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/tree"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// Schema names the form.
const Schema = "vouchsafe/image/1"

// MaxSize is the largest manifest that is read, in bytes.
const MaxSize = 32 << 20

// Manifest describes an image.
type Manifest struct {
	Schema   string     `json:"schema"`
	Name     string     `json:"name"`
	Form     string     `json:"form"`
	Kernel   string     `json:"kernel"` // its release
	Recipe   string     `json:"recipe_sha256"`
	Packages []Package  `json:"packages"`
	Firmware []Firmware `json:"firmware,omitempty"`
	Machine  Machine    `json:"machine"`
	// Contents are the files by where they are: in the initramfs, in the root.
	Contents map[string][]File `json:"contents"`
}

// Package is one that something of the image was taken from.
type Package struct {
	Name         string `json:"name"`
	Version      string `json:"version"`
	Architecture string `json:"architecture"`
	Source       string `json:"source,omitempty"`
	SHA256       string `json:"sha256"`
}

// Firmware is one that measurements were predicted for.
type Firmware struct {
	Name      string   `json:"name"`
	File      string   `json:"file"` // beside the image
	Edition   string   `json:"edition,omitempty"`
	Platforms []string `json:"platforms"`
}

// Machine is the shapes that they were predicted for.
type Machine struct {
	VCPUs  []int    `json:"vcpus,omitempty"`
	Memory []uint64 `json:"memory,omitempty"` // bytes
	CPUs   []string `json:"cpus,omitempty"`
}

// File is one of the image.
type File struct {
	Path   string `json:"path"`
	Mode   string `json:"mode"` // as ls shows it
	Size   int    `json:"size,omitempty"`
	SHA256 string `json:"sha256,omitempty"`
	Target string `json:"target,omitempty"`
	Origin string `json:"origin,omitempty"`
}

// Files lists a tree.
func Files(t *tree.Tree) []File {
	var out []File
	for _, p := range t.Paths() {
		f, _ := t.Get(p)
		e := File{Path: p, Mode: f.Mode.String(), Target: f.Target, Origin: f.Origin}
		if f.Mode.Type() == 0 {
			sum := sha256.Sum256(f.Content)
			e.Size, e.SHA256 = len(f.Content), hex.EncodeToString(sum[:])
		}
		out = append(out, e)
	}
	return out
}

// Compare reports how a tree differs from what the manifest says of it.
func Compare(want []File, t *tree.Tree) error {
	var all []error
	listed := map[string]File{}
	for _, f := range want {
		f.Origin = "" // a tree that was read does not know
		listed[f.Path] = f
	}
	for _, got := range Files(t) {
		got.Origin = ""
		f, ok := listed[got.Path]
		delete(listed, got.Path)
		switch {
		case !ok:
			all = append(all, fmt.Errorf("%s is in it and not in the manifest", got.Path))
		case f != got:
			all = append(all, fmt.Errorf("%s is %s of %d bytes with SHA-256 %.16s, and not as the manifest says", got.Path, got.Mode, got.Size, got.SHA256))
		}
	}
	for p := range listed {
		all = append(all, fmt.Errorf("%s is in the manifest and not in it", p))
	}
	return errors.Join(all...)
}

// Marshal writes the manifest. The same manifest is the same bytes.
func (m *Manifest) Marshal() ([]byte, error) {
	raw, err := json.MarshalIndent(m, "", " ")
	return append(raw, '\n'), err
}

// Parse reads a manifest.
func Parse(raw []byte) (*Manifest, error) {
	if len(raw) > MaxSize {
		return nil, fmt.Errorf("the manifest has %d bytes, at most %d are read", len(raw), MaxSize)
	}
	var m Manifest
	if err := strictjson.Decode(raw, &m); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	if m.Schema != Schema {
		return nil, fmt.Errorf("the manifest has schema %.60q, and this program reads %s", m.Schema, Schema)
	}
	for _, f := range m.Firmware {
		if f.File == "" || !fs.ValidPath(f.File) || f.File == "." {
			return nil, fmt.Errorf("manifest: firmware in file %.80q", f.File)
		}
	}
	return &m, nil
}
