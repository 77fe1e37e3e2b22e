package nvidia

import (
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// swid is a manifest as NVIDIA's RIM service gives it out: a SWID tag with TCG's
// members (TCG Reference Integrity Manifest Information Model 1.01). Lists stand
// where one is allowed, so that a second one is seen.
//
// The XML signature at its end is not looked at.
type swid struct {
	XMLName xml.Name `xml:"http://standards.iso.org/iso/19770/-2/2015/schema.xsd SoftwareIdentity"`
	Meta    []struct {
		Version string `xml:"colloquialVersion,attr"`
		Product string `xml:"product,attr"`
	} `xml:"Meta"`
	Payload []struct {
		Resources []swidResource `xml:"Resource"`
	} `xml:"Payload"`
}

type swidResource struct {
	Type         string     `xml:"type,attr"`
	Index        *int       `xml:"index,attr"`
	Active       string     `xml:"active,attr"`
	Alternatives int        `xml:"alternatives,attr"`
	Size         int        `xml:"size,attr"`
	Attributes   []xml.Attr `xml:",any,attr"` // Hash0, Hash1, ..
}

// The two forms of a version: that of a VBIOS is five bytes in hex.
var (
	vbiosVersion  = regexp.MustCompile(`^[0-9a-f]{2}(\.[0-9a-f]{2}){4}$`)
	driverVersion = regexp.MustCompile(`^[0-9]{3,4}(\.[0-9]{1,4}){1,2}$`)
)

// parseSWID reads a manifest of NVIDIA's. Which component it is about, only the
// form of the version tells.
func parseSWID(raw []byte) (*manifest, error) {
	var w swid
	if err := xml.Unmarshal(raw, &w); err != nil {
		return nil, err
	}
	if len(w.Meta) != 1 || len(w.Payload) != 1 {
		return nil, fmt.Errorf("%d members Meta and %d Payload, want one of each", len(w.Meta), len(w.Payload))
	}
	m := &manifest{arch: archOfChip(w.Meta[0].Product), version: strings.ToLower(w.Meta[0].Version), measurements: map[int][]string{}}
	switch {
	case vbiosVersion.MatchString(m.version):
		m.component = VBIOS
	case driverVersion.MatchString(m.version):
		m.component = Driver
	default:
		return nil, fmt.Errorf("version %.40q is not that of a driver or a VBIOS", m.version)
	}
	if m.arch == "" {
		return nil, fmt.Errorf("product %.40q is not a GPU that is known", w.Meta[0].Product)
	}
	seen := map[int]bool{}
	for _, r := range w.Payload[0].Resources {
		if r.Type != "Measurement" || r.Index == nil || *r.Index < 0 || *r.Index >= maxMeasurements || seen[*r.Index] {
			return nil, errors.New("a resource is not a measurement with an index of its own")
		}
		seen[*r.Index] = true
		digests, err := r.digests()
		if err != nil {
			return nil, fmt.Errorf("measurement %d: %w", *r.Index, err)
		}
		if digests != nil {
			m.measurements[*r.Index+1] = digests
		}
	}
	if len(m.measurements) == 0 {
		return nil, errors.New("no measurement is active")
	}
	return m, nil
}

// digests returns the good values; nil where the release says nothing about
// the measurement.
func (r *swidResource) digests() ([]string, error) {
	if r.Active == "False" {
		return nil, nil
	}
	if r.Active != "True" || r.Alternatives < 1 || r.Size < 1 {
		return nil, errors.New("active, alternatives or size is malformed")
	}
	found := map[string]string{}
	for _, a := range r.Attributes {
		if !strings.HasPrefix(a.Name.Local, "Hash") {
			continue
		}
		b, err := hex.DecodeString(a.Value)
		if _, dup := found[a.Name.Local]; err != nil || len(b) != r.Size || dup {
			return nil, fmt.Errorf("%.20s comes twice, or is not the hex of %d bytes", a.Name.Local, r.Size)
		}
		found[a.Name.Local] = hex.EncodeToString(b)
	}
	if len(found) != r.Alternatives {
		return nil, fmt.Errorf("%d digests, and it says %d", len(found), r.Alternatives)
	}
	out := make([]string, r.Alternatives)
	for i := range out {
		digest, ok := found[fmt.Sprintf("Hash%d", i)]
		if !ok {
			return nil, fmt.Errorf("no Hash%d", i)
		}
		out[i] = digest
	}
	return out, nil
}
