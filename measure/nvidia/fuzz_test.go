package nvidia

import (
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure"
)

// small is a report with one measurement, short enough to be changed often.
func small(f *testing.F) ([]byte, *lab) {
	l := newLab(f, Launch{})
	d := l.device(func(r *Report) { r.Measurements = map[int][]byte{1: {1}}; delete(r.Opaque, FieldFWID) })
	return d.Report, l
}

// FuzzParseReport reads hostile reports. What it accepts can be written again,
// up to the answerer's nonce, which nobody keeps.
func FuzzParseReport(f *testing.F) {
	report, _ := small(f)
	f.Add(report)
	f.Add(report[:requestSize])
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := ParseReport(raw)
		if err != nil {
			return
		}
		r.Claims()
		again, err := ParseReport(append(r.transcript(), r.Signature[:]...))
		if err != nil || again.Nonce != r.Nonce || again.Driver() != r.Driver() || len(again.Measurements) != len(r.Measurements) {
			t.Errorf("%x is read in two ways: %v", raw, err)
		}
	})
}

// FuzzParseChain reads hostile chains.
func FuzzParseChain(f *testing.F) {
	_, l := small(f)
	f.Add(pemOf(l.chain()[0]))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		chain, err := parseChain(raw)
		if err != nil {
			return
		}
		if verifyChain(chain) == nil && len(chain) < 2 {
			t.Errorf("one certificate is a chain: %s", raw)
		}
		_, _, _ = firmware(chain[0]) // must not panic
	})
}

// FuzzParseEvidence reads hostile JSON.
func FuzzParseEvidence(f *testing.F) {
	f.Add([]byte(`{"device_evidence_list":[{"arch":"HOPPER","evidence":"EeAB","certificate":"LS0t"}]}`))
	f.Add([]byte(`{"device_evidence_list":[{"arch":"HOPPER","evidence":"11e001","certificate":""}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		devices, err := ParseEvidence(measure.Evidence{Platform: measure.NVIDIA, Data: raw})
		if err == nil && (len(devices) == 0 || len(devices) > maxDevices) {
			t.Errorf("%d devices", len(devices))
		}
	})
}

// FuzzParseManifest reads hostile manifests.
func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(`{"arch":"HOPPER","component":"driver","version":"1","measurements":{"2":["aa"]}}`))
	f.Add(swidOf("550.90.07", "GH100", map[int][]string{1: {zeros}}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := parseManifest(raw)
		if err == nil && len(m.measurements) == 0 {
			t.Errorf("accepted %s", raw)
		}
	})
}
