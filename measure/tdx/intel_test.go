package tdx

import (
	"bytes"
	"encoding/json"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	testcases "github.com/google/go-tdx-guest/testing"
	"github.com/google/go-tdx-guest/testing/testdata"
	"github.com/google/go-tdx-guest/verify"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/collateral"
	"github.com/vouchsafe-cc/vouchsafe/measure/dcap"

	"github.com/vouchsafe-cc/vouchsafe/measure/internal/evidencetest"

	"github.com/vouchsafe-cc/vouchsafe/measure/internal/verdicttest"
)

// genuineTime lies in the life of the collateral that comes with Google's
// library, which Intel published in 2023.
var genuineTime = time.Date(2023, 7, 1, 1, 0, 0, 0, time.UTC)

// genuineQuote is without the text that the library's authors put behind it.
var genuineQuote = testdata.RawQuote[:4935]

// genuine is collateral that Intel published, of the platform of the quote in
// the same place.
func genuine(t testing.TB) dcap.Collateral {
	t.Helper()
	chain := func(header map[string][]string) []byte {
		for _, values := range header {
			text, err := url.PathUnescape(values[0])
			if err != nil {
				t.Fatal(err)
			}
			return []byte(text)
		}
		return nil
	}
	return dcap.Collateral{
		TCBInfo: testdata.TcbInfoBody, TCBInfoChain: chain(testcases.TcbInfoHeader),
		QEIdentity: testdata.QeIdentityBody, QEIdentityChain: chain(testcases.QeIdentityHeader),
		PCKCRL: testdata.PckCrlBody, PCKCRLChain: chain(testcases.PckCrlHeader), RootCRL: testdata.RootCrlBody,
	}
}

func genuineVerifier(t testing.TB, c dcap.Collateral, at time.Time) *Verifier {
	t.Helper()
	return realVerifier(t, func(v *VerifierConfig) {
		v.Source, v.UnsafeNoCollateral, v.Now = fixed(c), false, func() time.Time { return at }
	})
}

// TestGenuineCollateral judges a quote of real hardware by what Intel said
// about such platforms: all of it is signed and was current, and the platform,
// an early one, is below every level.
func TestGenuineCollateral(t *testing.T) {
	ev := wire(t, Evidence{Quote: genuineQuote})
	got, err := genuineVerifier(t, genuine(t), genuineTime).Verify(t.Context(), ev, unbound)
	verdicttest.WantFailures(t, err, map[measure.CheckName]string{measure.CheckTCB: "the TCB is below every level of the TCB info"})
	if c := got.Check(measure.CheckTCB); strings.Contains(c.Reason, ";") {
		t.Errorf("something else is wrong too: %s", c.Reason)
	}
	for name, want := range map[string]any{
		"collateral_expiration_status": "0", "fmspc": "50806f000000", "sgx_type": "Scalable", "tcb_eval_num": json.Number("15"),
	} {
		if got.Claims[name] != want {
			t.Errorf("%s is %v, want %v", name, got.Claims[name], want)
		}
	}

	_, err = genuineVerifier(t, genuine(t), genuineTime.AddDate(1, 0, 0)).Verify(t.Context(), ev, unbound)
	verdicttest.WantFailures(t, err, map[measure.CheckName]string{measure.CheckTCB: "the TCB info was to be renewed by", measure.CheckRevocation: "was to be renewed by"})
}

// TestGenuineLevel judges another quote of such a platform, which was up to
// date. Google's library is of the same opinion.
func TestGenuineLevel(t *testing.T) {
	v := genuineVerifier(t, genuine(t), genuineTime)
	got, err := v.Verify(t.Context(), wire(t, Evidence{Quote: evidencetest.File(t, "tdx", "tdx_quote_4.dat")}), unbound)
	verdicttest.WantFailures(t, err, map[measure.CheckName]string{CheckAttributes: "this is a debug TD"})
	for name, outcome := range map[measure.CheckName]measure.Outcome{
		measure.CheckSignature: measure.Passed, measure.CheckChain: measure.Passed,
		measure.CheckRevocation: measure.Passed, measure.CheckTCB: measure.Passed,
	} {
		if c := got.Check(name); c.Outcome != outcome {
			t.Errorf("%s is %s: %s", name, c.Outcome, c.Reason)
		}
	}
	if got.Claims["tcb_status"] != "UpToDate" || got.Claims["tcb_date"] != "2023-02-15T00:00:00Z" {
		t.Errorf("tcb_status %v, tcb_date %v", got.Claims["tcb_status"], got.Claims["tcb_date"])
	}
	theirs := verify.RawTdxQuote(evidencetest.File(t, "tdx", "tdx_quote_4.dat"), &verify.Options{
		GetCollateral: true, CheckRevocations: true, Getter: published(genuine(t)), Now: genuineTime,
	})
	if theirs != nil {
		t.Errorf("the library says %v", theirs)
	}
}

// TestGenuineFiles finds the same collateral in a directory of files, among
// which it lies as Intel published it.
func TestGenuineFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "published")
	if err := genuine(t).Save(dir); err != nil {
		t.Fatal(err)
	}
	trusted, err := dcap.Authorities(nil)
	if err != nil {
		t.Fatal(err)
	}
	shelf, err := collateral.ReadFiles(dir, trusted)
	if err != nil || len(shelf.Skipped) > 0 || len(shelf.Items()) != 4 {
		t.Fatalf("%d items, and not %v: %v", len(shelf.Items()), shelf.Skipped, err)
	}
	v := realVerifier(t, func(c *VerifierConfig) {
		c.Source, c.UnsafeNoCollateral, c.UnsafeDebug, c.Now = shelf, false, true, func() time.Time { return genuineTime }
	})
	if _, err := v.Verify(t.Context(), wire(t, Evidence{Quote: evidencetest.File(t, "tdx", "tdx_quote_4.dat")}), unbound); err != nil {
		t.Error(err)
	}
}

// TestGenuineCollateralChanged changes what Intel signed, a bit at a time:
// nothing but a failure of that part comes of it.
func TestGenuineCollateralChanged(t *testing.T) {
	ev := wire(t, Evidence{Quote: genuineQuote})
	for part, of := range map[string]func(*dcap.Collateral) *[]byte{
		"TCB info": func(c *dcap.Collateral) *[]byte { return &c.TCBInfo }, "QE identity": func(c *dcap.Collateral) *[]byte { return &c.QEIdentity },
		"revocation list of PCK": func(c *dcap.Collateral) *[]byte { return &c.PCKCRL }, "revocation list of the root": func(c *dcap.Collateral) *[]byte { return &c.RootCRL },
	} {
		c := genuine(t)
		good := bytes.Clone(*of(&c))
		for at := 0; at < len(good); at += 29 {
			changed := bytes.Clone(good)
			changed[at] ^= 1 << (at % 7)
			*of(&c) = changed
			_, err := genuineVerifier(t, c, genuineTime).Verify(t.Context(), ev, unbound)
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Fatalf("byte %d of the %s was changed, and the verdict is %v", at, part, err)
			}
		}
	}
}
