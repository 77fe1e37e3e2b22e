package eventlog

import (
	"bytes"
	"encoding/hex"
	"slices"
	"strings"
	"testing"
)

// The vectors of guest-protocol 6.2.
func TestRuntimeEventVectors(t *testing.T) {
	r := RuntimeEvent{"domain", "operation", "content"}
	for a, want := range map[Algorithm]string{
		SHA256: "46df8dacf00a07d34a83cdf56d7978697790787cf2ba1432ef7c38f22cd96351",
		SHA384: "dad5f0e226318ffa9839b75a472c6aa7fdb5834949d0a0a22990cf04d5692440fb00f3aa0609db7e49cd8d793f670d02",
		SHA512: "b708d222ca8bd44dfe6ba0c4ca2cbb72379276fba8091025217064be45a813e5d6124ccf073219edb617d1faf007d55061465bdf34b7437dbdc9a7405bd4e9c0",
	} {
		e, err := r.Event(MRIndex(DefaultRuntimePCR), a)
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(e.Digests[a]); got != want {
			t.Errorf("%s is %s, want %s", a, got, want)
		}
		if !e.DigestMatches(a) {
			t.Errorf("%s does not match", a)
		}
	}
	e, err := r.Event(4, SHA384)
	if err != nil {
		t.Fatal(err)
	}
	want := "040000000600000001000000" + "0c00" +
		"dad5f0e226318ffa9839b75a472c6aa7fdb5834949d0a0a22990cf04d5692440fb00f3aa0609db7e49cd8d793f670d02" +
		"200000004c45414118000000646f6d61696e206f7065726174696f6e20636f6e74656e74"
	if got := hex.EncodeToString(e.Marshal()); got != want {
		t.Errorf("record %s\nwant %s", got, want)
	}
	if back, ok := e.Runtime(); !ok || back != r {
		t.Errorf("read back as %+v", back)
	}
	if text := e.Describe(); text != "EV_EVENT_TAG: runtime event domain operation content" {
		t.Errorf("described as %s", text)
	}
}

func TestRuntimeEventRefuses(t *testing.T) {
	for name, r := range map[string]RuntimeEvent{
		"no domain":            {"", "b", "c"},
		"no operation":         {"a", "", "c"},
		"a space":              {"a a", "b", "c"},
		"a space in operation": {"a", "b\u00a0b", "c"},
		"a tab":                {"a", "b\t", "c"},
		"two lines":            {"a", "b", "c\nd"},
		"not printable":        {"a", "b", "\x1b[2J"},
		"not text":             {"a", "b", "\xff"},
	} {
		if _, err := r.Event(17, SHA256); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	if _, err := (RuntimeEvent{"a", "b", "c"}).Event(17, SM3); err == nil {
		t.Error("SM3 is computed")
	}
}

func TestRuntimeOfForeignEvents(t *testing.T) {
	good := RuntimeEvent{"a", "b", "c"}.Data()
	for name, e := range map[string]Event{
		"another type": {Type: IPL, Data: good},
		"another id":   {Type: EventTag, Data: append([]byte{0}, good[1:]...)},
		"too short":    {Type: EventTag, Data: good[:7]},
		"cut off":      {Type: EventTag, Data: good[:len(good)-1]},
		"one word":     {Type: EventTag, Data: []byte("LEAA\x01\x00\x00\x00a")},
		"not text":     {Type: EventTag, Data: []byte("LEAA\x05\x00\x00\x00a b \xff")},
	} {
		if r, ok := e.Runtime(); ok {
			t.Errorf("%s is %+v", name, r)
		}
	}
}

func TestRuntimeContent(t *testing.T) {
	for text, isJSON := range map[string]bool{
		`{"a":1}`: true, `1`: true, `[1] 2`: false, `x`: false, ``: false,
		strings.Repeat("[", 40) + strings.Repeat("]", 40): false,
	} {
		if _, ok := (RuntimeEvent{Content: text}).content().(string); ok == isJSON {
			t.Errorf("%s is JSON: %v", text, !ok)
		}
	}
}

func TestMRIndex(t *testing.T) {
	for pcr, want := range map[int]int{0: 4, 1: 1, 2: 2, 6: 2, 7: 1, 8: 3, 15: 3, 16: 4, 17: 4, 23: 4} {
		if got := MRIndex(pcr); got != want {
			t.Errorf("PCR %d has index %d, want %d", pcr, got, want)
		}
	}
}

func TestCombine(t *testing.T) {
	e, err := RuntimeEvent{"a", "b", "c"}.Event(17, SHA256)
	if err != nil {
		t.Fatal(err)
	}
	runtime := e.Marshal()
	firmware := sampleLog(t).Marshal()
	for name, c := range map[string]struct {
		firmware, runtime []byte
		events            int
	}{
		"both":               {append(slices.Clone(firmware), make([]byte, 100)...), runtime, 6},
		"the firmware's":     {firmware, nil, 5},
		"the runtime's":      {nil, runtime, 1},
		"the firmware's old": {slices.Concat([]byte{0, 0, 0, 0, 1, 0, 0, 0}, make([]byte, 20), []byte{1, 0, 0, 0, 'x'}), nil, 1},
	} {
		got, err := Combine(c.firmware, c.runtime, SHA256)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if l := mustParse(t, got); len(l.Events) != c.events || l.Size != len(got)-8 {
			t.Errorf("%s: %d events, %d bytes of %d", name, len(l.Events), l.Size, len(got))
		}
	}
	if got, err := Combine(nil, nil, SHA256); got != nil || err != nil {
		t.Errorf("of nothing: %x, %v", got, err)
	}
	for name, c := range map[string][2][]byte{
		"broken runtime":   {nil, runtime[:9]},
		"broken firmware":  {firmware[:40], runtime},
		"runtime with end": {firmware, append(slices.Clone(runtime), EndMarker...)},
		"an old log":       {append([]byte{0, 0, 0, 0, 1}, make([]byte, 27)...), runtime},
	} {
		if _, err := Combine(c[0], c[1], SHA256); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}

	// The header of guest-protocol 6.5 for a log without a CCEL.
	got, err := Combine(nil, runtime, SHA384)
	if err != nil {
		t.Fatal(err)
	}
	want := "0000000003000000" + strings.Repeat("00", 20) + "25000000" + strings.Repeat("00", 24) + "020000000c0030001200200000"
	if hex.EncodeToString(got[:69]) != want || !bytes.HasPrefix(got[69:], runtime) {
		t.Errorf("header %x", got[:69])
	}
}
