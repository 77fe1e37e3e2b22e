// Package publish puts beside an image what others need to believe it: a table of
// contents, bills of materials, what its guests will measure to, and how it was
// made, both signed.
package publish

import (
	"crypto"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/measure/predict"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/build"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/expected"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/manifest"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/signing"
)

// Files beside an image. Of each of the last two pairs one is there.
const (
	FileManifest   = "manifest.json"
	FileSPDX       = "sbom.spdx.json"
	FileCycloneDX  = "sbom.cdx.json"
	FileSums       = "SHA256SUMS"
	FileReference  = "refvalues.cbor"
	FileUnsigned   = "refvalues.yaml"
	FileProvenance = "provenance.dsse.json"
	FileStatement  = "provenance.json"
)

// PredictionFile is where the prediction for a firmware is.
func PredictionFile(firmware string) string { return "prediction-" + firmware + ".json" }

// A Firmware is one to predict for, with its content.
type Firmware struct {
	manifest.Firmware
	Content []byte
}

// Options say for what and by whom an image is published.
type Options struct {
	// Key signs. Nil leaves the documents unsigned, which is for whoever builds an
	// image to look at it.
	Key      crypto.Signer
	KeyID    string
	Release  expected.Release
	Firmware []Firmware
	Machine  manifest.Machine
	// Keys are the variables of machines that enforce Secure Boot, by the names of
	// their files; nil where they are not known.
	Keys map[string][]byte
}

// Files returns the image's files with those beside it.
func Files(in build.Inputs, image *build.Image, o Options) (map[string][]byte, error) {
	files := maps.Clone(image.Files)
	maps.Copy(files, o.Keys)
	m := image.Describe(in)
	m.Machine = o.Machine
	for _, f := range o.Firmware {
		f.File = "firmware-" + f.Name + ".fd"
		files[f.File] = f.Content
		m.Firmware = append(m.Firmware, f.Firmware)
	}
	var err error
	if files[FileManifest], err = m.Marshal(); err != nil {
		return nil, err
	}
	bill, err := image.Bill(in)
	if err != nil {
		return nil, err
	}
	if files[FileSPDX], err = bill.SPDX(); err != nil {
		return nil, err
	}
	if files[FileCycloneDX], err = bill.CycloneDX(); err != nil {
		return nil, err
	}
	if err := predictions(files, m, o); err != nil {
		return nil, err
	}
	if err := provenance(in, image, files, o); err != nil {
		return nil, err
	}
	files[FileSums] = Sums(files)
	return files, nil
}

// predictions adds what guests measure to. An image whose recipe names no
// firmware has none.
func predictions(files map[string][]byte, m *manifest.Manifest, o Options) error {
	if len(m.Firmware) == 0 {
		return nil
	}
	all, err := Predictions(files, m)
	if err != nil {
		return err
	}
	for i, d := range all {
		if files[PredictionFile(m.Firmware[i].Name)], err = MarshalPrediction(d); err != nil {
			return err
		}
	}
	doc, err := expected.Document(o.Release, all)
	if err != nil {
		return err
	}
	if o.Key == nil {
		files[FileUnsigned], err = expected.Unsigned(doc)
		return err
	}
	files[FileReference], err = doc.Sign(o.Key, o.KeyID)
	return err
}

// Predictions computes what guests measure to, for each firmware of a manifest
// whose files are at hand.
func Predictions(files map[string][]byte, m *manifest.Manifest) ([]*predict.Document, error) {
	var out []*predict.Document
	for _, f := range m.Firmware {
		content, ok := files[f.File]
		if !ok {
			return nil, fmt.Errorf("the firmware %s is not beside the image", f.File)
		}
		d, err := expected.Predict(files, f, content, m.Machine)
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

// MarshalPrediction writes a prediction as a file.
func MarshalPrediction(d *predict.Document) ([]byte, error) {
	raw, err := json.MarshalIndent(d, "", "  ")
	return append(raw, '\n'), err
}

func provenance(in build.Inputs, image *build.Image, files map[string][]byte, o Options) error {
	statement, err := build.Provenance(in, files, image)
	if err != nil {
		return err
	}
	if o.Key == nil {
		files[FileStatement] = append(statement, '\n')
		return nil
	}
	files[FileProvenance], err = signing.Sign(o.Key, o.KeyID, build.PayloadType, statement)
	return err
}

// Sums lists the digests of files as sha256sum(1) does, sorted by their names.
func Sums(files map[string][]byte) []byte {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if name != FileSums {
			fmt.Fprintf(&b, "%x  %s\n", sha256.Sum256(files[name]), name)
		}
	}
	return []byte(b.String())
}
