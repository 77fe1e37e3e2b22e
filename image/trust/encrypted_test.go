package trust

import (
	"errors"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/fault"
)

func TestEncryptedIsDemanded(t *testing.T) {
	const sealed, open = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "application/vnd.oci.image.layer.v1.tar+gzip"
	p, err := ParsePolicy([]byte(withDefault(`{"type":"encrypted"},{"type":"insecureAcceptAnything"}`)))
	must(t, err)
	for name, tt := range map[string]struct {
		layers []string
		reason string
	}{
		"all":               {[]string{sealed, sealed}, ""},
		"one is not":        {[]string{sealed, open, sealed}, "layer 1 is in the clear"},
		"none is":           {[]string{open}, "layer 0 is in the clear"},
		"says so elsewhere": {[]string{"application/x+encrypted+gzip"}, "layer 0 is in the clear"},
		"nothing is known":  {nil, "no layers are known"},
	} {
		t.Run(name, func(t *testing.T) {
			s := subject(t)
			s.Layers = tt.layers
			v, err := p.Evaluate(t.Context(), s, Evidence{Signatures: newShelf()})
			if tt.reason == "" {
				if err != nil || !v.Waived || len(v.Requirements) != 2 {
					t.Errorf("%+v, %v", v, err)
				}
				return
			}
			if rej, ok := errors.AsType[*Rejection](err); v.Accepted || fault.CodeOf(err) != fault.ImageUnsigned || !ok || !strings.Contains(rej.Reason, tt.reason) {
				t.Errorf("%+v, %v", v, err)
			}
		})
	}
	for _, bad := range []string{`{"type":"encrypted"}`, `{"type":"encrypted"},{"type":"encrypted"}`, `{"type":"encrypted","layers":2},{"type":"reject"}`} {
		if _, err := ParsePolicy([]byte(withDefault(bad))); err == nil {
			t.Errorf("%s is a policy", bad)
		}
	}
}
