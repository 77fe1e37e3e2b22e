package dcap

import (
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure"
)

func TestSimulatedChipPasses(t *testing.T) {
	for _, tee := range []TEE{TDX, SGX} {
		t.Run(string(tee), func(t *testing.T) {
			o := newLab(t, tee, ChipOptions{}).opinion()
			wantFailures(t, o, nil)
			for _, c := range o.Checks {
				if c.Outcome != measure.Passed {
					t.Errorf("%s: %s %s", c.Name, c.Outcome, c.Reason)
				}
			}
			if want := (measure.Root{Name: "lab", Simulated: true}); o.Root != want {
				t.Errorf("root %+v, want %+v", o.Root, want)
			}
		})
	}
}
