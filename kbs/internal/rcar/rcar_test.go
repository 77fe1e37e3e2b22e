package rcar

import (
	"crypto"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// The key and the nonce of kbs-protocol 19.
func vectorData() api.RuntimeData {
	return api.RuntimeData{
		Nonce: "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
		TEEPubKey: api.JWK{
			Kty: "EC", Crv: "P-256", Alg: "ECDH-ES+A256KW",
			X: "UVw9brnjlrkE0_7Kf1T9zQzB6Ze_N13KUVrQpsO0A18",
			Y: "RTa-OlDzGPv5pUdZAqIhUCvvDVfgjFOyzApW8X2fk1Q",
		},
	}
}

// Vectors 1 to 3 of kbs-protocol 19.
func TestDigestVectors(t *testing.T) {
	rd := vectorData()
	primary, err := PrimaryDigest(DefaultHash, rd, "")
	if err != nil {
		t.Fatal(err)
	}
	same(t, primary, "c97fc717bffcdca39b3485d4019c1de4133fc9622ba484e947b417b83ffbae1abbf11747fdebdecaaabc5b407be66821")
	if got := base64.StdEncoding.EncodeToString(primary); got != "yX/HF7/83KObNIXUAZwd5BM/yWIrpITpR7QXuD/7rhq78RdH/eveyqq8W0B75mgh" {
		t.Errorf("sample report_data: got %s", got)
	}
	device, err := DeviceDigest(DefaultHash, rd)
	if err != nil {
		t.Fatal(err)
	}
	same(t, device, "e350679595854437e84f52e9a82671d2b81e0cce5ff82fb3511fad532d2ef9c20413f9bb929d5cd1e8ec1c7638f8bb25")
	with, err := PrimaryDigest(DefaultHash, rd, `{"sampledevice":{"report_data":"41BnlZWFRDfoT1LpqCZx0rgeDM5f+C+zUR+tUy0u+cIEE/m7kp1c0ejsHHY4+Lsl","svn":"2"}}`)
	if err != nil {
		t.Fatal(err)
	}
	same(t, with, "f343ddfacbd2647d0c6f8e8f5d27daad47b4409cf74fe05d95a8cb8f946eab8addbe20d95d176e4ec46bacc0d780862e")
}

func same(t *testing.T, got []byte, want string) {
	t.Helper()
	if hex.EncodeToString(got) != want {
		t.Errorf("got  %x\nwant %s", got, want)
	}
}

// What a client adds to its key must not change the digest, but what the key
// has must.
func TestOnlyTypedMembersCount(t *testing.T) {
	rd := vectorData()
	want, err := DeviceDigest(crypto.SHA256, rd)
	if err != nil {
		t.Fatal(err)
	}
	var fromWire api.RuntimeData
	raw := `{"nonce":"` + rd.Nonce + `","tee-pubkey":{"kid":"1","use":"enc","n":"AQ","e":"AQAB","pub":"AA","y":"` + rd.TEEPubKey.Y +
		`","x":"` + rd.TEEPubKey.X + `","alg":"ECDH-ES+A256KW","crv":"P-256","kty":"EC"}}`
	if err := json.Unmarshal([]byte(raw), &fromWire); err != nil {
		t.Fatal(err)
	}
	got, err := DeviceDigest(crypto.SHA256, fromWire)
	if err != nil || string(got) != string(want) {
		t.Fatalf("extra members changed the digest: %x, %v", got, err)
	}

	for name, change := range map[string]func(*api.RuntimeData){
		"nonce": func(r *api.RuntimeData) { r.Nonce += "=" },
		"alg":   func(r *api.RuntimeData) { r.TEEPubKey.Alg = "ECDH-ES" },
		"crv":   func(r *api.RuntimeData) { r.TEEPubKey.Crv = "P-521" },
		"x":     func(r *api.RuntimeData) { r.TEEPubKey.X = r.TEEPubKey.Y },
		"y":     func(r *api.RuntimeData) { r.TEEPubKey.Y = r.TEEPubKey.X },
	} {
		other := rd
		change(&other)
		if got, err := DeviceDigest(crypto.SHA256, other); err != nil || string(got) == string(want) {
			t.Errorf("a changed %s did not change the digest (%v)", name, err)
		}
	}
}

func TestDigestRefuses(t *testing.T) {
	ec := vectorData().TEEPubKey
	without := func(f func(*api.JWK)) api.JWK { k := ec; f(&k); return k }
	tests := []struct {
		name  string
		hash  crypto.Hash
		nonce string
		key   api.JWK
		extra string
	}{
		{"unknown type", crypto.SHA384, "n", api.JWK{Kty: "OKP", Alg: "a", X: "x"}, ""},
		{"no type", crypto.SHA384, "n", api.JWK{}, ""},
		{"EC without x", crypto.SHA384, "n", without(func(k *api.JWK) { k.X = "" }), ""},
		{"EC without y", crypto.SHA384, "n", without(func(k *api.JWK) { k.Y = "" }), ""},
		{"EC without crv", crypto.SHA384, "n", without(func(k *api.JWK) { k.Crv = "" }), ""},
		{"EC without alg", crypto.SHA384, "n", without(func(k *api.JWK) { k.Alg = "" }), ""},
		{"RSA without e", crypto.SHA384, "n", api.JWK{Kty: "RSA", Alg: "RSA-OAEP-256", N: "AQ"}, ""},
		{"AKP without pub", crypto.SHA384, "n", api.JWK{Kty: "AKP", Alg: "ML-KEM-768+A192KW"}, ""},
		{"key not UTF-8", crypto.SHA384, "n", without(func(k *api.JWK) { k.X = "\xff" }), ""},
		{"nonce not UTF-8", crypto.SHA384, "\xff", ec, ""},
		{"no nonce", crypto.SHA384, "", ec, ""},
		{"additional evidence not UTF-8", crypto.SHA384, "n", ec, "\xff"},
		{"broken hash", crypto.MD5, "n", ec, ""},
		{"no hash", 0, "n", ec, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := PrimaryDigest(tt.hash, api.RuntimeData{Nonce: tt.nonce, TEEPubKey: tt.key}, tt.extra); err == nil {
				t.Fatalf("accepted: %x", got)
			}
		})
	}
}

func TestReduceJWK(t *testing.T) {
	all := api.JWK{Crv: "c", Alg: "a", X: "x", Y: "y", N: "n", E: "e", Pub: "p"}
	for kty, want := range map[string]api.JWK{
		"EC":  {Kty: "EC", Crv: "c", Alg: "a", X: "x", Y: "y"},
		"RSA": {Kty: "RSA", Alg: "a", N: "n", E: "e"},
		"AKP": {Kty: "AKP", Alg: "a", Pub: "p"},
	} {
		k := all
		k.Kty = kty
		if got, err := ReduceJWK(k); err != nil || got != want {
			t.Errorf("%s: got %+v, %v", kty, got, err)
		}
	}
}

func TestParseHash(t *testing.T) {
	for name, want := range map[string]crypto.Hash{
		"sha256": crypto.SHA256, "SHA384": crypto.SHA384, "Sha512": crypto.SHA512,
	} {
		if got, err := ParseHash(name); err != nil || got != want {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
	}
	for _, name := range []string{"sm3", "", "sha-256", "md5", " sha256", strings.Repeat("x", 1<<16)} {
		if _, err := ParseHash(name); !errors.Is(err, ErrUnsupportedHash) {
			t.Errorf("%.20q: got %v", name, err)
		}
	}
	for _, name := range SupportedHashes() {
		if _, err := ParseHash(name); err != nil {
			t.Errorf("advertised %s: %v", name, err)
		}
	}
}

// Runtime data comes from the wire; whatever parses must give a stable digest.
func FuzzPrimaryDigest(f *testing.F) {
	seed, _ := json.Marshal(vectorData())
	f.Add(seed, "")
	f.Add([]byte(`{"nonce":"n","tee-pubkey":{"kty":"RSA","alg":"RSA-OAEP-256","n":"AQ","e":"AQAB"}}`), `{"nvidia":{}}`)
	f.Fuzz(func(t *testing.T, raw []byte, extra string) {
		var rd api.RuntimeData
		if json.Unmarshal(raw, &rd) != nil {
			return
		}
		first, err := PrimaryDigest(crypto.SHA256, rd, extra)
		if err != nil {
			return
		}
		again, err := json.Marshal(rd)
		if err != nil {
			t.Fatal(err)
		}
		var back api.RuntimeData
		if err := json.Unmarshal(again, &back); err != nil {
			t.Fatal(err)
		}
		if second, err := PrimaryDigest(crypto.SHA256, back, extra); err != nil || string(first) != string(second) {
			t.Fatalf("digest of %q is not stable: %x, %x, %v", raw, first, second, err)
		}
	})
}
