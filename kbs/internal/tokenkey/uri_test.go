package tokenkey

import (
	"reflect"
	"strings"
	"testing"

	wire "github.com/vouchsafe-cc/vouchsafe/kbs/api/tokenkey"
)

const module = "?module-path=/usr/lib/m.so"

func TestParseURI(t *testing.T) {
	seven := uint(7)
	for text, want := range map[string]URI{
		"pkcs11:token=t;object=o" + module: {Which: wire.Which{Token: "t"}, Object: "o", Module: "/usr/lib/m.so"},
		"pkcs11:id=%00%ffa;token=my%20card;type=private" + module + "&pin-source=file:/run/pin": {
			Which: wire.Which{Token: "my card"}, ID: []byte("\x00\xffa"), Module: "/usr/lib/m.so", PIN: "/run/pin",
		},
		"pkcs11:token=a%3Bb;object=c%3Dd" + module + "&pin-source=file:///run/pin": {Which: wire.Which{Token: "a;b"}, Object: "c=d", Module: "/usr/lib/m.so", PIN: "/run/pin"},
		"pkcs11:token=t;object=o" + module + "&pin-source=/run/pin":                {Which: wire.Which{Token: "t"}, Object: "o", Module: "/usr/lib/m.so", PIN: "/run/pin"},
		"pkcs11:manufacturer=piv_II;model=PKCS%2315%20emulated;serial=00a1;slot-id=7;object=o" + module: {
			Which: wire.Which{Serial: "00a1", Manufacturer: "piv_II", Model: "PKCS#15 emulated", Slot: &seven}, Object: "o", Module: "/usr/lib/m.so",
		},
		"pkcs11:slot-id=7;id=%01" + module: {Which: wire.Which{Slot: &seven}, ID: []byte{1}, Module: "/usr/lib/m.so"},
	} {
		got, err := ParseURI(text)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
}

func TestParseURIRefuses(t *testing.T) {
	for text, reason := range map[string]string{
		"file.key":                                           "not a PKCS#11 URI",
		"pkcs11:" + strings.Repeat("x", maxURI):              "not a PKCS#11 URI",
		"pkcs11:":                                            "names no token",
		"pkcs11:token=t" + module:                            "names no key",
		"pkcs11:token=t;object=o":                            "module-path",
		"pkcs11:token=t;object=o?module-path=m.so":           "absolute",
		"pkcs11:object=o" + module:                           "names no token",
		"pkcs11:token=t;object=o;library-version=3" + module: "not supported",
		"pkcs11:slot-id=-1;object=o" + module:                "no number",
		"pkcs11:slot-id=4294967296;object=o" + module:        "no number",
		"pkcs11:serial=" + strings.Repeat("a", maxLabel+1) + ";id=1" + module: "too long",
		"pkcs11:token=t;object=o;object=p" + module:                           "there twice",
		"pkcs11:token=t;object=%zz" + module:                                  "not well formed",
		"pkcs11:token=t;object" + module:                                      "not well formed",
		"pkcs11:token=t;object=o;type=cert" + module:                          "a key pair",
		"pkcs11:token=t;object=o" + module + "&pin-value=1234":                "others see",
		"pkcs11:token=t;object=o" + module + "&pin-source=%7Ccat":             "absolute path",
		"pkcs11:token=t;object=o" + module + "&module-name=softhsm2":          "not supported",
		"pkcs11:token=t;id=" + strings.Repeat("a", maxLabel+1) + module:       "too long",
		"pkcs11:token=" + strings.Repeat("a", maxLabel+1) + ";id=1" + module:  "too long",
	} {
		_, err := ParseURI(text)
		if err == nil || !strings.Contains(err.Error(), reason) || strings.Contains(err.Error(), "1234") {
			t.Errorf("%.60s: %v, want %q", text, err, reason)
		}
	}
}

// What is accepted means the same when it is written and read again.
func FuzzParseURI(f *testing.F) {
	f.Add("pkcs11:token=my%20card;object=o;id=%00%ff" + module + "&pin-source=file:/run/pin")
	f.Add("pkcs11:token=" + strings.Repeat("a", maxLabel) + ";object=o" + module)
	f.Add("pkcs11:?")
	f.Add("pkcs11:slot-id=4294967295;serial=%00;model=" + strings.Repeat("a", 255) + ";manufacturer=;id=%ff" + module)
	f.Fuzz(func(t *testing.T, text string) {
		u, err := ParseURI(text)
		if err != nil {
			return
		}
		again, err := ParseURI(u.String())
		u.PIN = ""
		if len(u.String()) > maxURI {
			return // escaping made it longer
		}
		if len(u.ID) == 0 {
			u.ID = nil
		}
		if err != nil || !reflect.DeepEqual(again, u) {
			t.Fatalf("%q means %+v, and as %s %+v, %v", text, u, u, again, err)
		}
	})
}
