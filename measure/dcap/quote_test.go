package dcap

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure"
)

// layout of a version 4 quote: where its lengths and types are.
const (
	atSectionSize = headerSize + tdReport10
	atSection     = atSectionSize + 4
	atOuterKind   = atSection + 128
	atOuterSize   = atOuterKind + 2
	atInner       = atOuterSize + 4
	atAuthSize    = atInner + EnclaveReportSize + 64
	atPCKKind     = atAuthSize + 2 + 32
	atPCKSize     = atPCKKind + 2
)

func TestParseQuoteRefuses(t *testing.T) {
	l := newLab(t, TDX, ChipOptions{})
	good := l.quote().Marshal()
	le := binary.LittleEndian
	for want, change := range map[string]func(q []byte) []byte{
		"version 2 is not known":      func(q []byte) []byte { q[0] = 2; return q },
		"version 6 is not known":      func(q []byte) []byte { q[0] = 6; return q },
		"attestation key of type 3":   func(q []byte) []byte { q[2] = 3; return q },
		"TEE type 0x0 in version 4":   func(q []byte) []byte { q[4] = 0; return q },
		"TEE type 0x81 in version 3":  func(q []byte) []byte { q[0] = 3; return q },
		"header: 38 bytes are miss":   func(q []byte) []byte { return q[:10] },
		"body: 1 bytes are missing":   func(q []byte) []byte { return q[:atSectionSize-1] },
		"signature data: 4294967295 ": func(q []byte) []byte { le.PutUint32(q[atSectionSize:], 1<<32-1); return q },
		"other bytes than zero after": func(q []byte) []byte { return append(q, 0, 0, 1) },
		"signature data: 1 bytes too": func(q []byte) []byte {
			le.PutUint32(q[atSectionSize:], le.Uint32(q[atSectionSize:])+1)
			return append(q, 0)
		},
		"certification data of type 5": func(q []byte) []byte { q[atOuterKind] = 5; return q },
		"certification data: 16777215": func(q []byte) []byte { le.PutUint32(q[atOuterSize:], 1<<24-1); return q },
		"QE authentication data: 6553": func(q []byte) []byte { le.PutUint16(q[atAuthSize:], 1<<16-1); return q },
		"PCK certification data of ty": func(q []byte) []byte { q[atPCKKind] = 1; return q },
		"at most 32768 are allowed":    func(q []byte) []byte { le.PutUint32(q[atPCKSize:], 1<<20); return q },
		"PCK certificate chain: ":      func(q []byte) []byte { le.PutUint32(q[atPCKSize:], 1<<15); return q },
		"certification data: 1 bytes ": func(q []byte) []byte { le.PutUint32(q[atPCKSize:], le.Uint32(q[atPCKSize:])-1); return q },
		"at most 65536 bytes":          func(q []byte) []byte { return append(q, make([]byte, MaxQuoteSize)...) },
	} {
		_, err := ParseQuote(change(bytes.Clone(good)))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
	for n := range good {
		if _, err := ParseQuote(good[:n]); err == nil {
			t.Fatalf("the first %d bytes of a quote of %d are accepted", n, len(good))
		}
	}
}

// TestParseBody is about what only version 5 says.
func TestParseBody(t *testing.T) {
	l := newLab(t, TDX, ChipOptions{})
	q, err := l.chip.Quote(5, BodyTD15, make([]byte, tdReport15))
	if err != nil {
		t.Fatal(err)
	}
	good := q.Marshal()
	for want, change := range map[string]func(q []byte){
		"an enclave report in a quote of a TD":      func(q []byte) { q[headerSize] = 1 },
		"a body of type 9 is not known":             func(q []byte) { q[headerSize] = 9 },
		"a body of type 2 has 584 bytes, the quote": func(q []byte) { q[headerSize] = 2 },
		"a body of type 3 has 648 bytes, the quote": func(q []byte) { q[headerSize+2]++ },
	} {
		raw := bytes.Clone(good)
		change(raw)
		if _, err := ParseQuote(raw); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
	if q, err = l.chip.Quote(5, BodyTD10, make([]byte, tdReport10)); err != nil || q.BodyType != BodyTD10 {
		t.Errorf("TDX 1.0 in version 5: %+v, %v", q, err)
	}
}

func FuzzParseQuote(f *testing.F) {
	for _, tee := range []TEE{TDX, SGX} {
		q := newLab(f, tee, ChipOptions{}).quote()
		q.Chain, q.AuthData = []byte("-"), nil // the fuzzer is slow with long seeds
		f.Add(q.Marshal())
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		q, err := ParseQuote(raw)
		if err != nil {
			return
		}
		if got := q.Marshal(); !bytes.Equal(got, raw) {
			t.Fatalf("accepted %x, but it means %x", raw, got)
		}
	})
}

// FuzzJudge lets everything that a stranger can send meet the judge: it must
// not panic, and nothing of a stranger's passes.
func FuzzJudge(f *testing.F) {
	l := newLab(f, TDX, ChipOptions{})
	j, err := NewJudge(Config{TEE: TDX, UnsafeNoCollateral: true})
	if err != nil {
		f.Fatal(err)
	}
	q := l.quote()
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"), []byte("a report"), []byte("a body"))
	f.Fuzz(func(t *testing.T, chain, qe, body []byte) {
		q := *q
		q.Chain, q.Body = chain, body
		q.signed, q.certified = q.marshalSigned(), chain
		if r, err := ParseEnclaveReport(qe); err == nil {
			q.QEReport = r
		}
		o := j.Judge(t.Context(), &q, new(Module))
		if c := (measure.Verdict{Checks: o.Checks}).Check(measure.CheckChain); c.Outcome == measure.Passed {
			t.Fatal("a stranger's chain passed")
		}
	})
}

func FuzzParsePCKExtension(f *testing.F) {
	l := newLab(f, TDX, ChipOptions{})
	for _, e := range l.chip.pck.Extensions {
		if e.Id.Equal(oidSGX) {
			f.Add(e.Value)
		}
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		var p PCK
		if p.parseExtension(der) != nil {
			return
		}
		e, err := p.extension()
		if err != nil {
			t.Fatal(err)
		}
		var again PCK
		if err := again.parseExtension(e.Value); err != nil {
			t.Fatal(err)
		}
		if again.FMSPC != p.FMSPC || again.Components != p.Components || again.PCESVN != p.PCESVN || again.PPID != p.PPID {
			t.Fatalf("accepted %+v, which is encoded as %+v", p, again)
		}
	})
}

// FuzzParseTCBInfo evaluates what it accepts.
func FuzzParseTCBInfo(f *testing.F) {
	l := newLab(f, TDX, ChipOptions{})
	short := simulatedTCBInfo(TDX, l.now)
	short.Levels, short.Modules[0].Levels = short.Levels[:1], nil
	seed, err := json.Marshal(short)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	pck, err := ParsePCK(l.chip.pck)
	if err != nil {
		f.Fatal(err)
	}
	identity := simulatedQEIdentity(TDX, l.now)
	f.Fuzz(func(_ *testing.T, raw []byte) {
		i, err := parseTCBInfo(raw)
		if err != nil {
			return
		}
		if i.ID != "TDX" {
			evaluate(i, identity, pck, l.chip.certified.QEReport, nil, new(measure.Tally))
			return
		}
		m := SimulatedModule()
		evaluate(i, identity, pck, l.chip.certified.QEReport, &m, new(measure.Tally))
		m.SVN[1] = 0
		evaluate(i, identity, pck, l.chip.certified.QEReport, &m, new(measure.Tally))
	})
}

// FuzzParseQEIdentity holds what it accepts against an enclave.
func FuzzParseQEIdentity(f *testing.F) {
	l := newLab(f, SGX, ChipOptions{})
	short := simulatedQEIdentity(SGX, l.now)
	short.Levels = short.Levels[:1]
	seed, err := json.Marshal(short)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(_ *testing.T, raw []byte) {
		if i, err := parseQEIdentity(raw); err == nil {
			i.check(l.chip.certified.QEReport, new(measure.Tally))
		}
	})
}

// FuzzDocument splits what a source may answer.
func FuzzDocument(f *testing.F) {
	f.Add([]byte(`{"tcbInfo":{},"signature":"` + strings.Repeat("00", 64) + `"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		signed, signature, err := document(raw, "tcbInfo")
		if err == nil && (len(signature) != 64 || !bytes.Contains(raw, signed)) {
			t.Fatalf("%q has %q, signed with %x", raw, signed, signature)
		}
	})
}
