package snp

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"log/slog"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/google/go-sev-guest/abi"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/initdata"
	"github.com/vouchsafe-cc/vouchsafe/measure/tsm"
	"github.com/vouchsafe-cc/vouchsafe/measure/tsm/tsmtest"
)

func parseGUID(text string) (g [16]byte) {
	if n, err := hex.Decode(g[:], []byte(strings.ReplaceAll(text, "-", ""))); err != nil || n != len(g) {
		panic(text)
	}
	return g
}

// hostTable is the table as go-sev-guest writes it.
func (l *lab) hostTable() []byte {
	guids := map[CertType]string{CertVCEK: abi.VcekGUID, CertASK: abi.AskGUID, CertARK: abi.ArkGUID}
	var t abi.CertTable
	for _, c := range l.sim.chain {
		t.Entries = append(t.Entries, abi.CertTableEntry{GUID: parseGUID(guids[c.Type]), RawCert: c.Data})
	}
	return t.Marshal()
}

// configfs is a kernel whose secure processor is the lab's guest.
func (l *lab) configfs() *tsmtest.Kernel {
	return &tsmtest.Kernel{Provider: tsm.ProviderSNP, Floor: new(uint8), Report: func(a tsmtest.Attributes) (tsmtest.Blobs, error) {
		r, err := l.sim.sign([64]byte(a.InBlob))
		return tsmtest.Blobs{Out: r.Marshal(), Aux: l.hostTable()}, err
	}}
}

// device is a kernel that has only the node. The fake reads and writes the
// structures at the offsets of sev-guest.h, not through our types.
func (l *lab) device(table []byte) *tsmtest.Kernel {
	answer := func(request uint32, arg unsafe.Pointer) error {
		top := unsafe.Slice((*byte)(arg), 32)
		req, resp := *(*unsafe.Pointer)(unsafe.Add(arg, 8)), *(*unsafe.Pointer)(unsafe.Add(arg, 16))
		if top[0] != 1 {
			return syscall.EINVAL
		}
		switch request {
		case 0xc0205300:
		case 0xc0205302:
			room := *(*uint32)(unsafe.Add(req, 104))
			if room%4096 != 0 || room > 16<<10 {
				return syscall.EINVAL
			}
			if len(table) > int(room) {
				binary.LittleEndian.PutUint32(top[28:], 1)
				return syscall.ENOSPC
			}
			copy(unsafe.Slice((*byte)(*(*unsafe.Pointer)(unsafe.Add(req, 96))), room), table)
		default:
			return syscall.ENOTTY
		}
		if vmpl := *(*uint32)(unsafe.Add(req, 64)); vmpl != 0 {
			binary.LittleEndian.PutUint32(top[24:], 0x16)
			return syscall.EIO
		}
		r, err := l.sim.sign([64]byte(unsafe.Slice((*byte)(req), 64)))
		if err != nil {
			return err
		}
		out := unsafe.Slice((*byte)(resp), 4000)
		binary.LittleEndian.PutUint32(out[4:], ReportSize)
		copy(out[32:], r.Marshal())
		return nil
	}
	return &tsmtest.Kernel{Ioctls: map[string]func(uint32, unsafe.Pointer) error{GuestDevice: answer}}
}

func attesterOn(t *testing.T, cfg AttesterConfig) *Attester {
	t.Helper()
	a, err := NewAttester(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// What the attester obtains, the verifier accepts, whichever interface it came
// through.
func TestAttester(t *testing.T) {
	l := newLab(t, Milan)
	for name, tc := range map[string]struct {
		kernel *tsmtest.Kernel
		certs  int
	}{
		"configfs":                      {l.configfs(), 3},
		"device":                        {l.device(l.hostTable()), 3},
		"device without certificates":   {l.device(nil), 0},
		"device with large table":       {l.device(make([]byte, 20<<10)), 0},
		"device whose table is no such": {l.device(bytes.Repeat([]byte{1}, 100)), 0},
	} {
		t.Run(name, func(t *testing.T) {
			a := attesterOn(t, AttesterConfig{Kernel: tc.kernel})
			ev, err := a.Evidence(t.Context(), challenge)
			if err != nil {
				t.Fatal(err)
			}
			e, err := ParseEvidence(ev)
			if err != nil {
				t.Fatal(err)
			}
			if len(e.Certificates) != tc.certs {
				t.Fatalf("%d certificates, want %d", len(e.Certificates), tc.certs)
			}
			if tc.certs > 0 {
				if _, err := l.verifier().Verify(t.Context(), ev, l.expected()); err != nil {
					t.Error(err)
				}
			}
			if err := a.BindInitData(t.Context(), l.launch.InitDataDigest); err != nil {
				t.Error(err)
			}
			for _, other := range [][]byte{nil, []byte("another")} {
				if err := a.BindInitData(t.Context(), other); !errors.Is(err, initdata.ErrField) {
					t.Errorf("init-data %q: %v", other, err)
				}
			}
		})
	}
}

func TestAttesterRefusals(t *testing.T) {
	l := newLab(t, Milan)
	three := uint8(3)
	stale := l.configfs()
	stale.Report = func(tsmtest.Attributes) (tsmtest.Blobs, error) {
		r, err := l.sim.sign([64]byte{1})
		return tsmtest.Blobs{Out: r.Marshal()}, err
	}
	cut := l.configfs()
	cut.Report = func(tsmtest.Attributes) (tsmtest.Blobs, error) { return tsmtest.Blobs{Out: []byte("report")}, nil }
	broken := l.device(nil)
	broken.Provider, broken.Floor = tsm.ProviderSNP, new(uint8)
	broken.Report = func(tsmtest.Attributes) (tsmtest.Blobs, error) { return tsmtest.Blobs{}, syscall.EIO }
	for name, tc := range map[string]struct {
		cfg  AttesterConfig
		want string
	}{
		"no hardware":                        {AttesterConfig{Kernel: &tsmtest.Kernel{}}, "no such file"},
		"a TDX guest":                        {AttesterConfig{Kernel: &tsmtest.Kernel{Provider: tsm.ProviderTDX}}, "provider"},
		"answer to another question":         {AttesterConfig{Kernel: stale}, "other data"},
		"no report":                          {AttesterConfig{Kernel: cut}, "got 6"},
		"level that the firmware knows":      {AttesterConfig{Kernel: l.device(nil), PrivLevel: &three}, "firmware error 0x16"},
		"a failing driver is not gone round": {AttesterConfig{Kernel: broken}, "input/output error"},
	} {
		t.Run(name, func(t *testing.T) {
			if ev, err := attesterOn(t, tc.cfg).Evidence(t.Context(), challenge); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%.80s, %v; want %q", ev.Data, err, tc.want)
			}
		})
	}
	four := uint8(4)
	if _, err := NewAttester(AttesterConfig{Kernel: &tsmtest.Kernel{}, PrivLevel: &four}); err == nil {
		t.Error("VMPL 4 exists")
	}
	if _, err := NewAttester(AttesterConfig{}); err == nil {
		t.Error("no kernel is needed")
	}
}

// A host that spoils its table is named in the log and loses only the table.
func TestAttesterTellsOfABadTable(t *testing.T) {
	l := newLab(t, Milan)
	var log bytes.Buffer
	a := attesterOn(t, AttesterConfig{Kernel: l.device(bytes.Repeat([]byte{1}, 48)), Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if _, err := a.Evidence(t.Context(), challenge); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "outside the table") {
		t.Errorf("log %q", log.String())
	}
}

func tableOf(entries ...abi.CertTableEntry) []byte {
	return (&abi.CertTable{Entries: entries}).Marshal()
}

func large(n byte) abi.CertTableEntry {
	return abi.CertTableEntry{GUID: [16]byte{n}, RawCert: make([]byte, maxCertificateSize)}
}

func TestCertificateTable(t *testing.T) {
	vcek := abi.CertTableEntry{GUID: parseGUID(abi.VcekGUID), RawCert: []byte("vcek")}
	extra := abi.CertTableEntry{GUID: parseGUID(abi.ExtraPlatformInfoGUID), RawCert: []byte("x")}
	far := tableOf(vcek)
	binary.LittleEndian.PutUint32(far[16:], 0xffffffff)
	binary.LittleEndian.PutUint32(far[20:], 0xffffffff)
	endless := tableOf(vcek)[:24]
	clear(endless[16:])
	endless[16] = 1
	many := make([]abi.CertTableEntry, maxCertificates+1)
	for i := range many {
		many[i] = abi.CertTableEntry{GUID: [16]byte{1, byte(i)}, RawCert: []byte{1}}
	}
	for name, tc := range map[string]struct {
		raw  []byte
		n    int
		want string
	}{
		"nothing":         {nil, 0, ""},
		"zeros":           {make([]byte, 4096), 0, ""},
		"two":             {tableOf(vcek, extra), 2, ""},
		"no end":          {endless, 0, "no end"},
		"too short":       {[]byte{1}, 0, "no end"},
		"outside":         {far, 0, "outside"},
		"twice":           {tableOf(vcek, vcek), 0, "second VCEK"},
		"too many":        {tableOf(many...), 0, "more than 16"},
		"too much in all": {tableOf(large(1), large(2), large(3), large(4)), 0, "bytes of certificates"},
		"one of them big": {tableOf(abi.CertTableEntry{GUID: [16]byte{1}, RawCert: make([]byte, maxCertificateSize+1)}), 0, "at most"},
	} {
		t.Run(name, func(t *testing.T) {
			certs, err := parseCertificateTable(tc.raw)
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) || len(certs) != tc.n {
				t.Errorf("%v, %v; want %d and %q", certs, err, tc.n, tc.want)
			}
		})
	}
	certs, err := parseCertificateTable(tableOf(vcek, extra))
	if err != nil || certs[0].Type != CertVCEK || string(certs[0].Data) != "vcek" || certs[1].UUID != abi.ExtraPlatformInfoGUID {
		t.Errorf("%+v, %v", certs, err)
	}
}

// What is accepted can be put into evidence and read back.
func FuzzCertificateTable(f *testing.F) {
	f.Add(tableOf(abi.CertTableEntry{GUID: parseGUID(abi.VcekGUID), RawCert: []byte("vcek")}))
	f.Add(make([]byte, 24))
	report, err := ParseReport(pattern(3, familyZen3))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		certs, err := parseCertificateTable(raw)
		if err != nil {
			return
		}
		w, err := (&Evidence{Report: report, Certificates: certs}).Wire()
		if err != nil {
			t.Fatal(err)
		}
		if e, err := ParseEvidence(w); err != nil || len(e.Certificates) != len(certs) {
			t.Fatalf("%v of %d", err, len(certs))
		}
	})
}

func FuzzReportResponse(f *testing.F) {
	good := make([]byte, 4000)
	binary.LittleEndian.PutUint32(good[4:], ReportSize)
	copy(good[32:], pattern(3, familyZen3))
	f.Add(good[:32+ReportSize])
	f.Add(good[:8])
	f.Fuzz(func(t *testing.T, raw []byte) {
		if out, err := parseReportResponse(raw); err == nil && len(out) != ReportSize {
			t.Fatalf("a report of %d bytes", len(out))
		}
	})
}

var _ measure.Attester = (*Attester)(nil)
