package tdx

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os/exec"
	"strconv"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure/boot"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/measure/ovmf"

	"github.com/vouchsafe-cc/vouchsafe/measure/internal/evidencetest"
)

// launchFile reads a file of the evidence folder that predictions are held
// against.
func launchFile(t testing.TB, path ...string) []byte {
	t.Helper()
	return evidencetest.File(t, append([]string{"launch"}, path...)...)
}

func launchJSON(t testing.TB, into any, path ...string) {
	t.Helper()
	if err := json.Unmarshal(launchFile(t, path...), into); err != nil {
		t.Fatal(err)
	}
}

func firmware(t testing.TB, name string) *ovmf.Firmware {
	t.Helper()
	packed := launchFile(t, "own", "ovmf", name+".xz")
	xz := exec.Command("xz", "-dc")
	xz.Stdin = bytes.NewReader(packed)
	raw, err := xz.Output()
	if err != nil {
		t.Skipf("cannot unpack the firmware: %v", err)
	}
	f, err := ovmf.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// MRTD of three builds of OVMF in both orders, as three other programs compute
// it.
func TestMRTD(t *testing.T) {
	var builds map[string]struct {
		Single string `json:"mrtd_single_pass"`
		Two    string `json:"mrtd_two_pass"`
	}
	launchJSON(t, &builds, "own", "ovmf", "expected.json")
	if len(builds) < 3 {
		t.Fatalf("only %d builds", len(builds))
	}
	for name, want := range builds {
		f := firmware(t, name)
		for order, want := range map[BuildOrder]string{SinglePass: want.Single, TwoPass: want.Two} {
			if got, err := MRTD(f, order); err != nil || hex.EncodeToString(got[:]) != want {
				t.Errorf("%s, %s: %x, %v; want %s", name, order, got, err, want)
			}
		}
		if _, err := MRTD(f, "three-pass"); err == nil {
			t.Error("an unknown order was accepted")
		}
	}
}

// The TD HOB of a machine with 64 GiB whose quote is signed by hardware.
func TestHOBAgainstHardware(t *testing.T) {
	var file map[string]struct {
		Memory uint64      `json:"memory_size"`
		Digest string      `json:"td_hob_digest"`
		Ranges [][2]string `json:"td_hob_ranges"`
		GPA    string      `json:"td_hob_addr"`
	}
	launchJSON(t, &file, "dstack", "expected.json")
	want := file["quote-report.json"]
	number := func(s string) uint64 {
		n, err := strconv.ParseUint(s, 0, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	l := Layout{HOB: number(want.GPA)}
	for _, r := range want.Ranges {
		l.Used = append(l.Used, Span{number(r[0]), number(r[1])})
	}
	list, err := l.List(want.Memory)
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(eventlog.SHA384.Sum(list)); got != want.Digest {
		t.Errorf("%s, want %s", got, want.Digest)
	}
}

// known is a content of which the SHA-384 digest is known.
func known(t testing.TB, text string) *boot.Content {
	t.Helper()
	sum, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return boot.Known(0, map[eventlog.Algorithm][]byte{eventlog.SHA384: sum})
}

// RTMR1 and RTMR2 of a Debian kernel. The rows differ in what QEMU writes into
// the kernel and in what OVMF makes of the command line.
func TestRTMRsOfDebian(t *testing.T) {
	var want struct {
		Initrd       struct{ SHA384 string }
		Append       string
		Authenticode map[string]string                `json:"kernel_authenticode_sha384"`
		RTMR1        []struct{ Header, Value string } `json:"rtmr1"`
		RTMR2        []struct{ OVMF, Value string }   `json:"rtmr2"`
	}
	launchJSON(t, &want, "own", "tdx", "expected.json")
	f := firmware(t, "debian-trixie-2025.02-8+deb13u1-OVMF.fd")
	registers := func(e boot.Edition, kernel string, initrd bool) [4]string {
		d := &boot.Direct{Kernel: known(t, kernel), CommandLine: want.Append}
		if initrd {
			d.Initrd = known(t, want.Initrd.SHA384)
		}
		events, err := TD{Firmware: f, Memory: 2 << 30, Machine: boot.Machine{Edition: e, Direct: d}}.Events()
		if err != nil {
			t.Fatal(err)
		}
		rs, err := Registers(events)
		if err != nil {
			t.Fatal(err)
		}
		var out [4]string
		for i, r := range rs {
			out[i] = hex.EncodeToString(r.Value)
		}
		return out
	}
	for _, row := range want.RTMR1 {
		kernel := want.Authenticode[row.Header]
		if kernel == "" {
			kernel = want.Authenticode["unpatched"]
		}
		if got := registers(boot.Stable202502, kernel, true)[1]; got != row.Value {
			t.Errorf("RTMR1, %s: %s, want %s", row.Header, got, row.Value)
		}
	}
	for i, c := range []struct {
		edition boot.Edition
		initrd  bool
		row     int
	}{{boot.Stable202502, true, 1}, {boot.Stable202608, true, 2}, {boot.Stable202608, false, 3}, {boot.Stable202502, false, 3}} {
		if got := registers(c.edition, want.Authenticode["unpatched"], c.initrd)[2]; got != want.RTMR2[c.row].Value {
			t.Errorf("RTMR2, case %d (%s): %s, want %s", i, want.RTMR2[c.row].OVMF, got, want.RTMR2[c.row].Value)
		}
	}
	if got := registers(boot.Stable202502, want.Authenticode["unpatched"], true); got[0] != "" || got[3] != hex.EncodeToString(make([]byte, 48)) {
		t.Errorf("RTMR0 without ACPI tables is %q, RTMR3 without events %s", got[0], got[3])
	}
}
