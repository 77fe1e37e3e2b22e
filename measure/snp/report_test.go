package snp

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/google/go-sev-guest/abi"
)

// pattern is a report in which every byte that may differ differs.
func pattern(version uint32, family uint8) []byte {
	raw := make([]byte, ReportSize)
	for i := range raw {
		raw[i] = byte(i*7 + i>>8 + 1)
	}
	binary.LittleEndian.PutUint32(raw, version)
	binary.LittleEndian.PutUint64(raw[0x08:], 0x1f0137|1<<17)
	binary.LittleEndian.PutUint32(raw[0x34:], 1)
	binary.LittleEndian.PutUint32(raw[0x48:], 3)
	raw[0x188] = family
	zero := [][2]int{{0x4c, 0x50}, {0x18b, 0x1a0}, {0x1eb, 0x1ec}, {0x1ef, 0x1f0}, {0x208, 0x2a0}, {0x330, 0x4a0}}
	if version < 3 {
		zero = append(zero, [2]int{0x188, 0x18b})
	}
	if version < 3 && family == familyZen5 {
		zero = append(zero, [2]int{0x1a8, 0x1e0}) // how such a report tells that it is Turin's
	}
	if version < 5 {
		zero = append(zero, [2]int{0x1f8, 0x208})
	}
	for _, tcb := range []int{0x38, 0x180, 0x1e0, 0x1f0} {
		if family == familyZen5 {
			zero = append(zero, [2]int{tcb + 4, tcb + 7})
		} else {
			zero = append(zero, [2]int{tcb + 2, tcb + 6})
		}
	}
	for _, z := range zero {
		clear(raw[z[0]:z[1]])
	}
	return raw
}

// The parser of go-sev-guest, written by others, must see the same fields.
func TestParseReportAgreesWithLibrary(t *testing.T) {
	for version := uint32(2); version <= 5; version++ {
		for _, family := range []uint8{familyZen3, familyZen5} {
			raw := pattern(version, family)
			r, err := ParseReport(raw)
			if err != nil {
				t.Fatalf("v%d: %v", version, err)
			}
			if !bytes.Equal(r.Marshal(), raw) {
				t.Fatalf("v%d does not come back", version)
			}
			p, err := abi.ReportToProto(raw)
			if err != nil {
				t.Fatal(err)
			}
			for name, pair := range map[string][2]any{
				"version": {r.Version, p.Version}, "guest_svn": {r.GuestSVN, p.GuestSvn}, "policy": {r.Policy, p.Policy},
				"vmpl": {r.VMPL, p.Vmpl}, "sig_algo": {r.SignatureAlgorithm, p.SignatureAlgo}, "plat_info": {r.PlatformInfo, p.PlatformInfo},
				"key_info": {r.KeyInfo, p.SignerInfo}, "current_tcb": {binary.LittleEndian.Uint64(r.CurrentTCB[:]), p.CurrentTcb},
				"reported_tcb": {binary.LittleEndian.Uint64(r.ReportedTCB[:]), p.ReportedTcb}, "launch_tcb": {binary.LittleEndian.Uint64(r.LaunchTCB[:]), p.LaunchTcb},
				"committed_tcb": {binary.LittleEndian.Uint64(r.CommittedTCB[:]), p.CommittedTcb}, "launch_mit": {r.LaunchMitigations, p.LaunchMitVector},
				"current_mit": {r.CurrentMitigations, p.CurrentMitVector}, "measurement": {string(r.Measurement[:]), string(p.Measurement)},
				"host_data": {string(r.HostData[:]), string(p.HostData)}, "report_data": {string(r.ReportData[:]), string(p.ReportData)},
				"family_id": {string(r.FamilyID[:]), string(p.FamilyId)}, "image_id": {string(r.ImageID[:]), string(p.ImageId)},
				"id_key": {string(r.IDKeyDigest[:]), string(p.IdKeyDigest)}, "author_key": {string(r.AuthorKeyDigest[:]), string(p.AuthorKeyDigest)},
				"report_id": {string(r.ReportID[:]), string(p.ReportId)}, "report_id_ma": {string(r.ReportIDMA[:]), string(p.ReportIdMa)},
				"chip_id": {string(r.ChipID[:]), string(p.ChipId)}, "signature r": {string(r.SignatureR[:]), string(p.Signature[:72])},
				"signature s":   {string(r.SignatureS[:]), string(p.Signature[72:144])},
				"current build": {uint32(r.Current.Build), p.CurrentBuild}, "current minor": {uint32(r.Current.Minor), p.CurrentMinor},
				"current major": {uint32(r.Current.Major), p.CurrentMajor}, "committed build": {uint32(r.Committed.Build), p.CommittedBuild},
				"committed minor": {uint32(r.Committed.Minor), p.CommittedMinor}, "committed major": {uint32(r.Committed.Major), p.CommittedMajor},
			} {
				if pair[0] != pair[1] {
					t.Errorf("v%d: %s is %v, the library has %v", version, name, pair[0], pair[1])
				}
			}
		}
	}
}

func TestParseReportRefuses(t *testing.T) {
	good := pattern(3, familyZen3)
	for _, c := range []struct {
		name string
		in   []byte
		want string
	}{
		{"empty", nil, "1184 bytes"},
		{"short", good[:ReportSize-1], "1184 bytes"},
		{"long", append(bytes.Clone(good), 0), "1184 bytes"},
		{"version 1", pattern(1, familyZen3), "version 1"},
		{"version 6", pattern(6, familyZen3), "version 6"},
		{"reserved", with(good, 0x4c, 1), "at 0x4c"},
		{"reserved after the CPU", with(good, 0x18b, 1), "at 0x18b"},
		{"CPU in version 2", with(pattern(2, familyZen3), 0x189, 1), "at 0x189"},
		{"mitigations in version 4", with(pattern(4, familyZen3), 0x200, 1), "at 0x200"},
		{"after the signature", with(good, ReportSize-1, 1), "at 0x49f"},
		{"TCB of Milan", with(good, 0x182, 1), "reported_tcb"},
		{"TCB of Turin", with(pattern(3, familyZen5), 0x1f4, 1), "launch_tcb"},
	} {
		if _, err := ParseReport(c.in); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q in it", c.name, err, c.want)
		}
	}
}

func with(raw []byte, at int, v byte) []byte {
	raw = bytes.Clone(raw)
	raw[at] = v
	return raw
}

func TestTCBLayout(t *testing.T) {
	tcb := TCB{1, 2, 3, 4, 5, 6, 7, 8}
	for g, want := range map[Generation]string{
		Milan: "bootloader 1, tee 2, snp 7, microcode 8",
		Genoa: "bootloader 1, tee 2, snp 7, microcode 8",
		Turin: "fmc 1, bootloader 2, tee 3, snp 4, microcode 8",
	} {
		if got := tcb.SVNs(g).String(); got != want {
			t.Errorf("%s: %s, want %s", g, got, want)
		}
	}
}

func TestGenerations(t *testing.T) {
	for _, c := range []struct {
		family, model uint8
		want          Generation
	}{
		{0x19, 0x00, Milan}, {0x19, 0x01, Milan}, {0x19, 0x0f, Milan}, {0x19, 0x10, Genoa}, {0x19, 0x11, Genoa}, {0x19, 0x1f, Genoa},
		{0x19, 0x20, ""}, {0x19, 0x9f, ""}, {0x19, 0xa0, Genoa}, {0x19, 0xaf, Genoa}, {0x19, 0xb0, ""},
		{0x1a, 0x00, Turin}, {0x1a, 0x02, Turin}, {0x1a, 0x11, Turin}, {0x1a, 0x12, ""}, {0x17, 0x31, ""}, {0, 0, ""},
	} {
		if got, err := generationOf(c.family, c.model); got != c.want || (err != nil) != (c.want == "") {
			t.Errorf("family %#x model %#x is %q, %v; want %q", c.family, c.model, got, err, c.want)
		}
	}
}

func FuzzParseReport(f *testing.F) {
	for version := uint32(2); version <= 5; version++ {
		f.Add(pattern(version, familyZen3))
		f.Add(pattern(version, familyZen5))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseReport(b)
		if err != nil {
			return
		}
		if got := r.Marshal(); !bytes.Equal(got, b) {
			t.Fatalf("accepted %x but it means %x", b, got)
		}
		if _, err := (&Evidence{Report: r}).Wire(); err != nil {
			t.Fatalf("accepted %x but it has no wire form: %v", b, err)
		}
	})
}
