package main

import (
	"slices"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/collateral"
	"github.com/vouchsafe-cc/vouchsafe/measure/dcap"
)

// TestWhatAQuoteNeeds goes from a raw quote to the names under which its
// collateral is fetched.
func TestWhatAQuoteNeeds(t *testing.T) {
	v, err := dcap.NewVendor(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	rooms := (&cli{}).rooms()
	for platform, q := range map[measure.Platform]struct {
		tee     dcap.TEE
		version uint16
		kind    dcap.BodyType
		size    int
	}{
		measure.TDX: {dcap.TDX, 5, dcap.BodyTD15, 648},
		measure.SGX: {dcap.SGX, 3, dcap.BodySGX, dcap.EnclaveReportSize},
	} {
		chip, err := v.NewChip(q.tee, time.Now(), dcap.ChipOptions{})
		if err != nil {
			t.Fatal(err)
		}
		quote, err := chip.Quote(q.version, q.kind, make([]byte, q.size))
		if err != nil {
			t.Fatal(err)
		}
		r, err := roomOf(rooms, "", quote.Marshal())
		if err != nil || r.platform != platform {
			t.Fatalf("a quote of %s is taken for %q: %v", platform, r.platform, err)
		}
		ev, err := r.read(quote.Marshal())
		if err != nil {
			t.Fatal(err)
		}
		got, err := r.needs(ev)
		want := []collateral.Name{
			collateral.TCBInfo(q.tee, dcap.SimulatedFMSPC), collateral.QEIdentity(q.tee), collateral.PCKCRL(dcap.Platform), collateral.RootCRL,
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s needs %v, want %v: %v", platform, got, want, err)
		}
	}
}
