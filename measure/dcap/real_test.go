package dcap

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure"

	"github.com/vouchsafe-cc/vouchsafe/measure/internal/evidencetest"
)

// realTime lies in the life of all real PCK certificates here.
var realTime = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// realQuote is a quote of real hardware, and what is known of it.
type realQuote struct {
	name, fmspc string
	tee         TEE
	raw         []byte
}

func realQuotes(t testing.TB) []realQuote {
	t.Helper()
	var report struct{ Quote string }
	if err := json.Unmarshal(evidencetest.File(t, "launch", "dstack", "quote-report.json"), &report); err != nil {
		t.Fatal(err)
	}
	dstack, err := hex.DecodeString(report.Quote)
	if err != nil {
		t.Fatal(err)
	}
	return []realQuote{
		{"tdx", "50806f000000", TDX, evidencetest.File(t, "tdx", "tdx_quote_4.dat")},
		{"azure", "00806f050000", TDX, evidencetest.File(t, "azure", "tdx", "td-quote.bin")},
		{"dstack", "90c06f000000", TDX, dstack},
		{"sgx", "00606a000000", SGX, evidencetest.File(t, "sgx", "occlum_quote.dat")},
	}
}

// realJudge trusts Intel alone and knows no collateral.
func realJudge(t testing.TB, tee TEE) *Judge {
	t.Helper()
	j, err := NewJudge(Config{TEE: tee, UnsafeNoCollateral: true, Now: func() time.Time { return realTime }})
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func (r realQuote) module() *Module {
	if r.tee == SGX {
		return nil
	}
	return new(Module)
}

func TestRealQuotes(t *testing.T) {
	for _, r := range realQuotes(t) {
		t.Run(r.name, func(t *testing.T) {
			q, err := ParseQuote(r.raw)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(q.Marshal(), r.raw) {
				t.Error("the quote encodes to other bytes")
			}
			o := realJudge(t, r.tee).Judge(t.Context(), q, r.module())
			wantFailures(t, o, nil)
			for name, want := range map[measure.CheckName]measure.Outcome{
				measure.CheckSignature: measure.Passed, measure.CheckChain: measure.Passed,
				measure.CheckRevocation: measure.Waived, measure.CheckTCB: measure.Waived,
			} {
				if c := check(t, o, name); c.Outcome != want {
					t.Errorf("%s is %s: %s", name, c.Outcome, c.Reason)
				}
			}
			if o.Root != (measure.Root{Name: "Intel SGX Root CA"}) {
				t.Errorf("root %+v", o.Root)
			}
			if o.Claims["fmspc"] != r.fmspc || o.Claims["root_key_id"] != "46e403bd34f05a3f2817ab9badcaacc7ffc98e0f261008cd30dae936cace18d5dcf58eef31463613de1570d516200993" {
				t.Errorf("claims %v", o.Claims)
			}
			if _, there := o.Claims[ClaimSimulatedRoot]; there {
				t.Error("real evidence claims a simulated root")
			}
		})
	}
}

// certificatesOf are the certificates of a chain as they were signed.
func certificatesOf(pem []byte) string {
	certs, err := parsePEM(pem, 3)
	if err != nil {
		return ""
	}
	var out []byte
	for _, c := range certs {
		out = append(out, c.Raw...)
	}
	return string(out)
}

// same reports whether two quotes say the same: all that is signed, the
// signatures themselves, and the certificates behind their PEM.
func same(a, b *Quote) bool {
	x, y := *a, *b
	if certificatesOf(x.Chain) != certificatesOf(y.Chain) {
		return false
	}
	x.Chain, y.Chain = nil, nil
	return bytes.Equal(x.Marshal(), y.Marshal())
}

// TestNoMutationIsAccepted changes real quotes, one bit at a time: either the
// quote is refused, or only the spelling of a certificate's PEM changed.
func TestNoMutationIsAccepted(t *testing.T) {
	for _, r := range realQuotes(t) {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			j := realJudge(t, r.tee)
			q, err := ParseQuote(r.raw)
			if err != nil {
				t.Fatal(err)
			}
			end := len(r.raw) - q.Padding
			chain := bytes.Index(r.raw, []byte("-----BEGIN"))
			for at := range end {
				if at > chain && at%17 != 0 {
					continue // the certificates are long
				}
				raw := bytes.Clone(r.raw)
				raw[at] ^= 1 << (at % 8)
				changed, err := ParseQuote(raw)
				if err != nil || same(q, changed) {
					continue
				}
				if o := j.Judge(t.Context(), changed, r.module()); (measure.Verdict{Checks: o.Checks}).Err() == nil {
					t.Fatalf("byte %d was changed, and nobody noticed", at)
				}
			}
		})
	}
}

// TestRealQuotesNeedIntel gives real quotes to a judge whose configuration
// names another root beside Intel's, and collateral under that: Intel's
// platforms are not judged by it.
func TestRealQuotesNeedIntel(t *testing.T) {
	for _, r := range realQuotes(t) {
		l := newLab(t, r.tee, ChipOptions{})
		l.now = realTime
		l.state(Statement{TCBInfo: func(i *TCBInfo) {
			q, err := ParseQuote(r.raw)
			if err != nil {
				t.Fatal(err)
			}
			c, err := readChain(q.Chain, nil)
			if err != nil {
				t.Fatal(err)
			}
			i.FMSPC, i.PCEID = c.pck.FMSPC[:], c.pck.PCEID[:]
		}})
		q, err := ParseQuote(r.raw)
		if err != nil {
			t.Fatal(err)
		}
		wantFailures(t, l.judge().Judge(t.Context(), q, r.module()), map[measure.CheckName]string{
			measure.CheckRevocation: "revocation list of PCK certificates: it was issued by", measure.CheckTCB: "another root than Intel SGX Root CA",
		})
	}
}
