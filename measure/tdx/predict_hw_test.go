package tdx

import (
	"encoding/hex"
	"encoding/json"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure/boot"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/measure/ovmf"
	"github.com/vouchsafe-cc/vouchsafe/measure/ovmf/ovmftest"
)

// RTMR0 and RTMR1 of a TD whose quote hardware signed. Its firmware is not at
// hand; its layout is known, and its variable store is that of every blank
// build. The digests of ACPI tables and kernel come from its log.
func TestRTMRsOfHardware(t *testing.T) {
	var want map[string]struct {
		Memory uint64            `json:"memory_size"`
		Fields map[string]string `json:"quote_fields"`
	}
	launchJSON(t, &want, "dstack", "expected.json")
	machine := want["quote-report.json"]
	var report struct {
		Log string `json:"event_log"`
	}
	launchJSON(t, &report, "dstack", "quote-report.json")
	var log []struct {
		IMR    int
		Type   eventlog.EventType `json:"event_type"`
		Digest string
	}
	if err := json.Unmarshal([]byte(report.Log), &log); err != nil {
		t.Fatal(err)
	}
	m := boot.Machine{Edition: boot.Stable202502, Direct: &boot.Direct{CommandLine: "not known"}}
	for _, e := range log {
		switch e.Type {
		case eventlog.PlatformConfigFlags:
			m.ACPI = append(m.ACPI, boot.Measured{Content: known(t, e.Digest)})
		case eventlog.EFIBootServicesApplication:
			m.Direct.Kernel = known(t, e.Digest)
		default:
		}
	}
	blank := firmware(t, "debian-trixie-2025.02-8+deb13u1-OVMF.fd")
	const variables = 0x84000
	l := ovmftest.Default()
	l.Size, l.Variables = 0x400000, blank.Raw()[:variables]
	l.TD = []ovmftest.TDSection{
		{Offset: variables, Size: 0x37c000, GPA: 0xffc84000, Memory: 0x37c000, Attr: 1},
		{Size: variables, GPA: 0xffc00000, Memory: variables, Type: 1},
		{GPA: 0x810000, Memory: 0x10000, Type: 3},
		{GPA: 0x80b000, Memory: 0x2000, Type: 3},
		{GPA: 0x809000, Memory: 0x2000, Type: 2},
		{GPA: 0x800000, Memory: 0x6000, Type: 3},
	}
	f, err := ovmf.Parse(ovmftest.Build(l))
	if err != nil {
		t.Fatal(err)
	}
	events, err := TD{Firmware: f, Memory: machine.Memory, Machine: m}.Events()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Registers(events)
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"rtmr0", "rtmr1"} {
		if hex.EncodeToString(got[i].Value) != machine.Fields[name] {
			t.Errorf("%s: %x, want %s %v", name, got[i].Value, machine.Fields[name], got[i].Missing)
		}
	}

	// The log that goes with it names the same events in the same order.
	seen, i := CCEL(events), 0
	for _, e := range log {
		if e.IMR > 1 {
			continue
		}
		for seen.Events[i].Index > 2 {
			i++
		}
		s := seen.Events[i]
		if s.Index != e.IMR+1 || s.Type != e.Type || hex.EncodeToString(s.Digests[eventlog.SHA384]) != e.Digest {
			t.Errorf("event %d is %d %s %x, want %d %s %s", i, s.Index, s.Type, s.Digests[eventlog.SHA384], e.IMR+1, e.Type, e.Digest)
		}
		i++
	}
}

// RTMR2 of a TD under Kata whose quote hardware signed, and the digests of its
// Secure Boot variables, as the builder of that guest publishes them.
func TestPublishedDigests(t *testing.T) {
	var published struct {
		Confos struct {
			RTMR2 struct{ CmdLine, RTMR2 string } `json:"rtmr2_direct_kernel"`
			RTMR3 struct {
				Images []string
				RTMR3  string
			} `json:"rtmr3_two_containers"`
			Chain  string            `json:"empty_secureboot_chain_sha384 (PCR7/RTMR0 prefix: 5 empty variables then separator)"`
			Events map[string]string `json:"event_digests_sha384"`
		}
	}
	launchJSON(t, &published, "published-digests", "digests.json")
	c := published.Confos
	m := boot.Machine{Edition: boot.Stable202502, Direct: &boot.Direct{Kernel: known(t, c.Chain), CommandLine: c.RTMR2.CmdLine}}
	events, err := m.StartEvents()
	if err != nil {
		t.Fatal(err)
	}
	rtmrs, err := Registers(events)
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(rtmrs[2].Value); got != c.RTMR2.RTMR2 {
		t.Errorf("RTMR2: %s, want %s", got, c.RTMR2.RTMR2)
	}
	events = m.SecureBootEvents()
	if rtmrs, err = Registers(events); err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(rtmrs[0].Value); got != c.Chain {
		t.Errorf("the Secure Boot chain: %s, want %s", got, c.Chain)
	}
	for i, name := range []string{"SecureBoot empty", "PK empty", "KEK empty", "db empty", "dbx empty", "separator (4 zero bytes)"} {
		sum, err := events[i].Content.Sum(eventlog.SHA384)
		if err != nil || hex.EncodeToString(sum) != c.Events[name] {
			t.Errorf("%s: %x, %v", name, sum, err)
		}
	}
	events = nil
	for _, image := range c.RTMR3.Images {
		events = append(events, boot.Event{PCR: 17, Input: boot.Runtime, Content: boot.Bytes([]byte(image))})
	}
	if rtmrs, err = Registers(events); err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(rtmrs[3].Value); got != c.RTMR3.RTMR3 {
		t.Errorf("RTMR3: %s, want %s", got, c.RTMR3.RTMR3)
	}
}
