package nvidia

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure"

	"github.com/vouchsafe-cc/vouchsafe/measure/internal/evidencetest"

	"github.com/vouchsafe-cc/vouchsafe/measure/internal/verdicttest"
)

// realDevice is the evidence of an H100 with one of the chains that came with
// it.
func realDevice(t *testing.T, chain string) Device {
	t.Helper()
	text := strings.TrimSpace(string(evidencetest.File(t, "nvidia", "hopperAttestationReport.txt")))
	report, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return Device{Arch: Hopper, UUID: "1111-2222-33333-444444-555555", Report: report, Certificate: evidencetest.File(t, "nvidia", "hopper_cert_chain_"+chain+".txt")}
}

func realVerifier(t *testing.T, c VerifierConfig) *Verifier {
	t.Helper()
	c.Now = func() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) }
	v, err := NewVerifier(c)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

var allWaived = VerifierConfig{UnsafeNoRevocation: true, UnsafeNoManifest: true, Devices: []int{1}}

func realExpected(t *testing.T) measure.Expected {
	t.Helper()
	nonce, err := hex.DecodeString("931d8dd0add203ac3d8b4fbde75e115278eefcdceac5b87671a748f32364dfcb")
	if err != nil {
		t.Fatal(err)
	}
	return measure.Expected{ReportData: measure.BoundTo(nonce), InitData: measure.NotPresented()}
}

func TestRealReport(t *testing.T) {
	got, err := verify(t, realVerifier(t, allWaived), realExpected(t), realDevice(t, "case1"))
	if err != nil {
		t.Fatal(err)
	}
	if got.Root != (measure.Root{Name: RootName}) || got.Class != "gpu" {
		t.Errorf("%+v, class %s", got.Root, got.Class)
	}
	for _, name := range []measure.CheckName{CheckReport, measure.CheckSignature, measure.CheckChain, measure.CheckBinding, CheckDevices} {
		if c := got.Check(name); c.Outcome != measure.Passed {
			t.Errorf("%s is %s: %s", name, c.Outcome, c.Reason)
		}
	}
	for _, name := range []measure.CheckName{measure.CheckRevocation, measure.CheckTCB} {
		if c := got.Check(name); c.Outcome != measure.Waived || !strings.Contains(c.Reason, "waived by configuration") {
			t.Errorf("%s is %s: %s", name, c.Outcome, c.Reason)
		}
	}

	// The claims are those of the field's verifier, and more.
	raw, err := json.Marshal(got.Claims)
	if err != nil {
		t.Fatal(err)
	}
	var seen, want map[string]any
	if err := errors.Join(json.Unmarshal(raw, &seen), json.Unmarshal(evidencetest.File(t, "nvidia", "hopperAttestationReport-claims.txt"), &want)); err != nil {
		t.Fatal(err)
	}
	for name, v := range want {
		if !reflect.DeepEqual(seen[name], v) {
			t.Errorf("%s is %v, want %v", name, seen[name], v)
		}
	}
}

// Without waivers the same evidence is refused for what nobody decided.
func TestRealReportWithoutWaivers(t *testing.T) {
	_, err := verify(t, realVerifier(t, VerifierConfig{}), realExpected(t), realDevice(t, "case1"))
	verdicttest.WantFailures(t, err, map[measure.CheckName]string{
		measure.CheckRevocation: "nobody asked", measure.CheckTCB: "no manifest of driver 550.90.07", CheckDevices: "not as many GPUs",
	})
}

// The manifest of a release is compared.
func TestRealReportWithManifests(t *testing.T) {
	r, err := ParseReport(realDevice(t, "case1").Report)
	if err != nil {
		t.Fatal(err)
	}
	write := func(c Component, version string, change bool, wanted ...int) []byte {
		m := map[string][]string{}
		for _, i := range wanted {
			value := bytes.Clone(r.Measurements[i])
			value[0] ^= map[bool]byte{true: 1}[change]
			m[strconv.Itoa(i)] = []string{hex.EncodeToString(value)}
		}
		raw, err := json.Marshal(map[string]any{"arch": Hopper, "component": c, "version": version, "measurements": m})
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	for name, c := range map[string]struct {
		manifests [][]byte
		measres   string
		failed    string
	}{
		"good":               {[][]byte{write(Driver, "550.90.07", false, 2, 3, 4), write(VBIOS, "96.00.9f.00.01", false, 10, 12)}, "success", ""},
		"other driver":       {[][]byte{write(Driver, "550.90.07", true, 2), write(VBIOS, "96.00.9f.00.01", false, 10)}, "fail", "measurement 2 is not that of driver 550.90.07"},
		"conflict":           {[][]byte{write(Driver, "550.90.07", false, 2), write(VBIOS, "96.00.9f.00.01", false, 2)}, "fail", "both say what measurement 2 is"},
		"one is there":       {[][]byte{write(Driver, "550.90.07", false, 2)}, "absent", "no manifest of vbios 96.00.9f.00.01"},
		"beside the decoder": {[][]byte{write(Driver, "550.90.07", true, 35), write(VBIOS, "96.00.9f.00.01", false, 10)}, "fail", "measurement 35 is not that of driver"},
		// The decoder of this GPU is disabled: what was measured for it says nothing.
		"without decoder": {[][]byte{write(Driver, "550.90.07", true, 36), write(VBIOS, "96.00.9f.00.01", false, 10)}, "success", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := verify(t, realVerifier(t, VerifierConfig{UnsafeNoRevocation: true, Devices: []int{1}, Manifests: c.manifests}), realExpected(t), realDevice(t, "case1"))
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

// The other chains: the root alone, a chain with a gap, a chain without the
// signing certificate.
func TestRealReportWithOtherChains(t *testing.T) {
	for chain, want := range map[string]map[measure.CheckName]string{
		"case2": {CheckReport: "another kind of GPU", measure.CheckSignature: "did not sign", measure.CheckChain: "not one for signatures"},
		"case3": {measure.CheckChain: `"CN=NVIDIA GH100 Identity,O=NVIDIA Corporation" comes next`},
		"case4": {measure.CheckSignature: "did not sign", measure.CheckChain: "not one for signatures"},
	} {
		t.Run(chain, func(t *testing.T) {
			_, err := verify(t, realVerifier(t, allWaived), realExpected(t), realDevice(t, chain))
			verdicttest.WantFailures(t, err, want)
		})
	}
}

// No report with a changed byte is accepted: the signature is over all of it,
// from the request's first byte on. Nor is a chain with a changed byte.
func TestNoMutationIsAccepted(t *testing.T) {
	d, v, want := realDevice(t, "case1"), realVerifier(t, allWaived), realExpected(t)
	if _, err := verify(t, v, want, d); err != nil {
		t.Fatal(err)
	}
	step := 13
	if testing.Short() {
		step = 101
	}
	for at := 0; at < len(d.Report); at += step {
		changed := d
		changed.Report = bytes.Clone(d.Report)
		changed.Report[at] ^= 1 << (at % 8)
		if _, err := verify(t, v, want, changed); err == nil {
			t.Errorf("byte %d of the report changed, and it is accepted", at)
		}
	}
	chain, err := parseChain(d.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range chain {
		for at := i; at < len(c.Raw); at += 3 * step {
			der := bytes.Clone(c.Raw)
			der[at] ^= 1 << (at % 8)
			changed := d
			changed.Certificate = nil
			for j, other := range chain {
				if j == i {
					changed.Certificate = append(changed.Certificate, pemBlock(der)...)
				} else {
					changed.Certificate = append(changed.Certificate, pemOf(other)...)
				}
			}
			if _, err := verify(t, v, want, changed); err == nil {
				t.Errorf("byte %d of certificate %d changed, and the chain is accepted", at, i)
			}
		}
	}
}
