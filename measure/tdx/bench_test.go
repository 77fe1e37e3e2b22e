package tdx

import "testing"

// BenchmarkVerify is evidence of a platform that is known already.
func BenchmarkVerify(b *testing.B) {
	l := newLab(b, func(l *Launch) { l.TDX15 = true })
	v := l.verifier()
	ev := wire(b, *l.evidence())
	for b.Loop() {
		if _, err := v.Verify(b.Context(), ev, l.expected()); err != nil {
			b.Fatal(err)
		}
	}
}
