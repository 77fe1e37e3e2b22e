package build

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/bom"
)

// PayloadType is that of in-toto statements in DSSE envelopes.
const PayloadType = "application/vnd.in-toto+json"

// A Statement says which files were made how (in-toto attestation, statement
// v1; SLSA provenance v1).
type Statement struct {
	Type          string     `json:"_type"`
	Subject       []Resource `json:"subject"`
	PredicateType string     `json:"predicateType"`
	Predicate     Predicate  `json:"predicate"`
}

// Resource is a file, by its digest.
type Resource struct {
	Name   string            `json:"name,omitempty"`
	URI    string            `json:"uri,omitempty"`
	Digest map[string]string `json:"digest"`
}

// Predicate is how they were made.
type Predicate struct {
	BuildDefinition struct {
		BuildType            string         `json:"buildType"`
		ExternalParameters   map[string]any `json:"externalParameters"`
		ResolvedDependencies []Resource     `json:"resolvedDependencies"`
	} `json:"buildDefinition"`
	RunDetails struct {
		Builder struct {
			ID string `json:"id"`
		} `json:"builder"`
	} `json:"runDetails"`
}

const (
	statementType  = "https://in-toto.io/Statement/v1"
	provenanceType = "https://slsa.dev/provenance/v1"
	buildType      = "https://github.com/vouchsafe-cc/vouchsafe/rootfs/build/1"
)

// Provenance states that the files were made from the inputs.
func Provenance(in Inputs, files map[string][]byte, image *Image) ([]byte, error) {
	s := Statement{Type: statementType, PredicateType: provenanceType, Subject: Subjects(files)}
	d := &s.Predicate.BuildDefinition
	d.BuildType = buildType
	d.ExternalParameters = map[string]any{"form": in.Form, "recipe": digestOf(in.RecipeText), "cmdline": in.Recipe.Kernel.Cmdline}
	if in.SecureBoot != nil {
		d.ExternalParameters["secureboot_certificate"] = digestOf(in.SecureBoot.Certificate.Raw)
	}
	d.ResolvedDependencies = []Resource{{Name: "guest-agent", Digest: digestOf(in.Agent)}}
	if k := in.Kernel; k != nil {
		d.ResolvedDependencies = append(d.ResolvedDependencies, Resource{URI: bom.Kernel(k.Release, "").PURL, Name: "kernel", Digest: map[string]string{"sha256": k.SHA256}})
		if k.Described() {
			d.ResolvedDependencies = append(d.ResolvedDependencies, Resource{Name: "list of kernel modules", Digest: map[string]string{"sha256": k.Modules}})
		}
	}
	for _, p := range image.used(in) {
		d.ResolvedDependencies = append(d.ResolvedDependencies, Resource{
			URI: bom.Debian(p.Name, p.Version, p.Architecture, "").PURL, Digest: map[string]string{"sha256": p.SHA256},
		})
	}
	s.Predicate.RunDetails.Builder.ID = buildType
	raw, err := json.Marshal(s)
	return raw, err
}

// Subjects lists files, sorted by their names.
func Subjects(files map[string][]byte) []Resource {
	var out []Resource
	for _, name := range slices.Sorted(maps.Keys(files)) {
		out = append(out, Resource{Name: name, Digest: digestOf(files[name])})
	}
	return out
}

func digestOf(b []byte) map[string]string {
	sum := sha256.Sum256(b)
	return map[string]string{"sha256": hex.EncodeToString(sum[:])}
}
