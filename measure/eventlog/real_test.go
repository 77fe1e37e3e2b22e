package eventlog

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"reflect"
	"strconv"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure"

	"github.com/vouchsafe-cc/vouchsafe/measure/internal/evidencetest"
)

func sharedJSON(t *testing.T, v any, path ...string) {
	t.Helper()
	if err := json.Unmarshal(evidencetest.File(t, path...), v); err != nil {
		t.Fatal(err)
	}
}

func mustParse(t *testing.T, raw []byte) *Log {
	t.Helper()
	l, err := Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// checkReplay compares a bank with wanted values by register.
func checkReplay(t *testing.T, l *Log, a Algorithm, want map[string]string) {
	t.Helper()
	got, err := l.Replay(a)
	if err != nil {
		t.Fatal(err)
	}
	for register, value := range want {
		i, err := strconv.Atoi(register)
		if err != nil {
			t.Fatal(err)
		}
		seen, ok := got[i]
		if !ok {
			seen = Initial(i, a)
		}
		if hex.EncodeToString(seen) != value {
			t.Errorf("%s register %d is %x, want %s", a, i, seen, value)
		}
	}
}

// checkRoundTrip demands that the log is written as it was read.
func checkRoundTrip(t *testing.T, l *Log, raw []byte) {
	t.Helper()
	if got := l.Marshal(); !bytes.Equal(got, raw[:l.Size]) {
		t.Errorf("written differently than read")
	}
}

func TestRealCCEL(t *testing.T) {
	var expected struct {
		Files map[string]struct {
			Events int `json:"events"`
			End    int `json:"log_end"`
			Replay struct {
				SHA384 map[string]string `json:"sha384"`
			} `json:"replay_by_log_index"`
		} `json:"files"`
	}
	sharedJSON(t, &expected, "eventlogs", "ccel", "expected.json")
	for name, want := range expected.Files {
		t.Run(name, func(t *testing.T) {
			raw := evidencetest.File(t, "eventlogs", "ccel", name)
			l := mustParse(t, raw)
			if len(l.Events) != want.Events || l.Size != want.End {
				t.Errorf("%d events in %d bytes, want %d in %d", len(l.Events), l.Size, want.Events, want.End)
			}
			checkReplay(t, l, SHA384, want.Replay.SHA384)
			checkRoundTrip(t, l, raw)

			var parsed struct {
				Events []any `json:"uefi_event_logs"`
			}
			sharedJSON(t, &parsed, "eventlogs", "ccel", name+"_out.json")
			for i, got := range throughJSON(t, l.Claims()) {
				if !reflect.DeepEqual(got, parsed.Events[i]) {
					t.Errorf("event %d is %v, want %v", i, got, parsed.Events[i])
				}
			}
		})
	}
	if len(expected.Files) == 0 {
		t.Error("nothing is expected")
	}
}

func throughJSON(t *testing.T, claims []any) (out []any) {
	t.Helper()
	raw, err := json.Marshal(measure.Claims{ClaimEvents: claims})
	if err != nil {
		t.Fatal(err)
	}
	var back map[string][]any
	if err := json.Unmarshal(raw, &back); err != nil {
		t.Fatal(err)
	}
	return back[ClaimEvents]
}

func TestRealTPM(t *testing.T) {
	var expected map[string]struct {
		Banks map[string]map[string]string `json:"banks"`
	}
	sharedJSON(t, &expected, "eventlogs", "tcg", "expected.json")
	banks := map[string]Algorithm{"SHA1": SHA1, "SHA256": SHA256}
	for name, want := range expected {
		t.Run(name, func(t *testing.T) {
			raw := evidencetest.File(t, "eventlogs", "tcg", name)
			l := mustParse(t, raw)
			for bank, registers := range want.Banks {
				checkReplay(t, l, banks[bank], registers)
			}
			checkRoundTrip(t, l, raw)
			for i, e := range l.Events {
				if e.Describe() == "" {
					t.Errorf("event %d has no description", i)
				}
			}
		})
	}
	if len(expected) != 7 {
		t.Errorf("%d logs are expected", len(expected))
	}
}

// Boots of our own, with all registers as the guest read them. The log does
// not hold what the kernel's IMA extends into PCR 10.
func TestOwnBoots(t *testing.T) {
	var expected struct {
		Runs map[string]struct {
			Log  string                       `json:"log"`
			PCRs map[string]map[string]string `json:"pcrs"`
		} `json:"runs"`
	}
	sharedJSON(t, &expected, "launch", "own", "tpm", "expected.json")
	for name, run := range expected.Runs {
		t.Run(name, func(t *testing.T) {
			l := mustParse(t, evidencetest.File(t, "launch", "own", "tpm", run.Log))
			for bank, a := range map[string]Algorithm{"sha256": SHA256, "sha384": SHA384} {
				want := map[string]string{}
				for register, values := range run.PCRs {
					if v, ok := values[bank]; ok && register != "10" {
						want[register] = v
					}
				}
				if len(want) < 15 {
					t.Fatalf("only %d values", len(want))
				}
				checkReplay(t, l, a, want)
			}
		})
	}
	if len(expected.Runs) == 0 {
		t.Error("nothing is expected")
	}
}

func TestDstack(t *testing.T) {
	var expected map[string]struct {
		Events int               `json:"events"`
		Replay map[string]string `json:"replay_by_log_index"`
	}
	sharedJSON(t, &expected, "launch", "dstack", "expected.json")
	for name, a := range map[string]Algorithm{"ccel.bin": SHA384, "tpm_eventlog.bin": SHA256} {
		l := mustParse(t, evidencetest.File(t, "launch", "dstack", name))
		if len(l.Events) != expected[name].Events || len(expected[name].Replay) == 0 {
			t.Errorf("%s: %d events, want %d", name, len(l.Events), expected[name].Events)
		}
		checkReplay(t, l, a, expected[name].Replay)
	}

	// The quote comes with its events as JSON. Its RTMRs follow from them.
	var report struct {
		EventLog string `json:"event_log"`
	}
	sharedJSON(t, &report, "launch", "dstack", "quote-report.json")
	var events []struct {
		IMR    int    `json:"imr"`
		Type   uint32 `json:"event_type"`
		Digest string `json:"digest"`
	}
	if err := json.Unmarshal([]byte(report.EventLog), &events); err != nil {
		t.Fatal(err)
	}
	var quote struct {
		Quote struct {
			Fields map[string]any `json:"quote_fields"`
		} `json:"quote-report.json"`
	}
	sharedJSON(t, &quote, "launch", "dstack", "expected.json")
	l := NewCCEL()
	for _, e := range events {
		digest, err := hex.DecodeString(e.Digest)
		if err != nil {
			t.Fatal(err)
		}
		l.Events = append(l.Events, Event{Index: e.IMR + 1, Type: EventType(e.Type), Digests: map[Algorithm][]byte{SHA384: digest}})
	}
	got, err := l.Replay(SHA384)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		if want := quote.Quote.Fields["rtmr"+strconv.Itoa(i)]; hex.EncodeToString(got[i+1]) != want {
			t.Errorf("RTMR%d is %x, want %v", i, got[i+1], want)
		}
	}
}

// Whatever byte of a real log changes, its registers change, or the byte is
// one that no register covers and that is only a label, or it is not a log.
func TestRealMutations(t *testing.T) {
	raw := evidencetest.File(t, "eventlogs", "ccel", "CCEL_data_ovmf")
	l := mustParse(t, raw)
	want, err := l.Replay(SHA384)
	if err != nil {
		t.Fatal(err)
	}
	covered := digestBytes(t, raw[:l.Size])
	for i := range l.Size {
		mutant := bytes.Clone(raw[:l.Size])
		mutant[i] ^= 0x40
		m, err := Parse(mutant)
		if err != nil {
			continue
		}
		got, err := m.Replay(SHA384)
		if err == nil && covered[i] && reflect.DeepEqual(got, want) {
			t.Errorf("byte %d of a digest does not matter", i)
		}
	}
}

// digestBytes marks the bytes of digests and of indices.
func digestBytes(t *testing.T, raw []byte) map[int]bool {
	t.Helper()
	marks := map[int]bool{}
	at := 0
	l := mustParse(t, raw)
	for n := len(l.Events); n > 0; n-- {
		size := len(l.Events[len(l.Events)-n].Marshal())
		start := len(raw)
		for _, e := range l.Events[len(l.Events)-n:] {
			start -= len(e.Marshal())
		}
		for i := range 4 {
			marks[start+i] = true
		}
		for i := range 48 {
			marks[start+14+i] = true
		}
		at = start + size
	}
	if at != len(raw) {
		t.Fatalf("records end at %d of %d", at, len(raw))
	}
	return marks
}
