package nvidia

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// Component is what a manifest is about: a GPU runs firmware of two makers'
// releases.
type Component string

// The components.
const (
	Driver Component = "driver"
	VBIOS  Component = "vbios"
)

// maxManifest bounds a manifest, in bytes.
const maxManifest = 1 << 20

// manifest is a reference integrity manifest: which measurements a release of a
// component leads to. Any of the digests of an index is good.
type manifest struct {
	arch         Arch
	component    Component
	version      string
	measurements map[int][]string // lower-case hex, by SPDM index: from 1 on
}

// parseManifest reads a manifest as NVIDIA publishes it (see parseSWID), or
//
//	{"arch": "HOPPER", "component": "driver", "version": "550.90.07",
//	 "measurements": {"2": ["8048df..", ..], ..}}
//
// with the indices of the report and of the claims, measurements.2. NVIDIA's own
// manifests count from 0 on. Whoever configures a manifest vouches for it.
func parseManifest(raw []byte) (*manifest, error) {
	if len(raw) > maxManifest {
		return nil, fmt.Errorf("%d bytes, at most %d are allowed", len(raw), maxManifest)
	}
	if text := bytes.TrimSpace(raw); len(text) > 0 && text[0] == '<' {
		return parseSWID(text)
	}
	var w struct {
		Arch         Arch                `json:"arch"`
		Component    Component           `json:"component"`
		Version      string              `json:"version"`
		Measurements map[string][]string `json:"measurements"`
	}
	o, err := strictjson.Parse(raw)
	if err != nil {
		return nil, err
	}
	for name, v := range map[string]any{"arch": &w.Arch, "component": &w.Component, "version": &w.Version, "measurements": &w.Measurements} {
		if found, err := o.Take(name, v); err != nil || !found {
			return nil, errors.Join(fmt.Errorf("member %q is missing or malformed", name), err)
		}
	}
	if err := o.Done(); err != nil {
		return nil, err
	}
	m := &manifest{arch: w.Arch, component: w.Component, version: strings.ToLower(w.Version), measurements: map[int][]string{}}
	if m.arch != Hopper && m.arch != Blackwell || m.component != Driver && m.component != VBIOS || m.version == "" || len(w.Measurements) == 0 {
		return nil, errors.New("arch, component, version and measurements must each name something known")
	}
	for text, digests := range w.Measurements {
		index, err := strconv.Atoi(text)
		if err != nil || index < 1 || index > maxMeasurements || strconv.Itoa(index) != text || len(digests) == 0 {
			return nil, fmt.Errorf("measurement %.20q: want an index from 1 to %d with digests", text, maxMeasurements)
		}
		for _, d := range digests {
			b, err := hex.DecodeString(d)
			if err != nil || len(b) == 0 {
				return nil, fmt.Errorf("measurement %d: %.20q is not hex", index, d)
			}
			m.measurements[index] = append(m.measurements[index], hex.EncodeToString(b))
		}
	}
	return m, nil
}

// decoderIndex is measured only while the GPU's video decoder is enabled. In
// NVIDIA's own verifier and manifests, which count from 0 on, it is 35.
const decoderIndex = 36

// compare adds to the tally what differs between a report and a manifest.
func (m *manifest) compare(r *Report, t *measure.Tally) {
	for _, index := range indices(m.measurements) {
		if index == decoderIndex && r.decoderDisabled() {
			continue
		}
		seen := hex.EncodeToString(r.Measurements[index])
		if !slices.Contains(m.measurements[index], seen) {
			t.Find(fmt.Sprintf("measurement %d is not that of %s %s", index, m.component, m.version),
				"measurements."+strconv.Itoa(index), seen, m.measurements[index]...)
		}
	}
}

func indices[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

// manifestFor finds the manifest of a release.
func (v *Verifier) manifestFor(arch Arch, c Component, version string) *manifest {
	for _, m := range v.manifests {
		if m.arch == arch && m.component == c && m.version == version {
			return m
		}
	}
	return nil
}
