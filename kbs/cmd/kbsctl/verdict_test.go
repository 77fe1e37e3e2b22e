package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/lab"
)

// verdict FILE REFVALUES writes what measure verify -o json says of a simulated
// guest of SNP, and its reference value. ! verdict: of one that failed a check.
func cmdVerdict(ts *testscript.TestScript, neg bool, args []string) {
	dir, err := os.MkdirTemp(ts.Getenv("WORK"), "lab-")
	ts.Check(err)
	l, err := lab.Open(measure.SNP, dir)
	ts.Check(err)
	all, err := l.Verdicts(context.Background())
	ts.Check(err)
	v, word := all[0], "verified"
	if neg {
		v.Checks[0].Outcome, v.Checks[0].Reason, word = measure.Failed, "made to fail", "refused"
	}
	raw, err := json.Marshal(struct {
		Word string `json:"verdict"`
		measure.Verdict
	}{word, v})
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), raw, 0o600))
	text := fmt.Sprintf("kind: RefValue\nmetadata: {name: snp_launch_measurement}\nspec: {value: [%q]}\n", strings.Trim(fmt.Sprint(v.Claims["measurement"]), `"`))
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(text), 0o600))
}
