package sigstore

import "testing"

func FuzzSCT(f *testing.F) {
	f.Add([]byte{0, 6, 0, 4, 0, 0, 0, 0}, []byte{0})
	f.Fuzz(func(_ *testing.T, list, one []byte) {
		scts, err := splitSCTs(list)
		if err != nil {
			return
		}
		for _, raw := range append(scts, one) {
			_, _ = parseSCT(raw)
		}
		_, _ = withoutSCTs(one)
	})
}
