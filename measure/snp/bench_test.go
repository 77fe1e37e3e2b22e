package snp

import (
	"crypto/ecdsa"
	"crypto/sha512"
	"testing"
)

// BenchmarkVerify shows what one verification costs beside the one signature
// that cannot be avoided: the report's own, on P-384. The certificates are
// those of one chip, as they are in production for months.
func BenchmarkVerify(b *testing.B) {
	l := newLab(b, Milan)
	e := l.evidence()
	wire, err := e.Wire()
	if err != nil {
		b.Fatal(err)
	}
	b.Run("evidence", func(b *testing.B) {
		v := l.verifier()
		b.ReportAllocs()
		for b.Loop() {
			if _, err := v.Verify(b.Context(), wire, l.expected()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("signature-alone", func(b *testing.B) {
		leaf, err := parseLeaf(e.Certificate(CertVCEK))
		if err != nil {
			b.Fatal(err)
		}
		sum := sha512.Sum384(e.Report.Marshal()[:SignedSize])
		r, s := littleEndian(e.Report.SignatureR), littleEndian(e.Report.SignatureS)
		for b.Loop() {
			if !ecdsa.Verify(leaf.key, sum[:], r, s) {
				b.Fatal("the signature does not verify")
			}
		}
	})
	b.Run("parse", func(b *testing.B) {
		for b.Loop() {
			if _, err := ParseEvidence(wire); err != nil {
				b.Fatal(err)
			}
		}
	})
}
