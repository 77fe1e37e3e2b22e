package registry

import "testing"

func FuzzParseContentRange(f *testing.F) {
	f.Add("bytes 0-9/10")
	f.Add("bytes 5-9/*")
	f.Fuzz(func(t *testing.T, v string) {
		first, last, total, ok := parseContentRange(v)
		if ok && (first < 0 || last < first || total < -1) {
			t.Errorf("%q: %d-%d/%d", v, first, last, total)
		}
	})
}
