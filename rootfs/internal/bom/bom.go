// Package bom writes what an image is made of as bills of materials, in the two
// forms that tools read: SPDX 2.3 and CycloneDX 1.6. They are exact, for an image
// has nothing but what was taken from pinned packages and from the agent, whose
// modules stand in its own build information. No time is in them, so the same
// image has the same bill.
package bom

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// A Component is one thing that an image is made of.
type Component struct {
	Name, Version string
	PURL          string // package URL
	SHA256        string // hex; "" where only a module's name is known
}

// Bill is what is told of an image.
type Bill struct {
	Name       string // of the image
	Digest     string // SHA-256 in hex of all that it is made from
	Created    time.Time
	Components []Component
}

// Debian names a Debian package.
func Debian(name, version, architecture, digest string) Component {
	purl := "pkg:deb/debian/" + url.PathEscape(name) + "@" + url.PathEscape(version) + "?arch=" + architecture
	return Component{name, version, purl, digest}
}

// Kernel names a Linux kernel that comes from no package.
func Kernel(release, digest string) Component {
	return Component{"linux", release, "pkg:generic/linux@" + url.PathEscape(release), digest}
}

// Program lists a Go program and the modules in it.
func Program(name string, content []byte) ([]Component, error) {
	sum := sha256.Sum256(content)
	out := []Component{{Name: name, PURL: "pkg:generic/" + url.PathEscape(name), SHA256: hex.EncodeToString(sum[:])}}
	info, err := buildinfo.Read(bytes.NewReader(content))
	if err != nil {
		return nil, fmt.Errorf("%s has no build information of Go: %w", name, err)
	}
	version := strings.TrimPrefix(info.GoVersion, "go")
	version, _, _ = strings.Cut(version, " ")
	out = append(out, Component{Name: "std", Version: version, PURL: "pkg:golang/std@" + version})
	for _, m := range info.Deps {
		if m.Replace != nil && m.Replace.Version == "" {
			continue // a module of this repository, which is the agent's own
		}
		if m.Replace != nil {
			m = m.Replace
		}
		out = append(out, Component{Name: m.Path, Version: m.Version, PURL: "pkg:golang/" + m.Path + "@" + url.PathEscape(m.Version)})
	}
	slices.SortFunc(out[1:], func(a, b Component) int { return strings.Compare(a.PURL, b.PURL) })
	return out, nil
}

type object = map[string]any

// SPDX writes the bill in SPDX 2.3.
func (b Bill) SPDX() ([]byte, error) {
	packages := []object{{
		"SPDXID": "SPDXRef-Image", "name": b.Name, "downloadLocation": "NOASSERTION", "filesAnalyzed": false,
		"licenseConcluded": "NOASSERTION", "licenseDeclared": "NOASSERTION", "copyrightText": "NOASSERTION", "primaryPackagePurpose": "OPERATING-SYSTEM",
	}}
	relations := []object{{"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": "SPDXRef-Image"}}
	for i, c := range b.Components {
		id := fmt.Sprintf("SPDXRef-Package-%d", i+1)
		p := object{
			"SPDXID": id, "name": c.Name, "downloadLocation": "NOASSERTION", "filesAnalyzed": false,
			"licenseConcluded": "NOASSERTION", "licenseDeclared": "NOASSERTION", "copyrightText": "NOASSERTION",
			"externalRefs": []object{{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": c.PURL}},
		}
		if c.Version != "" {
			p["versionInfo"] = c.Version
		}
		if c.SHA256 != "" {
			p["checksums"] = []object{{"algorithm": "SHA256", "checksumValue": c.SHA256}}
		}
		packages = append(packages, p)
		relations = append(relations, object{"spdxElementId": "SPDXRef-Image", "relationshipType": "CONTAINS", "relatedSpdxElement": id})
	}
	return marshal(object{
		"spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT", "name": b.Name,
		"documentNamespace": "https://github.com/vouchsafe-cc/vouchsafe/spdx/" + b.Digest,
		"creationInfo":      object{"created": b.Created.UTC().Format(time.RFC3339), "creators": []string{"Tool: rootfs"}},
		"packages":          packages, "relationships": relations,
	})
}

// CycloneDX writes the bill in CycloneDX 1.6.
func (b Bill) CycloneDX() ([]byte, error) {
	var components []object
	for _, c := range b.Components {
		o := object{"type": "library", "bom-ref": c.PURL, "name": c.Name, "purl": c.PURL}
		if c.Version != "" {
			o["version"] = c.Version
		}
		if c.SHA256 != "" {
			o["hashes"] = []object{{"alg": "SHA-256", "content": c.SHA256}}
		}
		components = append(components, o)
	}
	return marshal(object{
		"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
		"metadata":   object{"component": object{"type": "operating-system", "bom-ref": "image", "name": b.Name}},
		"components": components,
	})
}

func marshal(o object) ([]byte, error) {
	raw, err := json.MarshalIndent(o, "", " ")
	return append(raw, '\n'), err
}
