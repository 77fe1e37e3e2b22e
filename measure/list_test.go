package measure

import (
	"context"
	"errors"
	"strings"
	"testing"
)

type pair struct{}

func (pair) Platform() Platform { return SampleDevice }

func (pair) Verify(context.Context, Evidence, Expected) (Verdict, error) {
	return Verdict{}, errors.New("asked for one")
}

func (pair) VerifyAll(context.Context, Evidence, Expected) ([]Verdict, error) {
	all := []Verdict{
		{Checks: []Check{{Name: CheckSignature, Outcome: Passed}}},
		{Platform: SampleDevice, Checks: []Check{{Name: CheckSignature, Outcome: Failed, Reason: "bad"}, {Name: CheckTCB, Outcome: Failed, Reason: "old"}}},
	}
	return all, ListErr(all)
}

type single struct{ Verifier }

func (single) Verify(context.Context, Evidence, Expected) (Verdict, error) {
	return Verdict{Class: "cpu"}, nil
}

func TestVerifyAll(t *testing.T) {
	all, err := VerifyAll(t.Context(), pair{}, Evidence{}, Expected{})
	ve, ok := errors.AsType[*VerificationError](err)
	if !ok || len(all) != 2 || len(ve.Failed) != 2 || ve.Platform != SampleDevice || !strings.Contains(err.Error(), "signature: device 1: bad; tcb: device 1: old") {
		t.Errorf("%d verdicts, %v", len(all), err)
	}
	if all, err := VerifyAll(t.Context(), single{}, Evidence{}, Expected{}); err != nil || len(all) != 1 || all[0].Class != "cpu" {
		t.Errorf("%+v, %v", all, err)
	}
	if err := ListErr([]Verdict{{}}); err == nil {
		t.Error("a verdict without checks is good")
	}
	if err := ListErr(nil); err != nil {
		t.Error(err)
	}
}
