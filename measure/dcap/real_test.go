package dcap

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure"
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
	if err := json.Unmarshal(shared(t, "launch", "dstack", "quote-report.json"), &report); err != nil {
		t.Fatal(err)
	}
	dstack, err := hex.DecodeString(report.Quote)
	if err != nil {
		t.Fatal(err)
	}
	return []realQuote{
		{"tdx", "50806f000000", TDX, shared(t, "tdx", "tdx_quote_4.dat")},
		{"azure", "00806f050000", TDX, shared(t, "azure", "tdx", "td-quote.bin")},
		{"dstack", "90c06f000000", TDX, dstack},
		{"sgx", "00606a000000", SGX, shared(t, "sgx", "occlum_quote.dat")},
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
