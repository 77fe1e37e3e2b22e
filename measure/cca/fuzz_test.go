package cca

import (
	"bytes"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure"
)

// FuzzParseToken reads hostile tokens. What it accepts has the two parts, and
// every claim in its length.
func FuzzParseToken(f *testing.F) {
	l := newLab(f)
	f.Add(l.token())
	old, err := l.sim.token(challenge, tagCollection)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(old)
	f.Add([]byte{0xd9, 0x01, 0x8f, 0xa0})
	f.Fuzz(func(t *testing.T, raw []byte) {
		token, err := ParseToken(raw)
		if err != nil {
			return
		}
		if token.Platform.InstanceID[0] != 1 || len(token.Realm.Initial) < 32 || len(token.Platform.Components) == 0 {
			t.Errorf("accepted %x", raw)
		}
		token.Claims()
	})
}

// FuzzVerify accepts no evidence but that of the lab's realm over the
// challenge: whoever has no key makes none.
func FuzzVerify(f *testing.F) {
	l := newLab(f)
	v, want := l.verifier(), l.expected()
	good, err := Wire(l.token())
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(good.Data))
	f.Add([]byte(`{"token":[217,1,143]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := v.Verify(t.Context(), measure.Evidence{Platform: measure.CCA, Data: raw}, want)
		if err == nil && (!got.Root.Simulated || !bytes.Contains(raw, []byte("token"))) {
			t.Errorf("accepted %s", raw)
		}
	})
}

// FuzzTrustStore reads trust stores.
func FuzzTrustStore(f *testing.F) {
	f.Add(newLab(f).root().Anchors)
	f.Add([]byte(`[{"pkey":{"kty":"EC"}}]`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if anchors, err := parseStore(&store{}, raw); err == nil && len(anchors) == 0 {
			t.Error("an empty trust store")
		}
	})
}
