package attestation

import (
	"context"
	"encoding/json"
	"errors"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/policy"
	"github.com/vouchsafe-cc/vouchsafe/measure"
)

// door is a gate that knows who is inside.
type door struct {
	inside, entered int
	shut            error
}

func (d *door) Enter(context.Context) (func(), error) {
	if d.shut != nil {
		return nil, d.shut
	}
	d.inside++
	d.entered++
	return func() { d.inside-- }, nil
}

// believer accepts everything, and affirms nothing.
type believer struct {
	door               *door
	outside            []string // what was done without a turn
	explained, refusal error
	asked              int
}

func (b *believer) note(what string) {
	if b.door.inside != 1 {
		b.outside = append(b.outside, what)
	}
}

func (*believer) Platform() measure.Platform { return measure.SNP }

func (b *believer) Verify(_ context.Context, _ measure.Evidence, want measure.Expected) (measure.Verdict, error) {
	b.note("verify")
	return measure.Verdict{
		Platform: measure.SNP, Class: classCPU, Claims: measure.Claims{"report_data": "00"},
		Checks: []measure.Check{{Name: measure.CheckBinding, Outcome: measure.Passed}, {Name: measure.CheckTCB, Outcome: measure.Waived, Reason: "a test"}},
	}, nil
}

func (b *believer) Appraise(context.Context, string, json.RawMessage) (policy.Appraisal, error) {
	b.note("appraise")
	return policy.Appraisal{Policy: "attestation/default_cpu@1"}, b.refusal
}

func (b *believer) ExplainAppraisal(context.Context, string, json.RawMessage) (policy.Explanation, error) {
	b.note("explain")
	b.asked++
	return policy.Explanation{Rule: "hardware", Line: 7}, b.explained
}

// What costs the broker CPU waits for its turn, also the explanation of what was
// judged already: an administrator must not hold up guests.
func TestAppraiseInTurn(t *testing.T) {
	cut := errors.New("the rule is too slow")
	for name, tt := range map[string]struct {
		shut, refusal, explained error
		code                     fault.Code
		asked                    int
	}{
		"explained":     {asked: 1},
		"not explained": {explained: cut, code: fault.PolicyError, asked: 1},
		"not judged":    {refusal: cut, code: fault.PolicyError},
		"turned away":   {shut: fault.Newf(fault.Unavailable, "full"), code: fault.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			b := &believer{door: &door{shut: tt.shut}, refusal: tt.refusal, explained: tt.explained}
			registry, err := measure.NewRegistry(b)
			if err != nil {
				t.Fatal(err)
			}
			s := New(Config{Registry: registry, Policies: b, Gate: b.door})
			out, err := s.Appraise(t.Context(), api.AppraisalRequest{Evidence: []api.AppraisalEvidence{{Platform: "snp", Data: json.RawMessage("{}"), ReportData: []byte{1}}}})
			if code := fault.CodeOf(err); tt.code == "" && err != nil || tt.code != "" && code != tt.code {
				t.Fatalf("got %v", err)
			}
			if errors.Is(err, errTurnedAway) != (tt.shut != nil) {
				t.Errorf("turned away: %v", err)
			}
			if len(b.outside) > 0 || b.door.inside != 0 || tt.shut == nil && b.door.entered != 1 || b.asked != tt.asked {
				t.Errorf("without a turn %v, %d left inside of %d, explained %d times", b.outside, b.door.inside, b.door.entered, b.asked)
			}
			if tt.code == "" && (len(out.Attesters) != 1 || out.Attesters[0].Rule != "hardware" || out.Attesters[0].Waived[string(measure.CheckTCB)] != "a test") {
				t.Errorf("told %+v", out)
			}
		})
	}
}
