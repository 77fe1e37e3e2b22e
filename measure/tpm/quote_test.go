package tpm

import (
	"bytes"
	"crypto/elliptic"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
)

func sampleQuote() *Quote {
	return &Quote{
		Signer: []byte{0, 11, 1, 2}, ExtraData: []byte("nonce"), Firmware: 0x0102030405060708,
		Clock:     Clock{Milliseconds: 99, Resets: 3, Restarts: 4, Safe: true},
		Selection: []Selection{AllPCRs(Bank), {eventlog.SHA384, []byte{1, 0, 0x80}}}, Digest: make([]byte, 32),
	}
}

// go-tpm reads our quotes, and means the same by them.
func TestQuoteInLibrary(t *testing.T) {
	q := sampleQuote()
	raw := q.Marshal()
	got, err := tpm2.Unmarshal[tpm2.TPMSAttest](raw)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(tpm2.Marshal(got), raw) {
		t.Errorf("%x\nwant %x", tpm2.Marshal(got), raw)
	}
	info, err := got.Attested.Quote()
	if err != nil {
		t.Fatal(err)
	}
	if string(got.ExtraData.Buffer) != "nonce" || got.ClockInfo.ResetCount != 3 || got.FirmwareVersion != q.Firmware ||
		info.PCRSelect.PCRSelections[1].Hash != tpm2.TPMAlgSHA384 || !bytes.Equal(info.PCRSelect.PCRSelections[1].PCRSelect, []byte{1, 0, 0x80}) {
		t.Errorf("%+v", got)
	}
}

func TestSignaturesInLibrary(t *testing.T) {
	for _, key := range []*lab{newLab(t, rsaKey()), newLab(t, ecdsaKey(t, elliptic.P384()))} {
		raw := key.quote(nil).Signature.Marshal()
		got, err := tpm2.Unmarshal[tpm2.TPMTSignature](raw)
		if err != nil || !bytes.Equal(tpm2.Marshal(got), raw) {
			t.Errorf("%x: %v", raw, err)
		}
	}
}

func TestParseQuote(t *testing.T) {
	q := sampleQuote()
	raw := q.Marshal()
	if got, err := ParseQuote(raw); err != nil || !reflect.DeepEqual(got, q) {
		t.Errorf("%+v, %v", got, err)
	}
	for i := range raw {
		if _, err := ParseQuote(raw[:i]); err == nil {
			t.Errorf("%d bytes of %d are accepted", i, len(raw))
		}
	}
	set := func(at int, b byte) []byte {
		out := bytes.Clone(raw)
		out[at] = b
		return out
	}
	safe := 4 + 2 + 6 + 7 + 16
	for want, raw := range map[string][]byte{
		"not a quote made":       set(0, 0xfe), // what someone let the TPM sign
		"not a quote":            set(5, 0x17), // a certification
		"neither yes nor no":     set(safe, 2),
		"after its end":          append(bytes.Clone(raw), 0),
		"255 bytes, at most":     set(7, 0xff),
		"at most 16":             set(safe+9+3, 17),
		"a selection of 9 bytes": set(safe+9+4+2, 9),
	} {
		if got, err := ParseQuote(raw); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v, error %v, want %q in it", got, err, want)
		}
	}
	if _, err := ParseQuote(nil); !errors.Is(err, ErrNotQuote) {
		t.Errorf("nothing: %v", err)
	}
}

func TestSelection(t *testing.T) {
	for want, s := range map[string]Selection{
		"SHA-256:0-23":   AllPCRs(Bank),
		"SHA-1:0,2-3,23": {eventlog.SHA1, []byte{0x0d, 0, 0x80}},
		"SHA-384:none":   {eventlog.SHA384, []byte{0, 0, 0}},
		"SHA-512:7-8":    {eventlog.SHA512, []byte{0x80, 1}},
	} {
		if s.String() != want {
			t.Errorf("%s, want %s", s, want)
		}
	}
	if n := (Selection{Bank, []byte{0x0d, 0, 0x80}}).Count(); n != 4 {
		t.Errorf("%d PCRs", n)
	}
}

func TestParseSignature(t *testing.T) {
	good := (&Signature{Scheme: ECDSA, Hash: Bank, R: []byte{1}, S: []byte{2}}).Marshal()
	for want, raw := range map[string][]byte{
		"not accepted":  {0, 0x10, 0, 11},
		"too early":     good[:len(good)-1],
		"after its end": append(bytes.Clone(good), 0),
		"at most 512":   {0, 0x14, 0, 11, 2, 1},
		"scheme 0x0000": nil,
	} {
		if _, err := ParseSignature(raw); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
	k := ecdsaKey(t, elliptic.P224())
	if err := (&Signature{Scheme: ECDSA, Hash: Bank}).Verify(k.Public(), nil); err == nil || !strings.Contains(err.Error(), "curve") {
		t.Errorf("P-224: %v", err)
	}
	if err := (&Signature{Scheme: RSAPSS, Hash: Bank}).Verify(k.Public(), nil); err == nil {
		t.Error("an RSA signature under an ECDSA key")
	}
	if err := (&Signature{Scheme: ECDSA, Hash: Bank}).Verify(rsaKey().Public(), nil); err == nil {
		t.Error("an ECDSA signature under an RSA key")
	}
}

func TestParseEvidenceRefuses(t *testing.T) {
	l := newLab(t, ecdsaKey(t, elliptic.P256()))
	ev, err := l.quote(challenge[:32]).Wire()
	l.must(err)
	text := string(ev.Data)
	for want, data := range map[string]string{
		"TPM evidence":            "x",
		"ak_public":               strings.Replace(text, `"ak_public":"`, `"ak_public":"!`, 1),
		"tpm_quote: malformed":    `{}`,
		"tpm_quote.message":       `{"tpm_quote":{}}`,
		"TPM evidence: tpm_quote": strings.Replace(text, `"tpm_quote"`, `"TPM_quote"`, 1),
		"tpm_quote.signature":     strings.Replace(text, `"signature"`, `"x"`, 1),
		"pcr00 is not the hex":    strings.Replace(text, `"pcrs":["`, `"pcrs":["z`, 1),
		"25 PCR values":           strings.Replace(text, `"pcrs":["`, `"pcrs":["00","`, 1),
		"ak_certificates has":     strings.Replace(text, `"ak_certificates":[`, `"ak_certificates":[`+strings.Repeat(`"AA==",`, 8), 1),
		"ak_certificates is not":  strings.Replace(text, `"ak_certificates":["`, `"ak_certificates":["","`, 1),
		"cc_eventlog is not":      strings.Replace(text, `"cc_eventlog":"`, `"cc_eventlog":"!`, 1),
		"duplicate":               strings.Replace(text, `"ak_public"`, `"ak_public":"","ak_public"`, 1),
	} {
		if _, err := ParseEvidence(measure.Evidence{Platform: measure.TPM, Data: []byte(data)}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
	if _, err := ParseEvidence(measure.Evidence{Platform: measure.SNP, Data: ev.Data}); err == nil {
		t.Error("another platform's")
	}
	if _, err := ParseEvidence(measure.Evidence{Platform: measure.TPM, Data: make([]byte, MaxEvidenceSize+1)}); err == nil {
		t.Error("too much")
	}
	if _, err := (&Evidence{}).Wire(); err == nil {
		t.Error("without a signature")
	}
}

func FuzzParseQuote(f *testing.F) {
	f.Add(sampleQuote().Marshal())
	f.Fuzz(func(t *testing.T, raw []byte) {
		q, err := ParseQuote(raw)
		if err != nil {
			return
		}
		if got := q.Marshal(); !bytes.Equal(got, raw) {
			t.Fatalf("accepted %x but it means %x", raw, got)
		}
		_ = describeSelection(q.Selection)
	})
}

func FuzzParseSignature(f *testing.F) {
	f.Add((&Signature{Scheme: ECDSA, Hash: Bank, R: []byte{1}, S: []byte{2}}).Marshal())
	f.Add((&Signature{Scheme: RSASSA, Hash: Bank, RSA: []byte{1}}).Marshal())
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := ParseSignature(raw)
		if err == nil && !bytes.Equal(s.Marshal(), raw) {
			t.Fatalf("accepted %x but it means %x", raw, s.Marshal())
		}
	})
}

func FuzzParseEvidence(f *testing.F) {
	f.Add([]byte(`{"tpm_quote":{"signature":"ABgACwABAQABAg==","message":"/1RDR4AYAAAAAAAAAAAAAAAAAAAAAAAAAAAAAQAAAAAAAAAAAAAAAAAA","pcrs":["00"]},"ak_public":"AA=="}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		e, err := ParseEvidence(measure.Evidence{Platform: measure.TPM, Data: raw})
		if err != nil {
			return
		}
		ev, err := e.Wire()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseEvidence(ev)
		if err != nil || !reflect.DeepEqual(again, e) {
			t.Fatalf("accepted %s but it means %s: %v", raw, ev.Data, err)
		}
		_ = e.Claims()
	})
}
