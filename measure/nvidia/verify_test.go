package nvidia

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure"

	"github.com/vouchsafe-cc/vouchsafe/measure/internal/verdicttest"
)

func TestSimulatedEvidencePasses(t *testing.T) {
	for _, arch := range []Arch{Hopper, Blackwell} {
		t.Run(string(arch), func(t *testing.T) {
			l := newLab(t, Launch{Arch: arch})
			v := l.verifier()
			for range 2 { // the second time the chain is known
				ev, err := l.sim.Evidence(t.Context(), challenge)
				if err != nil {
					t.Fatal(err)
				}
				got, err := v.Verify(t.Context(), ev, expected())
				if err != nil {
					t.Fatal(err)
				}
				if got.Root != (measure.Root{Name: "lab", Simulated: true}) || got.Claims[ClaimSimulatedRoot] != "lab" || got.Claims[ClaimMeasurements] != "success" {
					t.Errorf("%+v, claims %v", got.Root, got.Claims)
				}
				for _, c := range got.Checks {
					want := measure.Passed
					switch c.Name {
					case measure.CheckRevocation:
						want = measure.Waived
					case measure.CheckInitData, measure.CheckEventLog:
						want = measure.NotApplicable
					}
					if c.Outcome != want {
						t.Errorf("%s is %s: %s", c.Name, c.Outcome, c.Reason)
					}
				}
			}
		})
	}
}

func TestRejections(t *testing.T) {
	l := newLab(t, Launch{})
	other := newLab(t, Launch{})
	late := func(c *VerifierConfig) { c.Now = func() time.Time { return l.now.Add(-24 * time.Hour) } }
	for name, c := range map[string]struct {
		change func(*Report)
		device func(*Device)
		config func(*VerifierConfig)
		want   map[measure.CheckName]string
	}{
		"another challenge":  {change: func(r *Report) { r.Nonce[0] ^= 1 }, want: map[measure.CheckName]string{measure.CheckBinding: "not bound to this challenge"}},
		"another driver":     {change: func(r *Report) { r.Opaque[FieldDriver] = []byte("1.2") }, want: map[measure.CheckName]string{measure.CheckTCB: "no manifest of driver 1.2"}},
		"another VBIOS":      {change: func(r *Report) { r.Opaque[FieldVBIOS] = []byte{1, 2} }, want: map[measure.CheckName]string{measure.CheckTCB: "no manifest of vbios 01.02"}},
		"other firmware":     {change: func(r *Report) { r.Opaque[FieldFWID] = make([]byte, 48) }, want: map[measure.CheckName]string{measure.CheckChain: "for other firmware"}},
		"no firmware id":     {change: func(r *Report) { delete(r.Opaque, FieldFWID) }, want: map[measure.CheckName]string{measure.CheckChain: "for other firmware"}},
		"no signature asked": {change: func(r *Report) { r.Signed = false }, want: map[measure.CheckName]string{CheckReport: "signature over all"}},
		"some measurements":  {change: func(r *Report) { r.All = false }, want: map[measure.CheckName]string{CheckReport: "signature over all"}},
		"other measurement":  {change: func(r *Report) { r.Measurements = changed(r.Measurements, 3) }, want: map[measure.CheckName]string{measure.CheckTCB: "measurement 3 is not that of driver"}},
		"measurement absent": {change: func(r *Report) { r.Measurements = changed(r.Measurements, -5) }, want: map[measure.CheckName]string{measure.CheckTCB: "measurement 5 is not that of vbios"}},
		"changed signature":  {device: func(d *Device) { d.Report[len(d.Report)-1] ^= 1 }, want: map[measure.CheckName]string{measure.CheckSignature: "did not sign"}},
		"a switch":           {device: func(d *Device) { d.Arch = "LS10" }, want: map[measure.CheckName]string{CheckReport: "not judged here", measure.CheckTCB: "no manifest"}},
		"another kind":       {device: func(d *Device) { d.Arch = Blackwell }, want: map[measure.CheckName]string{CheckReport: "another kind of GPU", measure.CheckTCB: "no manifest"}},
		"another GPU's chain": {device: func(d *Device) { d.Certificate = other.sim.gpus[0].chain }, want: map[measure.CheckName]string{
			measure.CheckSignature: "did not sign", measure.CheckChain: "not end in a trusted root",
		}},
		"before its time": {config: late, want: map[measure.CheckName]string{measure.CheckChain: "not valid at this time"}},
		"revocation":      {config: func(c *VerifierConfig) { c.UnsafeNoRevocation = false }, want: map[measure.CheckName]string{measure.CheckRevocation: "nobody asked"}},
		"no manifests":    {config: func(c *VerifierConfig) { c.Manifests = nil }, want: map[measure.CheckName]string{measure.CheckTCB: "no manifest of driver"}},
		"two expected":    {config: func(c *VerifierConfig) { c.Devices = []int{2, 4} }, want: map[measure.CheckName]string{CheckDevices: "not as many GPUs"}},
		"none expected":   {config: func(c *VerifierConfig) { c.Devices = nil }, want: map[measure.CheckName]string{CheckDevices: "not as many GPUs"}},
		"everything": {
			change: func(r *Report) { r.Nonce[0] ^= 1; r.Signed = false; r.Opaque[FieldFWID] = nil },
			config: func(c *VerifierConfig) { *c = VerifierConfig{Now: c.Now} },
			want: map[measure.CheckName]string{
				CheckReport: "", measure.CheckChain: "trusted root", measure.CheckRevocation: "", measure.CheckTCB: "", measure.CheckBinding: "", CheckDevices: "",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var changes []func(*Report)
			if c.change != nil {
				changes = append(changes, c.change)
			}
			d := l.device(changes...)
			if c.device != nil {
				c.device(&d)
			}
			var configs []func(*VerifierConfig)
			if c.config != nil {
				configs = append(configs, c.config)
			}
			v := l.verifier(configs...)
			for range 2 { // what is refused once is refused again
				_, err := verify(t, v, expected(), d)
				verdicttest.WantFailures(t, err, c.want)
			}
		})
	}
}

// No key is used that nobody vouched for: it may be one that takes long.
func TestChainFromTheRootDown(t *testing.T) {
	l := newLab(t, Launch{})
	chain := l.chain()
	forge := func(c *x509.Certificate) *x509.Certificate {
		der := bytes.Clone(c.Raw)
		der[len(der)-1] ^= 1
		forged, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return forged
	}
	d := l.device()
	d.Certificate = pemOf(forge(chain[0]), forge(chain[1]), chain[2])
	_, err := verify(t, l.verifier(), expected(), d)
	verdicttest.WantFailures(t, err, map[measure.CheckName]string{measure.CheckChain: "certificate 1 ("})
	// A stranger's root: not even the signatures below it are looked at.
	stranger := newLab(t, Launch{}).chain()
	d.Certificate = pemOf(forge(stranger[0]), stranger[1], stranger[2])
	_, err = verify(t, l.verifier(), expected(), d)
	verdicttest.WantFailures(t, err, map[measure.CheckName]string{measure.CheckChain: "trusted root", measure.CheckSignature: ""})
	if strings.Contains(err.Error(), "not signed by the next") {
		t.Errorf("the keys of a stranger were used: %v", err)
	}
}

// changed copies measurements; a negative index is taken away.
func changed(m map[int][]byte, index int) map[int][]byte {
	out := map[int][]byte{}
	for i, v := range m {
		out[i] = bytes.Clone(v)
	}
	if index < 0 {
		delete(out, -index)
	} else {
		out[index][0] ^= 1
	}
	return out
}

// Where a manifest is given, no waiver covers another measurement.
func TestWaiverCoversOnlyWhatIsAbsent(t *testing.T) {
	l := newLab(t, Launch{})
	v := l.verifier(func(c *VerifierConfig) { c.UnsafeNoManifest, c.UnsafeAnyDevices, c.Devices = true, true, nil })
	_, err := verify(t, v, expected(), l.device(func(r *Report) { r.Measurements = changed(r.Measurements, 1) }))
	verdicttest.WantFailures(t, err, map[measure.CheckName]string{measure.CheckTCB: "measurement 1 is not"})
	got, err := verify(t, v, expected(), l.device(func(r *Report) { r.Opaque[FieldDriver] = []byte("x") }))
	if err != nil || got.Check(measure.CheckTCB).Outcome != measure.Waived || got.Check(CheckDevices).Outcome != measure.Waived || got.Claims[ClaimMeasurements] != "absent" {
		t.Errorf("%v: %+v", err, got)
	}
	want := expected()
	want.ReportData = measure.UnsafeUnbound("test")
	if got, err = verify(t, v, want, l.device(func(r *Report) { r.Nonce[0] ^= 1 })); err != nil || got.Check(measure.CheckBinding).Outcome != measure.Waived {
		t.Errorf("%v: %+v", err, got.Check(measure.CheckBinding))
	}
}

// A simulated root never satisfies a configuration that does not name it.
func TestUnnamedRoot(t *testing.T) {
	l, other := newLab(t, Launch{}), newLab(t, Launch{})
	for name, c := range map[string]func(*VerifierConfig){
		"none":    func(c *VerifierConfig) { c.UnsafeSimulatedRoots = nil },
		"another": func(c *VerifierConfig) { c.UnsafeSimulatedRoots = []SimulatedRoot{other.root()} },
		"all waived": func(c *VerifierConfig) {
			*c = VerifierConfig{UnsafeNoManifest: true, UnsafeNoRevocation: true, UnsafeAnyDevices: true}
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := verify(t, l.verifier(c), expected(), l.device())
			verdicttest.WantFailures(t, err, map[measure.CheckName]string{measure.CheckChain: "not end in a trusted root"})
			if ve, _ := errors.AsType[*measure.VerificationError](err); !ve.UntrustedRoot() {
				t.Error("UntrustedRoot does not say so")
			}
			if _, there := got.Claims[ClaimSimulatedRoot]; there || got.Root != (measure.Root{}) {
				t.Errorf("root %+v", got.Root)
			}
		})
	}
}

// Chains that are signed throughout, and still wrong.
func TestBadChains(t *testing.T) {
	l := newLab(t, Launch{})
	chain := l.chain()
	chipKey, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	build := func(chipChange, leafChange func(*x509.Certificate)) []byte {
		chip := authority("GH100 chip", l.now)
		chipChange(chip)
		chipCert, err := l.vendor.issue(chip, l.vendor.cert, chipKey.Public())
		if err != nil {
			t.Fatal(err)
		}
		extension, err := fwidExtension(chipCert.RawSubjectPublicKeyInfo, simFWID(l.sim.launch))
		if err != nil {
			t.Fatal(err)
		}
		leaf := &x509.Certificate{
			Subject: pkix.Name{CommonName: "GH100 firmware"}, NotBefore: l.now.Add(-time.Hour), NotAfter: never,
			KeyUsage: x509.KeyUsageDigitalSignature, ExtraExtensions: []pkix.Extension{extension},
		}
		leafChange(leaf)
		cert, err := issue(leaf, chipCert, l.sim.gpus[0].key.Public(), chipKey)
		if err != nil {
			t.Fatal(err)
		}
		return pemOf(cert, chipCert, l.vendor.cert)
	}
	asIs := func(*x509.Certificate) {}
	if _, err := verify(t, l.verifier(), expected(), func() Device { d := l.device(); d.Certificate = build(asIs, asIs); return d }()); err != nil {
		t.Fatalf("the chain that is changed below is no good itself: %v", err)
	}
	for name, c := range map[string]struct {
		chain []byte
		want  string
	}{
		"chip is no authority": {build(func(c *x509.Certificate) { c.IsCA, c.KeyUsage = false, x509.KeyUsageDigitalSignature }, asIs), "is not signed by the next"},
		"leaf is an authority": {build(asIs, func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }), "not one for signatures"},
		"leaf signs nothing":   {build(asIs, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement }), "not one for signatures"},
		"leaf without fwid":    {build(asIs, func(c *x509.Certificate) { c.ExtraExtensions = nil }), "does not say which firmware"},
		"malformed fwid":       {build(asIs, func(c *x509.Certificate) { c.ExtraExtensions[0].Value = []byte{0x30, 0} }), "identifier is malformed"},
		"fwid of another GPU": {build(asIs, func(c *x509.Certificate) {
			e, err := fwidExtension(chain[1].RawSubjectPublicKeyInfo, simFWID(l.sim.launch))
			if err != nil {
				t.Fatal(err)
			}
			c.ExtraExtensions[0] = e
		}), "for another GPU"},
		"unknown critical": {build(asIs, func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}})
		}), "critical extension 1.2.3"},
		"expired":       {build(asIs, func(c *x509.Certificate) { c.NotAfter = l.now.Add(-time.Minute) }), "not valid at this time"},
		"root left out": {pemOf(chain[:2]...), "not end in a trusted root"},
		"wrong order":   {pemOf(chain[1], chain[0], chain[2]), "comes next"},
		"leaf twice":    {pemOf(chain[0], chain[0], chain[1], chain[2]), "comes next"},
		"leaf alone":    {pemOf(chain[0]), "not end in a trusted root"},
	} {
		t.Run(name, func(t *testing.T) {
			d := l.device()
			d.Certificate = c.chain
			_, err := verify(t, l.verifier(), expected(), d)
			ve, ok := errors.AsType[*measure.VerificationError](err)
			if !ok || !ve.Has(measure.CheckChain) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func TestSeveralGPUs(t *testing.T) {
	l := newLab(t, Launch{Count: 3})
	ev, err := l.sim.Evidence(t.Context(), challenge)
	if err != nil {
		t.Fatal(err)
	}
	all, err := measure.VerifyAll(t.Context(), l.verifier(), ev, expected())
	if err != nil || len(all) != 3 {
		t.Fatalf("%d verdicts, %v", len(all), err)
	}
	one, err := l.verifier().Verify(t.Context(), ev, expected())
	if err != nil || len(one.Claims["devices"].([]any)) != 3 || !one.Root.Simulated || one.Claims[ClaimSimulatedRoot] != "lab" {
		t.Errorf("%+v, %v", one, err)
	}

	// One of them is not as it should be.
	devices, err := ParseEvidence(ev)
	if err != nil {
		t.Fatal(err)
	}
	devices[1].Report[len(devices[1].Report)-1] ^= 1
	_, err = verify(t, l.verifier(), expected(), devices...)
	verdicttest.WantFailures(t, err, map[measure.CheckName]string{measure.CheckSignature: "device 1: the key"})

	// One GPU does not count for two, even with two reports.
	devices[1].Certificate = devices[0].Certificate
	devices[1].Report = l.device().Report
	_, err = verify(t, l.verifier(), expected(), devices...)
	if ve, ok := errors.AsType[*measure.VerificationError](err); !ok || !ve.Has(CheckDevices) || !strings.Contains(err.Error(), "the same GPU as device 0") {
		t.Errorf("%v", err)
	}
}

func TestUndecided(t *testing.T) {
	l := newLab(t, Launch{})
	if _, err := verify(t, l.verifier(), measure.Expected{}, l.device()); !errors.Is(err, measure.ErrUnset) {
		t.Errorf("%v", err)
	}
	for _, want := range []measure.Binding{measure.NotPresented(), measure.BoundTo(nil), measure.BoundTo(make([]byte, 65))} {
		_, err := verify(t, l.verifier(), measure.Expected{ReportData: want, InitData: measure.NotPresented()}, l.device())
		verdicttest.WantFailures(t, err, map[measure.CheckName]string{measure.CheckBinding: ""})
	}
}

func TestConfigurations(t *testing.T) {
	l := newLab(t, Launch{})
	good := string(l.manifests()[0])
	manifest := func(from, to string) VerifierConfig {
		return VerifierConfig{Manifests: [][]byte{[]byte(strings.Replace(good, from, to, 1))}}
	}
	for name, c := range map[string]VerifierConfig{
		"no name":            {UnsafeSimulatedRoots: []SimulatedRoot{{Certificate: l.root().Certificate}}},
		"NVIDIA's name":      {UnsafeSimulatedRoots: []SimulatedRoot{{Name: "nvidia lab", Certificate: l.root().Certificate}}},
		"a name twice":       {UnsafeSimulatedRoots: []SimulatedRoot{l.root(), l.root()}},
		"no certificate":     {UnsafeSimulatedRoots: []SimulatedRoot{{Name: "lab"}}},
		"two certificates":   {UnsafeSimulatedRoots: []SimulatedRoot{{Name: "lab", Certificate: append(l.root().Certificate, l.root().Certificate...)}}},
		"no devices":         {Devices: []int{0}},
		"many devices":       {Devices: []int{maxDevices + 1}},
		"manifest twice":     {Manifests: append(l.manifests(), l.manifests()...)},
		"manifest not JSON":  {Manifests: [][]byte{[]byte("<xml/>")}},
		"unknown member":     manifest(`"version"`, `"x": 1, "version"`),
		"unknown component":  manifest(`"component": "driver"`, `"component": "inforom"`),
		"unknown kind":       manifest(`"HOPPER"`, `"LS10"`),
		"no version":         manifest(`"version": "550.90.07"`, `"version": ""`),
		"index 0":            manifest(`"1":`, `"0":`),
		"index in two forms": manifest(`"1":`, `"01":`),
		"not hex":            manifest(`"1": [`, `"1": ["zz",`),
	} {
		if _, err := NewVerifier(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := NewVerifier(manifest("", "")); err != nil {
		t.Errorf("the manifest that is changed above: %v", err)
	}
}

func TestNothingIsOverwritten(t *testing.T) {
	l := newLab(t, Launch{})
	if err := CreateVendor(l.dir); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second authority: %v", err)
	}
	if err := CreateGuest(l.dir, l.guest, Launch{}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second GPUs: %v", err)
	}
	for name, launch := range map[string]Launch{"kind": {Arch: "LS10"}, "count": {Count: maxDevices + 1}, "VBIOS": {VBIOS: "1.2"}} {
		if err := CreateGuest(l.dir, filepath.Join(t.TempDir(), "x"), launch); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestMalformed(t *testing.T) {
	l := newLab(t, Launch{})
	good := l.device()
	report := func(change func([]byte) []byte) Device {
		d := good
		d.Report = change(bytes.Clone(good.Report))
		return d
	}
	signed := func(change func(*Report)) Device { return l.device(change) }
	for name, d := range map[string]Device{
		"empty":               report(func([]byte) []byte { return nil }),
		"another request":     report(func(b []byte) []byte { b[1] = 0xe1; return b }),
		"SPDM 1.2":            report(func(b []byte) []byte { b[0] = 0x12; return b }),
		"another answer":      report(func(b []byte) []byte { b[requestSize+1] = 0x7f; return b }),
		"too many blocks":     report(func(b []byte) []byte { b[requestSize+4] = 200; return b }),
		"a block less":        report(func(b []byte) []byte { b[requestSize+4]--; return b }),
		"a longer record":     report(func(b []byte) []byte { b[requestSize+7] = 0xff; return b }),
		"another spec":        report(func(b []byte) []byte { b[requestSize+responseHead+1] = 2; return b }),
		"a block twice":       report(func(b []byte) []byte { b[requestSize+responseHead+4+51] = 1; return b }),
		"without a signature": report(func(b []byte) []byte { return b[:len(b)-1] }),
		"no driver":           signed(func(r *Report) { delete(r.Opaque, FieldDriver) }),
		"no VBIOS":            signed(func(r *Report) { delete(r.Opaque, FieldVBIOS) }),
		"odd VBIOS":           signed(func(r *Report) { r.Opaque[FieldVBIOS] = []byte{1, 2, 3} }),
		"odd counts":          signed(func(r *Report) { r.Opaque[FieldMeasurementCount] = []byte{1} }),
		"no measurements":     signed(func(r *Report) { r.Measurements = nil }),
		"no chain":            {Arch: Hopper, Report: good.Report},
		"chain is not PEM":    {Arch: Hopper, Report: good.Report, Certificate: []byte("x")},
		"a key in the chain":  {Arch: Hopper, Report: good.Report, Certificate: []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")},
		"a long chain":        {Arch: Hopper, Report: good.Report, Certificate: bytes.Repeat(pemOf(l.vendor.cert), maxChain+1)},
	} {
		got, err := verify(t, l.verifier(), expected(), d)
		if _, judged := errors.AsType[*measure.VerificationError](err); err == nil || judged || got.Checks != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, data := range []string{``, `null`, `[]`, `{}`, `{"device_evidence_list":[]}`, `{"device_evidence_list":[{"arch":1}]}`, `{"device_evidence_list":[{"evidence":"!","certificate":""}]}`} {
		if _, err := ParseEvidence(measure.Evidence{Platform: measure.NVIDIA, Data: json.RawMessage(data)}); err == nil {
			t.Errorf("%s: accepted", data)
		}
	}
	ev, err := Wire(good)
	if err != nil {
		t.Fatal(err)
	}
	ev.Platform = measure.SNP
	if _, err := ParseEvidence(ev); err == nil {
		t.Error("evidence of another platform")
	}
}

// Older guests send the report in hex, and spell the kind as they like; bytes
// behind the report do not count.
func TestOlderWire(t *testing.T) {
	l := newLab(t, Launch{})
	d := l.device()
	data, err := json.Marshal(map[string]any{"device_evidence_list": []any{map[string]any{
		"arch": "Hopper", "evidence": hex.EncodeToString(append(d.Report, 0, 0)), "certificate": base64.StdEncoding.EncodeToString(d.Certificate),
	}}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := l.verifier().Verify(t.Context(), measure.Evidence{Platform: measure.NVIDIA, Data: data}, expected())
	if err != nil || got.Claims["uuid"] != "unknown" || got.Claims["arch"] != "Hopper" {
		t.Errorf("%v: %v", err, got.Claims)
	}
}

func TestOpaqueClaims(t *testing.T) {
	r := &Report{Opaque: map[FieldType][]byte{
		FieldDriver: []byte("1\x01"), FieldVBIOS: {0, 0x9f, 0, 0x96, 1, 0, 0, 0}, FieldFeature: {2}, 34: {7}, 99: {1, 2}, FieldMeasurementCount: {3, 0, 0, 0, 1, 1, 0, 0},
	}}
	raw, err := json.Marshal(r.config())
	if want := `{"driver_version":"3101","feature_flag":"PPCIE","measurement_count":{"1":3,"2":257},"opaque_data_version":"07","unknown_99":"0102","vbios_version":"96.00.9f.00.01"}`; err != nil || string(raw) != want {
		t.Errorf("%s, %v", raw, err)
	}
	for b, want := range map[byte]string{0: "SPT", 1: "MPT", 9: "09"} {
		if got := feature([]byte{b}); got != want {
			t.Errorf("feature %d is %s", b, got)
		}
	}
}
