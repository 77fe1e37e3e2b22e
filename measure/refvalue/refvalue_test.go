package refvalue_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/vouchsafe-cc/vouchsafe/measure/refvalue"
)

func document() refvalue.Document {
	return refvalue.Document{
		ID: "guest-1.4.2", Profile: refvalue.Profile,
		NotBefore: time.Unix(1_790_000_000, 0).UTC(), NotAfter: time.Unix(1_820_000_000, 0).UTC(),
		Values: []refvalue.Value{
			{Name: "snp_launch_measurement", Value: json.RawMessage(`["` + strings.Repeat("ab", 48) + `"]`)},
			{Name: "snp_snp_svn", Value: json.RawMessage(`[ 24, 1e2 ]`)}, // byte for byte
			{Name: "smt", Value: json.RawMessage(`true`)},
		},
		Provenance: []refvalue.Source{{Name: "kernel", SHA256: []byte(strings.Repeat("k", 32))}, {Name: "cmdline", SHA256: []byte(strings.Repeat("c", 32))}},
	}
}

func keys(t testing.TB) map[string]crypto.Signer {
	t.Helper()
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]crypto.Signer{"Ed25519": ed, "P-256": p256, "P-384": p384}
}

func TestSignedAndRead(t *testing.T) {
	all := keys(t)
	for name, key := range all {
		raw, err := document().Sign(key, "release")
		if err != nil {
			t.Fatal(name, err)
		}
		e, err := refvalue.Open(raw)
		if err != nil || !e.Signed() || e.KeyID() != "release" {
			t.Fatalf("%s: %+v, %v", name, e, err)
		}
		for other, k := range all {
			if err := e.Verify(k.Public()); (err == nil) != (other == name) || err != nil && !errors.Is(err, refvalue.ErrSignature) {
				t.Errorf("signed with %s, verified with %s: %v", name, other, err)
			}
		}
		if got, err := e.Document(); err != nil || !reflect.DeepEqual(got, document()) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// No byte of a signed document can be changed.
func TestTamperedDocument(t *testing.T) {
	key := keys(t)["P-256"]
	raw, err := document().Sign(key, "release")
	if err != nil {
		t.Fatal(err)
	}
	for i := range raw {
		for _, bit := range []byte{1, 0x80} {
			spoiled := append([]byte(nil), raw...)
			spoiled[i] ^= bit
			e, err := refvalue.Open(spoiled)
			if err == nil && e.Verify(key.Public()) == nil {
				t.Fatalf("byte %d, bit %#x: accepted", i, bit)
			}
		}
	}
}

func TestUnsignedDocument(t *testing.T) {
	raw, err := document().CoRIM()
	if err != nil {
		t.Fatal(err)
	}
	e, err := refvalue.Open(raw)
	if err != nil || e.Signed() || e.KeyID() != "" {
		t.Fatalf("%+v, %v", e, err)
	}
	if err := e.Verify(keys(t)["P-256"].Public()); !errors.Is(err, refvalue.ErrSignature) {
		t.Errorf("a document without a signature verified: %v", err)
	}
	if got, err := e.Document(); err != nil || !reflect.DeepEqual(got, document()) {
		t.Errorf("%+v, %v", got, err)
	}
}

// foreign is a CoRIM of another maker, spelt out as the draft does it.
func foreign(t testing.TB, change func(m map[int]any)) []byte {
	t.Helper()
	enc := func(v any) []byte {
		raw, err := cbor.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	reference := func(vendor, model string, key any, values map[int]any) []any {
		return []any{
			map[int]any{0: map[int]any{1: vendor, 2: model}},
			[]any{map[int]any{0: key, 1: values}},
		}
	}
	mid := enc(map[int]any{
		1: map[int]any{0: "fw"},
		4: map[int]any{
			0: []any{
				reference("Example Inc", "Board-9", "bios", map[int]any{2: []any{[]any{1, []byte{0xaa, 0xbb}}, []any{7, []byte{0xcc}}}}),
				reference("Example Inc", "Board-9", "bios", map[int]any{2: []any{[]any{1, []byte{0x01}}}, 11: "", 8: ""}),
				reference("Example Inc", "Board-9", uint64(7), map[int]any{4: cbor.Tag{Number: 560, Content: []byte{1, 2}}, 8: "S1"}),
				reference("Example Inc", "", "ucode", map[int]any{1: cbor.Tag{Number: 553, Content: 5}, 11: "min"}),
			},
			3: []any{}, // identity triples, of no concern here
		},
	})
	m := map[int]any{
		0: cbor.Tag{Number: 37, Content: []byte("0123456789abcdef")},
		1: []any{cbor.Tag{Number: 506, Content: mid}, cbor.Tag{Number: 505, Content: []byte{0xa0}}},
		4: map[int]any{1: cbor.Tag{Number: 1, Content: 1_820_000_000}},
	}
	if change != nil {
		change(m)
	}
	return enc(cbor.Tag{Number: 501, Content: m})
}

func TestForeignDocument(t *testing.T) {
	for name, wrap := range map[string]func([]byte) []byte{
		"as it is": func(b []byte) []byte { return b },
		"within tag 500": func(b []byte) []byte {
			raw, err := cbor.Marshal(cbor.Tag{Number: 500, Content: cbor.RawMessage(b)})
			if err != nil {
				t.Fatal(err)
			}
			return raw
		},
	} {
		e, err := refvalue.Open(wrap(foreign(t, nil)))
		if err != nil {
			t.Fatal(name, err)
		}
		d, err := e.Document()
		if err != nil {
			t.Fatal(name, err)
		}
		got := map[string]string{}
		for _, v := range d.Values {
			got[v.Name] = string(v.Value)
		}
		want := map[string]string{
			"Example_Inc/Board-9/bios/digests":   `["01","aabb","cc"]`,
			"Example_Inc/Board-9/7/S1/raw_bytes": `"0102"`,
			"Example_Inc/ucode/min/svn":          `5`,
		}
		if !reflect.DeepEqual(got, want) || d.Profile != "" || d.NotAfter.Unix() != 1_820_000_000 || !d.NotBefore.IsZero() {
			t.Errorf("%s: %+v", name, d)
		}
	}
}

func TestRefusedDocuments(t *testing.T) {
	valid := document()
	for name, change := range map[string]func(*refvalue.Document){
		"no id":          func(d *refvalue.Document) { d.ID = "" },
		"no values":      func(d *refvalue.Document) { d.Values = nil },
		"bad name":       func(d *refvalue.Document) { d.Values[0].Name = "a b" },
		"twice":          func(d *refvalue.Document) { d.Values[1].Name = d.Values[0].Name },
		"not JSON":       func(d *refvalue.Document) { d.Values[0].Value = json.RawMessage("{") },
		"ends too early": func(d *refvalue.Document) { d.NotAfter = d.NotBefore.Add(-time.Hour) },
		"large value": func(d *refvalue.Document) {
			d.Values[0].Value = json.RawMessage(`"` + strings.Repeat("x", refvalue.MaxValue) + `"`)
		},
	} {
		d := valid
		d.Values = append([]refvalue.Value(nil), valid.Values...)
		change(&d)
		if _, err := d.CoRIM(); !errors.Is(err, refvalue.ErrDocument) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, raw := range map[string][]byte{
		"empty":        nil,
		"text":         []byte("hello"),
		"JSON":         []byte(`{"a":1}`),
		"too large":    make([]byte, refvalue.MaxSize+1),
		"no id":        foreign(t, func(m map[int]any) { delete(m, 0) }),
		"no tags":      foreign(t, func(m map[int]any) { m[1] = []any{} }),
		"bad validity": foreign(t, func(m map[int]any) { m[4] = map[int]any{1: 5} }),
		"bad CoMID":    foreign(t, func(m map[int]any) { m[1] = []any{cbor.Tag{Number: 506, Content: []byte{0xff}}} }),
	} {
		e, err := refvalue.Open(raw)
		if err == nil {
			_, err = e.Document()
		}
		if !errors.Is(err, refvalue.ErrDocument) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What several measurements give under one name is put together once, however many
// there are, and there may not be any number of them.
func TestManyMeasurements(t *testing.T) {
	many := func(n int) (refvalue.Document, error) {
		raw := foreign(t, func(m map[int]any) {
			var all []any
			for i := range n {
				all = append(all, map[int]any{0: "bios", 1: map[int]any{2: []any{[]any{1, binary.BigEndian.AppendUint32(nil, uint32(i%8))}}}})
			}
			half := len(all) / 2
			var triples []any
			for _, part := range [][]any{all[:half], all[half:]} {
				triples = append(triples, []any{map[int]any{0: map[int]any{1: "maker"}}, part})
			}
			mid, err := cbor.Marshal(map[int]any{1: map[int]any{0: "fw"}, 4: map[int]any{0: triples}})
			if err != nil {
				t.Fatal(err)
			}
			m[1] = []any{cbor.Tag{Number: 506, Content: mid}}
		})
		e, err := refvalue.Open(raw)
		if err != nil {
			t.Fatal(err)
		}
		return e.Document()
	}
	d, err := many(refvalue.MaxValues)
	if err != nil || len(d.Values) != 1 || string(d.Values[0].Value) != `["00000000","00000001","00000002","00000003","00000004","00000005","00000006","00000007"]` {
		t.Errorf("%+v, %v", d.Values, err)
	}
	if _, err := many(refvalue.MaxValues + 1); !errors.Is(err, refvalue.ErrDocument) || !strings.Contains(err.Error(), "measurements") {
		t.Errorf("one too many: %v", err)
	}
}

func FuzzOpen(f *testing.F) {
	raw, err := document().CoRIM()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add(foreign(f, nil))
	signed, err := document().Sign(keys(f)["Ed25519"], "k")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(signed)
	f.Fuzz(func(t *testing.T, raw []byte) {
		e, err := refvalue.Open(raw)
		if err != nil {
			return
		}
		e.KeyID()
		d, err := e.Document()
		if err != nil {
			return
		}
		if d.Profile != refvalue.Profile {
			return
		}
		again, err := d.CoRIM()
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		e2, err := refvalue.Open(again)
		if err != nil {
			t.Fatal(err)
		}
		if d2, err := e2.Document(); err != nil || len(d2.Values) != len(d.Values) {
			t.Fatalf("%+v became %+v, %v", d, d2, err)
		}
	})
}
