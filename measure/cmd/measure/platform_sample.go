package main

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/sample"
)

// sampleRooms are those of the platforms whose evidence anyone can write.
// Nothing recognises them: who believes them says so by name, twice.
func (c *cli) sampleRooms() []room {
	allowed := new(bool)
	var out []room
	for _, p := range []measure.Platform{measure.Sample, measure.SampleDevice} {
		out = append(out, room{
			platform:   p,
			device:     p == measure.SampleDevice,
			recognises: func([]byte) bool { return false },
			read: func(raw []byte) (measure.Evidence, error) {
				if !json.Valid(raw) {
					return measure.Evidence{}, errors.New("sample evidence is JSON")
				}
				return measure.Evidence{Platform: p, Data: raw}, nil
			},
			verifier: func(context.Context, settings) (measure.Verifier, error) {
				if !*allowed {
					return nil, errors.New("sample evidence proves nothing; --allow-sample believes it all the same")
				}
				return sample.UnsafeVerifier(p)
			},
			inspect: func(ev measure.Evidence) (inspection, error) {
				var claims measure.Claims
				err := json.Unmarshal(ev.Data, &claims)
				return inspection{claims: claims}, err
			},
		})
	}
	out[0].flags = func(cmd *cobra.Command) {
		cmd.Flags().BoolVar(allowed, "allow-sample", false, "sample: believe evidence that anyone can write")
	}
	return out
}
