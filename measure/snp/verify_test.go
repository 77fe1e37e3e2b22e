package snp

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure"

	"github.com/vouchsafe-cc/vouchsafe/measure/internal/verdicttest"
)

func TestSimulatedEvidencePasses(t *testing.T) {
	for _, g := range Generations() {
		for version := uint32(3); version <= 5; version++ {
			t.Run(fmt.Sprintf("%s v%d", g, version), func(t *testing.T) {
				l := newLab(t, g)
				got, err := l.verify(l.verifier(), l.evidence(func(r *Report) { r.Version = version }), l.expected())
				if err != nil {
					t.Fatal(err)
				}
				if want := (measure.Root{Name: "lab", Simulated: true}); got.Root != want {
					t.Errorf("root %+v, want %+v", got.Root, want)
				}
				for _, c := range got.Checks {
					want := measure.Passed
					if c.Name == measure.CheckEventLog {
						want = measure.NotApplicable
					}
					if c.Outcome != want {
						t.Errorf("%s is %s: %s", c.Name, c.Outcome, c.Reason)
					}
				}
				if len(got.Checks) != 8 || got.Platform != measure.SNP || got.Class != "cpu" {
					t.Errorf("verdict %+v", got)
				}
			})
		}
	}
}

func TestClaims(t *testing.T) {
	l := newLab(t, Genoa)
	got, err := l.verify(l.verifier(), l.evidence(func(r *Report) {
		r.Policy = 1<<20 | 1<<19 | 1<<18 | 1<<17 | 0x0137
		r.GuestSVN = 7
	}), l.expected())
	if err != nil {
		t.Fatal(err)
	}
	measurement, err := Predict(l.launch)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]any{
		"policy_abi_major": json.Number("1"), "policy_abi_minor": json.Number("55"),
		"policy_smt_allowed": false, "policy_migrate_ma": true, "policy_debug_allowed": true, "policy_single_socket": true,
		"reported_tcb_bootloader": json.Number("10"), "reported_tcb_tee": json.Number("0"),
		"reported_tcb_snp": json.Number("23"), "reported_tcb_microcode": json.Number("84"),
		"platform_tsme_enabled": false, "platform_smt_enabled": true,
		"measurement": hex.EncodeToString(measurement[:]), "report_data": hex.EncodeToString(challenge[:]),
		"init_data": hex.EncodeToString(l.launch.InitDataDigest[:32]), "chip_id": hex.EncodeToString(l.sim.report.ChipID[:]),
		"guest_svn": json.Number("7"), "vmpl": json.Number("0"), "simulated_root": "lab",
	} {
		if got.Claims[name] != want {
			t.Errorf("%s is %v (%T), want %v (%T)", name, got.Claims[name], got.Claims[name], want, want)
		}
	}
	for name, v := range got.Claims {
		switch v.(type) {
		case string, bool, json.Number:
		default:
			t.Errorf("claim %s has the type %T", name, v)
		}
	}
}

// A change of any signed byte must be found, wherever it is.
func TestEverySignedByteCounts(t *testing.T) {
	l := newLab(t, Genoa)
	v, raw := l.verifier(), l.evidence().Report.Marshal()
	refused := 0
	for at := range SignedSize {
		changed := append([]byte(nil), raw...)
		changed[at] ^= 1 << (at % 8)
		r, err := ParseReport(changed)
		if err != nil {
			refused++
			continue
		}
		e := &Evidence{Report: r, Certificates: l.sim.chain}
		_, err = l.verify(v, e, l.expected())
		ve, ok := errors.AsType[*measure.VerificationError](err)
		if !ok || !ve.Has(measure.CheckSignature) {
			t.Errorf("byte %#x changed and the signature still holds: %v", at, err)
		}
	}
	// In a report of version 3: the version itself, 4+21+2 reserved bytes, four
	// in each of four TCBs, and all from the mitigation vectors on.
	if want := 4 + 4 + 21 + 2 + 16 + (SignedSize - 0x1f8); refused != want {
		t.Errorf("%d bytes are refused by the parser, want %d", refused, want)
	}
}

func TestChangedSignature(t *testing.T) {
	l := newLab(t, Milan)
	for name, change := range map[string]func(*Report){
		"r":         func(r *Report) { r.SignatureR[0] ^= 1 },
		"s":         func(r *Report) { r.SignatureS[3] ^= 1 },
		"r is zero": func(r *Report) { r.SignatureR = [72]byte{} },
		"s is huge": func(r *Report) { r.SignatureS[71] = 0xff },
	} {
		t.Run(name, func(t *testing.T) {
			e := l.evidence()
			change(e.Report)
			_, err := l.verify(l.verifier(), e, l.expected())
			verdicttest.WantFailures(t, err, map[measure.CheckName]string{measure.CheckSignature: "did not sign"})
		})
	}
}

// Invariant 4: a simulated root never satisfies a configuration that does not
// name it.
func TestUnnamedRoot(t *testing.T) {
	for _, g := range Generations() {
		t.Run(string(g), func(t *testing.T) {
			l, other := newLab(t, g), newLabWith(t, g, 1, 0)
			for name, c := range map[string]func(*VerifierConfig){
				"none":          func(c *VerifierConfig) { c.UnsafeSimulatedRoots = nil },
				"another":       func(c *VerifierConfig) { c.UnsafeSimulatedRoots = []SimulatedRoot{other.root()} },
				"all waivers":   func(c *VerifierConfig) { *c = VerifierConfig{UnsafeNoRevocation: true} },
				"without chain": func(c *VerifierConfig) { c.UnsafeSimulatedRoots = nil },
			} {
				t.Run(name, func(t *testing.T) {
					e := l.evidence()
					if name == "without chain" {
						e.Certificates = e.Certificates[:1]
					}
					got, err := l.verify(l.verifier(c), e, l.expected())
					verdicttest.WantFailures(t, err, map[measure.CheckName]string{
						measure.CheckChain: "not end in a trusted root", measure.CheckRevocation: "without a trusted root",
					})
					if !verificationError(t, err).UntrustedRoot() {
						t.Error("UntrustedRoot does not say so")
					}
					if _, there := got.Claims[ClaimSimulatedRoot]; got.Root != (measure.Root{}) || there {
						t.Errorf("root %+v", got.Root)
					}
				})
			}
		})
	}
}

// A stranger who shows the certificates of a trusted root did not come from it.
func TestBorrowedChain(t *testing.T) {
	l, other := newLab(t, Genoa), newLabWith(t, Genoa, 1, 0)
	e := other.evidence()
	e.Certificates[1], e.Certificates[2] = l.sim.chain[1], l.sim.chain[2]
	_, err := l.verify(l.verifier(), e, l.expected())
	verdicttest.WantFailures(t, err, map[measure.CheckName]string{
		measure.CheckChain: "not signed by the ASK of lab", measure.CheckRevocation: "without a trusted root",
	})
	if verificationError(t, err).UntrustedRoot() {
		t.Error("a broken chain under a trusted root passes for a stranger's")
	}
}

func TestSuppliedCertificatesMustFit(t *testing.T) {
	l, other := newLab(t, Genoa), newLabWith(t, Genoa, 1, 0)
	e := l.evidence()
	e.Certificates[1], e.Certificates[2].Data = other.sim.chain[1], []byte{0x30}
	_, err := l.verify(l.verifier(), e, l.expected())
	verdicttest.WantFailures(t, err, map[measure.CheckName]string{measure.CheckChain: "ASK certificate in the evidence is not that of lab; the ARK certificate in the evidence is malformed"})
}

func TestTwoVendorsOfOneGeneration(t *testing.T) {
	l, other := newLab(t, Genoa), newLabWith(t, Genoa, 1, 0)
	v := l.verifier(func(c *VerifierConfig) {
		second := other.root()
		second.Name = "second"
		c.UnsafeSimulatedRoots = append(c.UnsafeSimulatedRoots, second)
	})
	got, err := l.verify(v, other.evidence(), other.expected())
	if err != nil || got.Root.Name != "second" {
		t.Fatalf("root %+v, %v", got.Root, err)
	}
}

func TestRevocation(t *testing.T) {
	l := newLab(t, Genoa)
	revoked := *l.vendor
	if err := revoked.revoke(l.now, l.vendor.ask); err != nil {
		t.Fatal(err)
	}
	noList := []byte(strings.SplitAfter(string(l.vendor.bundle()), "-----BEGIN X509 CRL")[0])
	noList = noList[:len(noList)-len("-----BEGIN X509 CRL")]
	crlEnd := l.vendor.crl.NextUpdate
	// A list that its root stopped renewing, and one from the future.
	stale, future := *l.vendor, *l.vendor
	if err := stale.revoke(l.now.Add(-vendorLife - time.Minute)); err != nil {
		t.Fatal(err)
	}
	if err := future.revoke(l.now.Add(48 * time.Hour)); err != nil {
		t.Fatal(err)
	}
	if !crlEnd.After(l.now) {
		t.Fatal("the vendor's list is out of date at once")
	}
	for _, c := range []struct {
		name   string
		bundle []byte
		waive  bool
		want   measure.Outcome
		reason string
	}{
		{"good", l.vendor.bundle(), false, measure.Passed, ""},
		{"revoked", revoked.bundle(), false, measure.Failed, "is revoked"},
		{"revoked, waived", revoked.bundle(), true, measure.Failed, "is revoked"},
		{"no list", noList, false, measure.Failed, "no revocation list"},
		{"no list, waived", noList, true, measure.Waived, "UnsafeNoRevocation"},
		{"stale", stale.bundle(), false, measure.Failed, "to be renewed"},
		{"stale, waived", stale.bundle(), true, measure.Waived, "to be renewed"},
		{"future", future.bundle(), false, measure.Failed, "after the time of verification"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := l.verifier(func(cfg *VerifierConfig) {
				cfg.UnsafeSimulatedRoots[0].Bundle = c.bundle
				cfg.UnsafeNoRevocation = c.waive
			})
			got, err := l.verify(v, l.evidence(), l.expected())
			check := got.Check(measure.CheckRevocation)
			if check.Outcome != c.want || !strings.Contains(check.Reason, c.reason) {
				t.Errorf("%s: %q", check.Outcome, check.Reason)
			}
			if (err != nil) != (c.want == measure.Failed) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestTimes(t *testing.T) {
	l := newLab(t, Genoa)
	for name, c := range map[string]struct {
		at   time.Duration
		want map[measure.CheckName]string
	}{
		"VCEK expired":      {vcekLife + time.Hour, map[measure.CheckName]string{measure.CheckChain: "SEV-VCEK is not valid"}},
		"not yet":           {-2 * clockSlack, map[measure.CheckName]string{measure.CheckChain: "ARK-Genoa is not valid", measure.CheckRevocation: "after the time"}},
		"all expired":       {vendorLife + time.Hour, map[measure.CheckName]string{measure.CheckChain: "SEV-Genoa is not valid", measure.CheckRevocation: "renewed"}},
		"a minute too late": {vcekLife + time.Minute, map[measure.CheckName]string{measure.CheckChain: "SEV-VCEK is not valid"}},
	} {
		t.Run(name, func(t *testing.T) {
			v := l.verifier(func(cfg *VerifierConfig) { cfg.Now = func() time.Time { return l.now.Add(c.at) } })
			_, err := l.verify(v, l.evidence(), l.expected())
			verdicttest.WantFailures(t, err, c.want)
			if verificationError(t, err).UntrustedRoot() {
				t.Error("an expired chain passes for a stranger's")
			}
		})
	}
}

func TestSignedButWrong(t *testing.T) {
	l := newLab(t, Genoa)
	second := l.guest(l.launch)
	for _, c := range []struct {
		name   string
		change func(*Report)
		want   map[measure.CheckName]string
	}{
		{"lowered TCB", func(r *Report) { r.ReportedTCB[7]-- }, map[measure.CheckName]string{measure.CheckTCB: "for another TCB"}},
		{"raised TCB", func(r *Report) { r.ReportedTCB[7]++ }, map[measure.CheckName]string{measure.CheckTCB: "newer than the current"}},
		{"committed above current", func(r *Report) { r.CommittedTCB[6]++ }, map[measure.CheckName]string{measure.CheckTCB: "committed TCB is newer"}},
		{"other chip", func(r *Report) { r.ChipID[9] ^= 1 }, map[measure.CheckName]string{measure.CheckTCB: "for another chip"}},
		{"chip id of zeros, not masked", func(r *Report) { r.ChipID = [64]byte{} }, map[measure.CheckName]string{measure.CheckTCB: "for another chip"}},
		{"VMPL 1", func(r *Report) { r.VMPL = 1 }, map[measure.CheckName]string{CheckReport: "most privileged"}},
		{"unknown processor", func(r *Report) { r.CPUModel = 0x55 }, map[measure.CheckName]string{
			CheckReport: "not known", measure.CheckChain: "no root can be chosen", measure.CheckTCB: "cannot be read", measure.CheckRevocation: "without a trusted root"}},
		{"other generation", func(r *Report) { r.CPUModel = 0x01 }, map[measure.CheckName]string{
			measure.CheckChain: "not end in a trusted root", measure.CheckRevocation: "without a trusted root"}},
		{"VLEK", func(r *Report) { r.KeyInfo = 1 << 2 }, map[measure.CheckName]string{
			measure.CheckSignature: "no VLEK", measure.CheckChain: "no VLEK", measure.CheckTCB: "no VLEK", measure.CheckRevocation: "without"}},
		{"unsigned", func(r *Report) { r.KeyInfo = 7 << 2 }, map[measure.CheckName]string{
			measure.CheckSignature: "kind none", measure.CheckChain: "kind none", measure.CheckTCB: "kind none", measure.CheckRevocation: "without"}},
		{"other algorithm", func(r *Report) { r.SignatureAlgorithm = 2 }, map[measure.CheckName]string{
			measure.CheckSignature: "not ECDSA", measure.CheckChain: "go-sev-guest"}},
		{"unknown policy bit", func(r *Report) { r.Policy |= 1 << 60 }, map[measure.CheckName]string{
			measure.CheckChain: "go-sev-guest disagrees", measure.CheckTCB: "go-sev-guest disagrees"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := l.verify(l.verifier(), l.evidence(c.change), l.expected())
			verdicttest.WantFailures(t, err, c.want)
		})
	}
	t.Run("swapped VCEK", func(t *testing.T) {
		e := l.evidence()
		e.Certificates[0] = second.chain[0]
		_, err := l.verify(l.verifier(), e, l.expected())
		verdicttest.WantFailures(t, err, map[measure.CheckName]string{measure.CheckSignature: "did not sign", measure.CheckTCB: "another chip"})
	})
	t.Run("no VCEK", func(t *testing.T) {
		e := l.evidence()
		e.Certificates = e.Certificates[1:]
		_, err := l.verify(l.verifier(), e, l.expected())
		verdicttest.WantFailures(t, err, map[measure.CheckName]string{measure.CheckSignature: "no VCEK", measure.CheckChain: "no VCEK",
			measure.CheckTCB: "no VCEK", measure.CheckRevocation: "without"})
	})
	t.Run("an ASK as VCEK", func(t *testing.T) {
		e := l.evidence()
		e.Certificates[0].Data = e.Certificates[1].Data
		_, err := l.verify(l.verifier(), e, l.expected())
		verdicttest.WantFailures(t, err, map[measure.CheckName]string{measure.CheckSignature: "P-384", measure.CheckChain: "malformed",
			measure.CheckTCB: "malformed", measure.CheckRevocation: "without"})
	})
}

// Models beyond those that go-sev-guest knows are Genoa's all the same.
func TestModels(t *testing.T) {
	l := newLab(t, Genoa)
	for _, model := range []uint8{0x10, 0x11, 0x1f, 0xa0, 0xae, 0xaf} {
		if _, err := l.verify(l.verifier(), l.evidence(func(r *Report) { r.CPUModel = model }), l.expected()); err != nil {
			t.Errorf("model %#x: %v", model, err)
		}
	}
}

func TestMaskedChip(t *testing.T) {
	l := newLab(t, Genoa)
	_, err := l.verify(l.verifier(), l.evidence(func(r *Report) { r.ChipID, r.KeyInfo = [64]byte{}, 2 }), l.expected())
	if err != nil {
		t.Fatal(err)
	}
}

// Later certificates of AMD wrap the chip id in an OCTET STRING.
func TestWrappedChip(t *testing.T) {
	l := newLab(t, Genoa)
	_, _, svns := Genoa.processor()
	key, cert, err := l.vendor.issueVCEK(append([]byte{4, 64}, l.sim.report.ChipID[:]...), svns, l.now)
	if err != nil {
		t.Fatal(err)
	}
	l.sim.key, l.sim.chain[0].Data = key, cert.Raw
	if _, err := l.verify(l.verifier(), l.evidence(), l.expected()); err != nil {
		t.Error(err)
	}
	_, err = l.verify(l.verifier(), l.evidence(func(r *Report) { r.ChipID[0] ^= 1 }), l.expected())
	verdicttest.WantFailures(t, err, map[measure.CheckName]string{measure.CheckTCB: "another chip"})
}

func TestProvisionalFirmwareIsForPolicies(t *testing.T) {
	l := newLab(t, Genoa)
	got, err := l.verify(l.verifier(), l.evidence(func(r *Report) { r.CommittedTCB[7]-- }), l.expected())
	if err != nil || got.Claims["committed_tcb_microcode"] != json.Number("83") {
		t.Fatalf("%v, %v", got.Claims["committed_tcb_microcode"], err)
	}
}

func TestReportVersion2(t *testing.T) {
	l := newLab(t, Milan)
	e := l.evidence(func(r *Report) { r.Version, r.CPUFamily, r.CPUModel, r.CPUStepping = 2, 0, 0, 0 })
	got, err := l.verify(l.verifier(), e, l.expected())
	if err != nil {
		t.Fatal(err)
	}
	if c := got.Check(CheckReport); c.Outcome != measure.Passed || !strings.Contains(c.Reason, "version 2") {
		t.Errorf("the version does not show: %+v", c)
	}
	if got.Claims["report_version"] != json.Number("2") {
		t.Errorf("a policy cannot ask for newer reports: %v", got.Claims["report_version"])
	}
	l = newLab(t, Turin)
	_, err = l.verify(l.verifier(), l.evidence(func(r *Report) { r.Version, r.CPUFamily, r.CPUModel, r.CPUStepping = 2, 0, 0, 0 }), l.expected())
	verdicttest.WantFailures(t, err, map[measure.CheckName]string{CheckReport: "version 2"})
}

func TestBindings(t *testing.T) {
	l := newLab(t, Genoa)
	digest := []byte("forty-eight bytes, as long as a SHA-384 digest is")[:48]
	short := l.evidence(func(r *Report) { r.ReportData = [64]byte{}; copy(r.ReportData[:], digest) })
	why := measure.UnsafeUnbound("a test")
	for _, c := range []struct {
		name         string
		e            *Evidence
		report, init measure.Binding
		want         map[measure.CheckName]string
		wantBinding  measure.Outcome
		wantInitData measure.Outcome
	}{
		{"both", l.evidence(), measure.BoundTo(challenge[:]), measure.BoundTo(l.launch.InitDataDigest), nil, measure.Passed, measure.Passed},
		{"48 bytes and zeros", short, measure.BoundTo(digest), measure.BoundTo(l.launch.InitDataDigest), nil, measure.Passed, measure.Passed},
		{"cut init-data", l.evidence(), measure.BoundTo(challenge[:]), measure.BoundTo(l.launch.InitDataDigest[:32]), nil, measure.Passed, measure.Passed},
		{"no init-data", l.evidence(), measure.BoundTo(challenge[:]), measure.NotPresented(), nil, measure.Passed, measure.NotApplicable},
		{"waived", l.evidence(), why, why, nil, measure.Waived, measure.Waived},
		{"48 bytes and more", l.evidence(), measure.BoundTo(challenge[:48]), measure.NotPresented(),
			map[measure.CheckName]string{measure.CheckBinding: "not bound to this challenge"}, measure.Failed, measure.NotApplicable},
		{"other report data", l.evidence(), measure.BoundTo(digest), measure.NotPresented(),
			map[measure.CheckName]string{measure.CheckBinding: "not bound to this challenge"}, measure.Failed, measure.NotApplicable},
		{"too long", l.evidence(), measure.BoundTo(append(challenge[:], 0)), measure.NotPresented(),
			map[measure.CheckName]string{measure.CheckBinding: "holds 64 bytes"}, measure.Failed, measure.NotApplicable},
		{"report data not presented", l.evidence(), measure.NotPresented(), measure.NotPresented(),
			map[measure.CheckName]string{measure.CheckBinding: "nothing was given"}, measure.Failed, measure.NotApplicable},
		{"bound to nothing", l.evidence(func(r *Report) { r.ReportData, r.HostData = [64]byte{}, [32]byte{} }), measure.BoundTo(nil), measure.BoundTo(nil),
			map[measure.CheckName]string{measure.CheckBinding: "nothing was given", measure.CheckInitData: "nothing was given"}, measure.Failed, measure.Failed},
		{"other init-data", l.evidence(), measure.BoundTo(challenge[:]), measure.BoundTo(digest),
			map[measure.CheckName]string{measure.CheckInitData: "not bound to this init-data"}, measure.Passed, measure.Failed},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := l.verify(l.verifier(), c.e, measure.Expected{ReportData: c.report, InitData: c.init})
			if c.want != nil {
				verdicttest.WantFailures(t, err, c.want)
			} else if err != nil {
				t.Fatal(err)
			}
			if b, i := got.Check(measure.CheckBinding).Outcome, got.Check(measure.CheckInitData).Outcome; b != c.wantBinding || i != c.wantInitData {
				t.Errorf("binding %s, init-data %s", b, i)
			}
		})
	}
	t.Run("unset", func(t *testing.T) {
		for _, want := range []measure.Expected{{}, {ReportData: why}, {InitData: why}} {
			if _, err := l.verify(l.verifier(), l.evidence(), want); !errors.Is(err, measure.ErrUnset) {
				t.Errorf("%+v: %v", want, err)
			}
		}
	})
}

func TestAllFailuresTogether(t *testing.T) {
	l := newLab(t, Genoa)
	second := l.guest(l.launch)
	e := l.evidence(func(r *Report) { r.VMPL, r.ReportedTCB[0] = 2, 1 })
	e.Certificates[0] = second.chain[0]
	v := l.verifier(func(c *VerifierConfig) { c.Now = func() time.Time { return l.now.Add(vendorLife + time.Hour) } })
	got, err := l.verify(v, e, measure.Expected{ReportData: measure.BoundTo([]byte("x")), InitData: measure.BoundTo([]byte("y"))})
	verdicttest.WantFailures(t, err, map[measure.CheckName]string{
		CheckReport: "privileged", measure.CheckSignature: "did not sign", measure.CheckChain: "not valid", measure.CheckRevocation: "renewed",
		measure.CheckTCB: "for another TCB; the VCEK certificate is for another chip", measure.CheckBinding: "challenge", measure.CheckInitData: "init-data",
	})
	f := got.Check(measure.CheckBinding).Findings
	if len(f) != 1 || f[0].Field != "report_data" || f[0].Seen != hex.EncodeToString(challenge[:]) || !strings.HasPrefix(f[0].Wanted[0], "7800") {
		t.Errorf("findings %+v", f)
	}
	if len(got.Claims) == 0 {
		t.Error("the verdict does not tell what was seen")
	}
}

func TestVerifyRefusesWhatItCannotRead(t *testing.T) {
	l := newLab(t, Genoa)
	ctx, cancel := context.WithCancel(context.Background())
	wire, err := l.evidence().Wire()
	if err != nil {
		t.Fatal(err)
	}
	other := wire
	other.Platform = measure.Sample
	for name, ev := range map[string]measure.Evidence{"other platform": other, "no JSON": {Platform: measure.SNP, Data: []byte("x")}} {
		if got, err := l.verifier().Verify(ctx, ev, l.expected()); err == nil || got.Checks != nil {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	cancel()
	if _, err := l.verifier().Verify(ctx, wire, l.expected()); !errors.Is(err, context.Canceled) {
		t.Errorf("after cancelling: %v", err)
	}
}

func TestConfiguration(t *testing.T) {
	l := newLab(t, Genoa)
	root := func(name string) SimulatedRoot { return SimulatedRoot{Name: name, Bundle: l.vendor.bundle()} }
	named := func(s ...SimulatedRoot) VerifierConfig { return VerifierConfig{UnsafeSimulatedRoots: s} }
	amd, err := amdRoots(nil)
	if err != nil {
		t.Fatal(err)
	}
	other := newLabWith(t, Genoa, 1, 0)
	mixed := (&vendor{ark: l.vendor.ark, ask: other.vendor.ask, crl: l.vendor.crl}).bundle()
	foreignList := (&vendor{ark: l.vendor.ark, ask: l.vendor.ask, crl: other.vendor.crl}).bundle()
	genuine := (&vendor{ark: amd[1].ark, ask: amd[1].ask, crl: l.vendor.crl}).bundle()
	for _, c := range []struct {
		name string
		cfg  VerifierConfig
		want string
	}{
		{"nothing configured", VerifierConfig{}, ""},
		{"one root", named(root("lab")), ""},
		{"no name", named(root("")), "needs a name"},
		{"AMD's name", named(root("AMD Genoa")), "start with AMD"},
		{"AMD's name, small", named(root("amd")), "start with AMD"},
		{"name twice", named(root("a"), root("a")), "two simulated roots"},
		{"not PEM", named(SimulatedRoot{Name: "a", Bundle: []byte("x")}), "not PEM"},
		{"empty", named(SimulatedRoot{Name: "a"}), "0 certificates"},
		{"trailing garbage", named(SimulatedRoot{Name: "a", Bundle: append(l.vendor.bundle(), 'x')}), "not PEM"},
		{"twice as much", named(SimulatedRoot{Name: "a", Bundle: append(l.vendor.bundle(), l.vendor.bundle()...)}), "unexpected PEM block"},
		{"ASK of another", named(SimulatedRoot{Name: "a", Bundle: mixed}), "not signed by the root"},
		{"list of another", named(SimulatedRoot{Name: "a", Bundle: foreignList}), "list is not signed"},
		{"AMD's root as simulated", named(SimulatedRoot{Name: "a", Bundle: genuine}), "list is not signed"},
		{"list for AMD by another", VerifierConfig{RevocationLists: map[Generation][]byte{Genoa: l.vendor.crl.Raw}}, "not signed by the root"},
		{"list is garbage", VerifierConfig{RevocationLists: map[Generation][]byte{Genoa: []byte("x")}}, "revocation list"},
		{"list for unknown", VerifierConfig{RevocationLists: map[Generation][]byte{"Rome": l.vendor.crl.Raw}}, "not one of"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := NewVerifier(c.cfg)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("error %v, want %q in it", err, c.want)
			}
		})
	}
	t.Run("AMD's root without a list", func(t *testing.T) {
		bundle := strings.Split(string(genuine), "-----BEGIN X509 CRL")[0]
		if _, err := NewVerifier(named(SimulatedRoot{Name: "a", Bundle: []byte(bundle)})); err == nil || !strings.Contains(err.Error(), "is the root of AMD Genoa") {
			t.Error(err)
		}
	})
}
