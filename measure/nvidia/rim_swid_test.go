package nvidia

import (
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure"

	"github.com/vouchsafe-cc/vouchsafe/measure/internal/verdicttest"
)

const swidForm = `<SoftwareIdentity xmlns="http://standards.iso.org/iso/19770/-2/2015/schema.xsd"
 xmlns:ns0="http://standards.iso.org/iso/19770/-2/2015/schema.xsd" xmlns:ns2="http://www.w3.org/2001/04/xmlenc#sha384" name="GH100">
 <ns0:Entity name="NVIDIA Corporation" role="softwareCreator tagCreator"/>
 <ns0:Meta colloquialVersion="%s" edition="GPU" product="%s"/>
 <ns0:Payload>%s</ns0:Payload>
</SoftwareIdentity>`

// swidOf writes a manifest as NVIDIA does: measurements count from 0 on.
func swidOf(version, product string, measurements map[int][]string) []byte {
	var b strings.Builder
	for _, index := range slices.Sorted(maps.Keys(measurements)) {
		digests := measurements[index]
		fmt.Fprintf(&b, `<ns0:Resource type="Measurement" index="%d" active="True" alternatives="%d" size="48" name="Measurement_%d"`, index, len(digests), index)
		for i, d := range digests {
			fmt.Fprintf(&b, ` ns2:Hash%d="%s"`, i, d)
		}
		b.WriteString("/>\n")
	}
	b.WriteString(`<ns0:Resource type="Measurement" index="63" active="False" alternatives="1" ns2:Hash0="00" name="Measurement_63" size="48"/>`)
	return fmt.Appendf(nil, swidForm, version, product, b.String())
}

var zeros = strings.Repeat("00", 48)

// The report of a real H100 against manifests in NVIDIA's form. The index in a
// manifest is one less than that in the report.
func TestRealReportWithNVIDIAsManifests(t *testing.T) {
	d := realDevice(t, "case1")
	r, err := ParseReport(d.Report)
	if err != nil {
		t.Fatal(err)
	}
	of := func(index int) string { return hex.EncodeToString(r.Measurements[index]) }
	vbios := swidOf("96.00.9F.00.01", "GH100", map[int][]string{1: {of(2)}, 2: {of(3)}, 11: {zeros, strings.ToUpper(of(12))}})
	for name, c := range map[string]struct {
		driver  map[int][]string
		measres string
		failed  string
	}{
		"good":            {map[int][]string{7: {of(8)}, 21: {of(22)}, 27: {zeros, of(28)}}, "success", ""},
		"decoder is off":  {map[int][]string{7: {of(8)}, 35: {zeros}}, "success", ""},
		"beside decoder":  {map[int][]string{34: {zeros}}, "fail", "measurement 35 is not that of driver 550.90.07"},
		"one place off":   {map[int][]string{8: {of(8)}}, "fail", "measurement 9 is not that of driver 550.90.07"},
		"both say it":     {map[int][]string{1: {of(2)}}, "fail", "both say what measurement 2 is"},
		"not in a report": {map[int][]string{100: {of(2)}}, "fail", "measurement 101 is not that of driver"},
	} {
		t.Run(name, func(t *testing.T) {
			v := realVerifier(t, VerifierConfig{UnsafeNoRevocation: true, Devices: []int{1}, Manifests: [][]byte{swidOf("550.90.07", "GH100", c.driver), vbios}})
			got, err := verify(t, v, realExpected(t), d)
			if got.Claims[ClaimMeasurements] != c.measres {
				t.Errorf("measres is %v, want %s", got.Claims[ClaimMeasurements], c.measres)
			}
			if c.failed != "" {
				verdicttest.WantFailures(t, err, map[measure.CheckName]string{measure.CheckTCB: c.failed})
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestParseSWID(t *testing.T) {
	good := string(swidOf("550.90.07", "GB100", map[int][]string{0: {zeros}}))
	m, err := parseManifest([]byte("\n" + good))
	if err != nil || m.arch != Blackwell || m.component != Driver || m.version != "550.90.07" || len(m.measurements) != 1 || m.measurements[1][0] != zeros {
		t.Fatalf("%+v, %v", m, err)
	}
	if m, err := parseManifest(swidOf("96.00.6D.00.07", "GH100", map[int][]string{0: {zeros}})); err != nil || m.component != VBIOS || m.version != "96.00.6d.00.07" {
		t.Errorf("%+v, %v", m, err)
	}
	resource := `index="0" active="True" alternatives="1" size="48"`
	for name, c := range map[string]struct{ old, instead, want string }{
		"not XML":           {"</SoftwareIdentity>", "", "unexpected EOF"},
		"another namespace": {`schema.xsd"` + "\n xmlns:ns0", `schema.xsd2"` + "\n xmlns:ns0", "SoftwareIdentity"},
		"two payloads":      {"</ns0:Payload>", "</ns0:Payload><ns0:Payload></ns0:Payload>", "want one of each"},
		"no version":        {`colloquialVersion="550.90.07"`, "", "not that of a driver or a VBIOS"},
		"odd version":       {`"550.90.07"`, `"96.00.6D.00"`, "not that of a driver or a VBIOS"},
		"another product":   {`product="GB100"`, `product="LS10"`, "not a GPU that is known"},
		"negative index":    {`index="0"`, `index="-1"`, "index of its own"},
		"large index":       {`index="0"`, `index="127"`, "index of its own"},
		"index twice":       {`index="0"`, `index="63"`, "index of its own"},
		"no index":          {`index="0"`, ``, "index of its own"},
		"not a number":      {`index="0"`, `index="one"`, "invalid syntax"},
		"another type":      {`type="Measurement" index="0"`, `type="File" index="0"`, "not a measurement"},
		"perhaps active":    {resource, strings.Replace(resource, "True", "true", 1), "malformed"},
		"no alternative":    {resource, strings.Replace(resource, `s="1"`, `s="0"`, 1), "malformed"},
		"too few":           {resource, strings.Replace(resource, `s="1"`, `s="2"`, 1), "1 digests, and it says 2"},
		"another size":      {resource, strings.Replace(resource, "48", "32", 1), "not the hex of 32 bytes"},
		"another number":    {"ns2:Hash0=\"" + zeros, "ns2:Hash1=\"" + zeros, "no Hash0"},
		"not hex":           {zeros, zeros[2:] + "zz", "not the hex"},
		"twice":             {"ns2:Hash0=\"" + zeros, `ns0:Hash0="` + zeros + `" ns2:Hash0="` + zeros, "comes twice"},
		"all inactive":      {`active="True"`, `active="False"`, "no measurement is active"},
	} {
		changed := strings.Replace(good, c.old, c.instead, 1)
		if changed == good {
			t.Fatalf("%s: nothing changed", name)
		}
		if m, err := parseManifest([]byte(changed)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
}
