package sign1

import (
	"crypto/ed25519"
	"crypto/rand"
	"strings"
	"testing"

	"github.com/veraison/go-cose"
)

// A signature over something that changes its meaning, in a way that is not known
// here, is no signature over what is read.
func TestCriticalParameters(t *testing.T) {
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := cose.NewSigner(cose.AlgorithmEdDSA, key)
	if err != nil {
		t.Fatal(err)
	}
	for _, critical := range []bool{false, true} {
		m := cose.NewSign1Message()
		m.Headers.Protected.SetAlgorithm(cose.AlgorithmEdDSA)
		m.Headers.Protected["valid-until"] = "yesterday"
		if critical {
			m.Headers.Protected[cose.HeaderLabelCritical] = []any{"valid-until"}
		}
		m.Payload = []byte("document")
		if err := m.Sign(rand.Reader, nil, signer); err != nil {
			t.Fatal(err)
		}
		raw, err := m.MarshalCBOR()
		if err != nil {
			t.Fatal(err)
		}
		read := cose.NewSign1Message()
		if err := read.UnmarshalCBOR(raw); err != nil {
			t.Fatal(err)
		}
		err = Verify(read, public)
		if critical != (err != nil) || err != nil && !strings.Contains(err.Error(), "critical") {
			t.Errorf("critical %v: %v", critical, err)
		}
	}
}
