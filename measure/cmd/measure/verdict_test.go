package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure"
)

// Texts in evidence are whatever its maker likes: they must not look like a verdict,
// nor reach the terminal.
func TestTextsOfEvidenceStayTexts(t *testing.T) {
	const forged = "GPU-1\nevidence:     verified\x1b[2J\xff\u202e"
	verdict := measure.Verdict{
		Platform: measure.NVIDIA, Claims: measure.Claims{"uuid": forged, "devices": []any{forged}},
		Checks: []measure.Check{{Name: measure.CheckChain, Outcome: measure.Failed, Reason: forged, Findings: []measure.Finding{{Field: "root", Seen: forged, Wanted: []string{forged}}}}},
	}
	var out bytes.Buffer
	if err := printVerdict(&out, verdict); err != nil {
		t.Fatal(err)
	}
	text := out.String() + plainLines(verdict.Err().Error())
	if strings.ContainsAny(text, "\x1b\u202e\ufffd") {
		t.Errorf("%q reaches the terminal", text)
	}
	for line := range strings.Lines(out.String()) {
		if strings.HasPrefix(line, "evidence:") && strings.Contains(line, "verified") {
			t.Errorf("the evidence wrote its own verdict:\n%s", &out)
		}
	}
	out.Reset()
	if err := (&cli{out: &out}).printJSON(map[string]string{"uuid": "\u009b2J\u202e\U000e0001 ü"}); err != nil || out.String() != "{\n  \"uuid\": \"\\u009b2J\\u202e\\udb40\\udc01 ü\"\n}\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
	if got := plain("Intel(R) ü 漢 \\"); got != "Intel(R) ü 漢 \\" {
		t.Errorf("%q is changed", got)
	}
}
