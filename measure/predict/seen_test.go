package predict

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure/boot"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/measure/ovmf"
	"github.com/vouchsafe-cc/vouchsafe/measure/ovmf/ovmftest"
	"github.com/vouchsafe-cc/vouchsafe/measure/tdx"

	"github.com/vouchsafe-cc/vouchsafe/measure/internal/evidencetest"
)

// Evidence and logs of real machines, in each form that is read.
func TestReadSeenOfHardware(t *testing.T) {
	for _, c := range []struct {
		file      []string
		platform  Platform
		registers map[string]string // how their values begin
	}{
		{[]string{"snp", "test-report.bin"}, SNP, map[string]string{"measurement": "a1f39304"}},
		{[]string{"tdx", "tdx_quote_4.dat"}, TDX, map[string]string{"mr_td": "705ee938", "rtmr_0": "e940da7c"}},
		{[]string{"tpm", "tpm_evidence.json"}, TPM, map[string]string{"pcr00/sha256": "00000000", "pcr15/sha256": "00000000"}},
		{[]string{"launch", "dstack", "ccel.bin"}, TDX, map[string]string{"rtmr_0": "274c2344", "rtmr_1": "bdcf4ee0"}},
		{[]string{"launch", "dstack", "tpm_eventlog.bin"}, TPM, map[string]string{"pcr00/sha256": "0cca9ec1", "pcr09/sha256": "b6f84aea"}},
	} {
		s, err := ReadSeen(evidencetest.File(t, c.file...))
		if err != nil || s.Platform != c.platform {
			t.Errorf("%v: %+v, %v", c.file, s, err)
			continue
		}
		for name, want := range c.registers {
			if !strings.HasPrefix(s.Registers[name], want) {
				t.Errorf("%v: %s is %s, want %s...", c.file, name, s.Registers[name], want)
			}
		}
	}
}

// A quote and the log of another machine do not belong together.
func TestLogOfAnotherBoot(t *testing.T) {
	quote, err := ReadSeen(evidencetest.File(t, "tdx", "tdx_quote_4.dat"))
	if err != nil {
		t.Fatal(err)
	}
	other, err := eventlog.Parse(evidencetest.File(t, "launch", "dstack", "ccel.bin"))
	if err != nil {
		t.Fatal(err)
	}
	if err := quote.AddLog(other); err == nil || !strings.Contains(err.Error(), "it is not the log of this boot") || quote.Log != nil {
		t.Errorf("%v", err)
	}
	in := inputs(t)
	tpm, err := eventlog.Parse(bootLog(t, in, TPM))
	if err != nil {
		t.Fatal(err)
	}
	if err := quote.AddLog(tpm); err == nil || !strings.Contains(err.Error(), "the log of tpm") {
		t.Errorf("%v", err)
	}
	evidence, err := json.Marshal(map[string]string{
		"quote": base64.StdEncoding.EncodeToString(evidencetest.File(t, "tdx", "tdx_quote_4.dat")), "cc_eventlog": base64.StdEncoding.EncodeToString(evidencetest.File(t, "launch", "dstack", "ccel.bin")),
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ReadSeen(evidence); err == nil || !strings.Contains(err.Error(), "not the log of this boot") {
		t.Errorf("in one piece of evidence: %v", err)
	}
}

func TestUnreadable(t *testing.T) {
	for name, raw := range map[string]string{
		"nothing": "", "text": "hello", "JSON": `{"a":1}`, "no quote": `{"quote":"AAAA"}`, "twice": `{"quote":"","quote":""}`,
		"few PCRs": `{"tpm_quote":{"pcrs":["00"]}}`, "no base64": `{"quote":"*"}`,
		"no digests": `{"tpm_quote":{"pcrs":[` + strings.Repeat(`"zz",`, 23) + `"zz"]}}`,
	} {
		if s, err := ReadSeen([]byte(raw)); err == nil {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

// MRTD and the field of the init-data in a quote: neither is in a log.
func TestDiffOfAQuote(t *testing.T) {
	d := predicted(t, inputs(t))
	l := ovmftest.Default()
	l.Fill = 0x91
	other := ovmftest.Build(l)
	f, err := ovmf.Parse(other)
	if err != nil {
		t.Fatal(err)
	}
	mrtd, err := tdx.MRTD(f, tdx.TwoPass)
	if err != nil {
		t.Fatal(err)
	}
	s := &Seen{Platform: TDX, Registers: map[string]string{"mr_td": hex.EncodeToString(mrtd[:]), "mr_config_id": strings.Repeat("0", 96)}}
	got, err := Diff(d, s, []Candidate{{boot.Firmware, "other.fd", other}})
	if err != nil || len(got.Differences) != 2 || !strings.Contains(got.Differences[0].Text, "the guest has none") ||
		!strings.Contains(got.Differences[1].Text, "it is other.fd (built in the order two-pass)") {
		t.Errorf("%+v, %v", got, err)
	}
}

// Neither evidence nor predictions do harm, whatever they are.
func FuzzReadSeen(f *testing.F) {
	in := inputs(f)
	d := predicted(f, in)
	f.Add([]byte(`{"tpm_quote":{"pcrs":[]}}`))
	f.Add([]byte(`{"quote":"AAAA","cc_eventlog":"AAAA"}`))
	l := eventlog.NewCCEL()
	l.Add(1, eventlog.EventTag, []byte("x"), []byte("x"))
	f.Add(l.Marshal())
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := ReadSeen(raw)
		if err != nil || s.Platform == SNP { // a search, which takes long
			return
		}
		if _, err := Diff(d, s, nil); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzParseDocument(f *testing.F) {
	f.Add([]byte(`{"schema":"vouchsafe/prediction/1","values":[{"platform":"tpm","register":"pcr11","bank":"sha256","value":"00"}],"boots":[{"platform":"tdx"}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		d, err := ParseDocument(raw)
		if err != nil {
			return
		}
		d.ReferenceValues()
		d.Provenance()
		if _, err := d.RVPS(); err != nil {
			t.Fatal(err)
		}
	})
}
