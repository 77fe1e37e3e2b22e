package token

import (
	"testing"
)

func BenchmarkIssue(b *testing.B) {
	r := newStage(b).replica()
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := r.Issue(b.Context(), "id", submods()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerifyCached(b *testing.B) {
	r := newStage(b).replica()
	text := r.issue("id")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Verify(b.Context(), text); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	r := newStage(b).replica()
	text := r.issue("id")
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := r.judge(b.Context(), text); err != nil {
			b.Fatal(err)
		}
	}
}
