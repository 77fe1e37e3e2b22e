package eventlog

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func mustNew(t testing.TB, banks ...Algorithm) *Log {
	t.Helper()
	l, err := New(banks...)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// sampleLog has one of all that needs a branch.
func sampleLog(t testing.TB) *Log {
	l := mustNew(t, SHA1, SHA256, SHA384, SHA512)
	l.AddStartupLocality(3)
	l.Add(0, SCRTMVersion, []byte("v1"), []byte("v1"))
	l.Add(4, EFIBootServicesApplication, nil, []byte("kernel"))
	l.Add(7, Separator, []byte{0, 0, 0, 0}, []byte{0, 0, 0, 0})
	e, err := RuntimeEvent{"domain", "operation", "content"}.Event(17, SHA256)
	if err != nil {
		t.Fatal(err)
	}
	l.Events = append(l.Events, e)
	return l
}

func TestWriteAndRead(t *testing.T) {
	l := sampleLog(t)
	raw := l.Marshal()
	got, err := Parse(append(raw, EndMarker+"anything"...))
	if err != nil {
		t.Fatal(err)
	}
	if got.Size != len(raw) || !bytes.Equal(got.Marshal(), raw) {
		t.Errorf("read %d bytes of %d, or other ones", got.Size, len(raw))
	}
	l.Size = len(raw)
	if !reflect.DeepEqual(got, l) {
		t.Errorf("%+v\nwant %+v", got, l)
	}
	if raw := NewCCEL().Marshal(); binary.LittleEndian.Uint32(raw) != 1 {
		t.Errorf("a CCEL starts with index %x", raw[:4])
	}
	for _, banks := range [][]Algorithm{nil, {SM3}, {SHA1, SHA1}, {0x27}} {
		if _, err := New(banks...); err == nil {
			t.Errorf("a log of %v", banks)
		}
	}
}

func TestReplay(t *testing.T) {
	l := sampleLog(t)
	got, err := l.Replay(SHA256)
	if err != nil {
		t.Fatal(err)
	}
	start := make([]byte, 32)
	start[31] = 3
	ones := bytes.Repeat([]byte{0xff}, 32)
	runtime := RuntimeEvent{"domain", "operation", "content"}.Data()
	for i, want := range map[int][]byte{
		0:  SHA256.Sum(start, SHA256.Sum([]byte("v1"))),
		4:  SHA256.Sum(make([]byte, 32), SHA256.Sum([]byte("kernel"))),
		7:  SHA256.Sum(make([]byte, 32), SHA256.Sum([]byte{0, 0, 0, 0})),
		17: SHA256.Sum(ones, SHA256.Sum(runtime)),
	} {
		if !bytes.Equal(got[i], want) {
			t.Errorf("register %d is %x, want %x", i, got[i], want)
		}
		delete(got, i)
	}
	if len(got) != 0 {
		t.Errorf("also %v", got)
	}
	if v := Extend(SHA256, start, ones); !bytes.Equal(v, SHA256.Sum(start, ones)) {
		t.Errorf("extended to %x", v)
	}
}

func TestReplayRefuses(t *testing.T) {
	locality := func(n uint8) func(*Log) { return func(l *Log) { l.AddStartupLocality(n) } }
	for name, c := range map[string]struct {
		algorithm Algorithm
		change    func(*Log)
		want      string
	}{
		"an algorithm that cannot be computed": {SM3, func(*Log) {}, "SM3 cannot be computed"},
		"a bank that is absent":                {SHA384, func(*Log) {}, "has no SHA-384 digest"},
		"a register that does not exist":       {SHA256, func(l *Log) { l.Add(24, Action, nil, nil) }, "register 24"},
		"a negative register":                  {SHA256, func(l *Log) { l.Add(-1, Action, nil, nil) }, "register -1"},
		"a locality too late":                  {SHA256, locality(3), "out of place"},
		"a second locality": {SHA256, func(l *Log) {
			l.Events = nil
			l.AddStartupLocality(3)
			l.AddStartupLocality(3)
		}, "out of place"},
		"an unknown locality": {SHA256, func(l *Log) { l.Events = nil; l.AddStartupLocality(1) }, "out of place"},
		"a long locality": {SHA256, func(l *Log) {
			l.Events = []Event{{Type: NoAction, Data: []byte(startupLocality + "\x03\x00")}}
		}, "out of place"},
		"a digest of the wrong size": {SHA256, func(l *Log) { l.Events[0].Digests[SHA256] = make([]byte, 31) }, "no SHA-256 digest"},
	} {
		t.Run(name, func(t *testing.T) {
			l := mustNew(t, SHA256)
			l.Add(0, Action, nil, []byte("x"))
			c.change(l)
			if got, err := l.Replay(c.algorithm); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, error %v, want %q in it", got, err, c.want)
			}
		})
	}
}

// put returns the log's bytes with some of them replaced.
func put(raw []byte, at int, with ...byte) []byte {
	out := bytes.Clone(raw)
	copy(out[at:], with)
	return out
}

func TestParseRefuses(t *testing.T) {
	l := mustNew(t, SHA256)
	l.Add(0, Separator, []byte{0, 0, 0, 0}, []byte{0, 0, 0, 0})
	raw := l.Marshal()
	const banks, first = 32 + 24, 32 + 33 // of the header's list, and of the first record
	ff := []byte{0xff, 0xff, 0xff, 0xff}
	for name, c := range map[string]struct {
		raw  []byte
		want string
	}{
		"nothing":               {nil, "middle of a record"},
		"too much":              {make([]byte, MaxSize+1), "at most"},
		"zeros":                 {make([]byte, 64), "neither"},
		"no banks":              {put(raw, banks, 0), "0 digest algorithms"},
		"too many banks":        {put(raw, banks, 17), "17 digest algorithms"},
		"a bank of wrong size":  {put(raw, banks+6, 20), "declared wrongly"},
		"an endless bank":       {put(raw, banks+4, 0x27, 0, 0xff, 0xff), "declared wrongly"},
		"a header digest":       {put(raw, 8, 1), "digest is not zero"},
		"long vendor info":      {put(raw, banks+8, 1), "middle of a record"},
		"half a record":         {raw[:len(raw)-1], "middle of a record"},
		"half a record, short":  {raw[:first+7], "middle of a record"},
		"endless data":          {put(raw, len(raw)-8, ff...), "middle of a record"},
		"too many digests":      {put(raw, first+8, ff...), "at most 16"},
		"an unknown digest":     {put(raw, first+12, 0x27), "unknown algorithm 0x0027"},
		"the same digest twice": {slices.Concat(put(raw[:first+12], first+8, 2), raw[first+12:first+46], raw[first+12:]), "two digests of SHA-256"},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := Parse(c.raw); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%+v, error %v, want %q in it", got, err, c.want)
			}
		})
	}
	double := slices.Concat(put(raw[:banks+8], banks, 2), raw[banks+4:banks+8], raw[banks+8:])
	double[28] += 4
	if _, err := Parse(double); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("a bank twice: %v", err)
	}
	after := slices.Concat(raw[:first], []byte{0}, raw[first:])
	after[28]++
	if _, err := Parse(after); err == nil || !strings.Contains(err.Error(), "after its end") {
		t.Errorf("data after the header's end: %v", err)
	}
}

// What this code cannot compute, it still reads past.
func TestForeignBanks(t *testing.T) {
	l := mustNew(t, SHA256)
	l.Header.Banks = append(l.Header.Banks, Bank{SM3, 32}, Bank{0x27, 32})
	l.Events = []Event{{Index: 4, Type: Action, Data: []byte("x"), Digests: map[Algorithm][]byte{
		SHA256: SHA256.Sum([]byte("x")), SM3: make([]byte, 32), 0x27: make([]byte, 32),
	}}}
	got := mustParse(t, l.Marshal())
	checkReplay(t, got, SHA256, map[string]string{"4": hex.EncodeToString(Extend(SHA256, make([]byte, 32), SHA256.Sum([]byte("x"))))})
	if got.Events[0].DigestMatches(SM3) || !got.Events[0].DigestMatches(SHA256) {
		t.Error("which digests match")
	}
}

// What nobody extended is no claim: digests of banks that were not replayed,
// which whoever sends the log makes up, and of events that extend nothing.
func TestClaimsInOneBank(t *testing.T) {
	l := mustNew(t, SHA256, SHA384)
	const foreign = Algorithm(0x7777)
	l.Header.Banks = append(l.Header.Banks, Bank{Algorithm: foreign, Size: 32})
	l.Add(4, Separator, []byte("data"), []byte("data"))
	l.Add(4, NoAction, []byte("data"), []byte("data"))
	wish := bytes.Repeat([]byte{7}, 32)
	for i := range l.Events {
		l.Events[i].Digests[foreign] = wish
		l.Events[i].Digests[SHA384] = bytes.Repeat([]byte{8}, 48)
	}
	parsed, err := Parse(l.Marshal())
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(parsed.ClaimsIn(SHA256))
	if err != nil {
		t.Fatal(err)
	}
	text := string(raw)
	for _, lie := range []string{"0707", "0808", "0x7777", "SHA-384"} {
		if strings.Contains(text, lie) {
			t.Errorf("%s is claimed: %s", lie, text)
		}
	}
	if n := strings.Count(text, fmt.Sprintf("%x", SHA256.Sum([]byte("data")))); n != 1 || !strings.Contains(text, `"digest_matches_event":true`) {
		t.Errorf("%d digests: %s", n, text)
	}
	if all, err := json.Marshal(parsed.Claims()); err != nil || !strings.Contains(string(all), "0x7777") {
		t.Errorf("a person sees less than there is: %s, %v", all, err)
	}
}

func TestEnd(t *testing.T) {
	raw := sampleLog(t).Marshal()
	for name, tail := range map[string]string{
		"nothing": "", "zeros": strings.Repeat("\x00", 100), "ones": EndMarker + "x", "a few zeros": "\x00\x00", "a few ones": "\xff\xff\xff",
	} {
		if l, err := Parse(append(bytes.Clone(raw), tail...)); err != nil || l.Size != len(raw) || len(l.Events) != 5 {
			t.Errorf("%s at the end: %v", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	small := mustNew(f, SHA256)
	small.Add(0, Separator, []byte{0, 0, 0, 0}, []byte{0, 0, 0, 0})
	f.Add(small.Marshal())
	f.Add(sampleLog(f).Marshal())
	f.Add(make([]byte, 64))
	f.Fuzz(func(t *testing.T, raw []byte) {
		l, err := Parse(raw)
		if err != nil {
			return
		}
		for _, e := range l.Events {
			_ = e.Describe()
		}
		_ = l.Claims()
		for _, a := range []Algorithm{SHA1, SHA256, SHA384} {
			_, _ = l.Replay(a)
		}
		again, err := Parse(l.Marshal())
		if err != nil {
			t.Fatalf("accepted %x but not what it means: %v", raw, err)
		}
		again.Size = l.Size
		if !reflect.DeepEqual(again, l) {
			t.Fatalf("accepted %x as %+v but it means %+v", raw, l, again)
		}
	})
}

func FuzzParseRuntime(f *testing.F) {
	e, err := RuntimeEvent{"a", "b", `{"c":1}`}.Event(17, SHA256)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(e.Marshal())
	f.Fuzz(func(t *testing.T, raw []byte) {
		events, err := ParseRuntime(raw)
		if err != nil {
			return
		}
		for _, e := range events {
			if r, ok := e.Runtime(); ok && r.Validate() == nil && !bytes.Equal(r.Data(), e.Data) {
				t.Fatalf("%q is not %q", e.Data, r.Data())
			}
			_ = e.claims()
		}
	})
}
