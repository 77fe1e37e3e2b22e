package measure

import "testing"

func TestCheckReportData(t *testing.T) {
	seen := [64]byte{1, 2, 3}
	for name, c := range map[string]struct {
		want    Binding
		outcome Outcome
	}{
		"equal":         {BoundTo([]byte{1, 2, 3}), Passed},
		"other":         {BoundTo([]byte{1, 2, 4}), Failed},
		"a start of it": {BoundTo([]byte{1, 2}), Failed},
		"empty":         {BoundTo(nil), Failed},
		"too long":      {BoundTo(make([]byte, 65)), Failed},
		"nothing":       {NotPresented(), Failed},
		"undecided":     {Binding{}, Failed},
		"waived":        {UnsafeUnbound("test"), Waived},
	} {
		if got := CheckReportData(seen, c.want); got.Outcome != c.outcome || got.Name != CheckBinding {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestCheckInitDataField(t *testing.T) {
	seen := []byte{1, 2, 3, 0}
	for name, c := range map[string]struct {
		seen    []byte
		want    Binding
		outcome Outcome
	}{
		"filled up":     {seen, BoundTo([]byte{1, 2, 3}), Passed},
		"cut":           {seen, BoundTo([]byte{1, 2, 3, 0, 9}), Passed},
		"other":         {seen, BoundTo([]byte{1, 2, 4}), Failed},
		"empty":         {seen, BoundTo(nil), Failed},
		"no field":      {nil, BoundTo([]byte{1}), Failed},
		"not presented": {seen, NotPresented(), NotApplicable},
		"undecided":     {seen, Binding{}, Failed},
		"waived":        {seen, UnsafeUnbound("test"), Waived},
	} {
		if got := CheckInitDataField(c.seen, c.want); got.Outcome != c.outcome || got.Name != CheckInitData {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
