// Package expected predicts what guests of an image measure to, for the
// firmware and the machines that its recipe names, and makes of that one document
// of reference values. What is computed, and from what, is package
// measure/predict's.
package expected

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure/boot"
	"github.com/vouchsafe-cc/vouchsafe/measure/predict"
	"github.com/vouchsafe-cc/vouchsafe/measure/refvalue"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/build"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/manifest"
)

// Predict returns what guests of an image measure to under a firmware.
func Predict(files map[string][]byte, fw manifest.Firmware, firmware []byte, machine manifest.Machine) (*predict.Document, error) {
	in := predict.Inputs{Firmware: firmware, VCPUs: machine.VCPUs, CPUs: machine.CPUs, Memory: machine.Memory}
	for _, p := range fw.Platforms {
		in.Platforms = append(in.Platforms, predict.Platform(p))
	}
	if fw.Edition != "" {
		var err error
		if in.Edition, err = boot.ParseEdition(fw.Edition); err != nil {
			return nil, err
		}
	}
	if image, ok := files[build.FileUKI]; ok {
		in.UKI = image
		in.Disk = files[build.FileBootable][:min(len(files[build.FileBootable]), tableSize)]
		if err := secureBoot(files, &in); err != nil {
			return nil, err
		}
	} else {
		in.Kernel, in.Initrd = files[build.FileKernel], files[build.FileInitrd]
		in.CommandLine = strings.TrimSuffix(string(files[build.FileCmdline]), "\n")
	}
	d, err := predict.Make(in)
	if err != nil {
		return nil, fmt.Errorf("firmware %s: %w", fw.Name, err)
	}
	return d, nil
}

// tableSize is how much of a disk is read for its partition table, in bytes.
const tableSize = 1 << 20

// secureBoot reads the keys of the machine, where they lie beside the image.
func secureBoot(files map[string][]byte, in *predict.Inputs) (err error) {
	if _, ok := files[boot.FilePK]; !ok {
		return nil
	}
	in.SecureBoot, err = boot.ReadSecureBoot(func(name string) ([]byte, error) {
		raw, ok := files[name]
		if !ok {
			return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
		}
		return raw, nil
	})
	return err
}

// A Release is what a document of reference values says beside the values.
type Release struct {
	ID   string
	Ends time.Time // zero says nothing
}

// Document joins predictions to one document: a value is good if it is so under
// any of the firmwares.
func Document(r Release, predictions []*predict.Document) (refvalue.Document, error) {
	out := refvalue.Document{ID: r.ID, NotAfter: r.Ends}
	lists := map[string][]json.RawMessage{}
	var names []string
	for i, d := range predictions {
		for _, v := range d.ReferenceValues() {
			var list []json.RawMessage
			if err := json.Unmarshal(v.Value, &list); err != nil {
				return out, fmt.Errorf("reference value %s: %w", v.Name, err)
			}
			if _, ok := lists[v.Name]; !ok {
				names = append(names, v.Name)
			}
			for _, one := range list {
				if !slices.ContainsFunc(lists[v.Name], func(old json.RawMessage) bool { return string(old) == string(one) }) {
					lists[v.Name] = append(lists[v.Name], one)
				}
			}
		}
		for _, s := range d.Provenance() {
			if s.Name == "firmware" || i == 0 { // all else is the same
				out.Provenance = append(out.Provenance, s)
			}
		}
	}
	if len(names) == 0 {
		return out, errors.New("no policy asks for any of the predicted values")
	}
	slices.Sort(names)
	for _, n := range names {
		raw, err := json.Marshal(lists[n])
		if err != nil {
			return out, err
		}
		out.Values = append(out.Values, refvalue.Value{Name: n, Value: raw})
	}
	return out, nil
}

// Unsigned writes the values as documents for 'kbsctl apply', which an
// administrator's own word takes the place of a signature for.
func Unsigned(d refvalue.Document) ([]byte, error) {
	var out []byte
	for i, v := range d.Values {
		if i > 0 {
			out = append(out, "---\n"...)
		}
		spec := map[string]any{"value": v.Value}
		if !d.NotAfter.IsZero() {
			spec["expires"] = d.NotAfter.Format(time.RFC3339)
		}
		raw, err := json.MarshalIndent(map[string]any{"kind": "RefValue", "metadata": map[string]string{"name": v.Name}, "spec": spec}, "", "  ")
		if err != nil {
			return nil, err
		}
		out = append(append(out, raw...), '\n')
	}
	return out, nil
}

// ParseMemory reads a size of memory as QEMU's -m takes it: 2G or 512M.
func ParseMemory(s string) (uint64, error) {
	var n uint64
	var unit string
	if _, err := fmt.Sscanf(s, "%d%s", &n, &unit); err != nil || n == 0 || n > 1<<20 {
		return 0, fmt.Errorf("%q is not a size of memory like 2G or 512M", s)
	}
	switch unit {
	case "M":
		return n << 20, nil
	case "G":
		return n << 30, nil
	}
	return 0, fmt.Errorf("%q is not a size of memory like 2G or 512M", s)
}
