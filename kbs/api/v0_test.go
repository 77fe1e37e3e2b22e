package api

import (
	"encoding/json"
	"reflect"
	"testing"
)

const nonce = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

func key() JWK {
	return JWK{
		Kty: "EC", Crv: "P-256", Alg: "ECDH-ES+A256KW",
		X: "UVw9brnjlrkE0_7Kf1T9zQzB6Ze_N13KUVrQpsO0A18",
		Y: "RTa-OlDzGPv5pUdZAqIhUCvvDVfgjFOyzApW8X2fk1Q",
	}
}

// The texts are those of the KBS protocol specification, sections 2.4 to 4;
// the field's clients and brokers read and write exactly these.
func TestWireForms(t *testing.T) {
	tests := []struct {
		name  string
		value any
		want  string
	}{
		{
			"request",
			Request{Version: ProtocolVersion, TEE: "snp", ExtraParams: json.RawMessage(`{"supported-hash-algorithms":["sha256","sha384","sha512","sm3"]}`)},
			`{"version":"0.4.0","tee":"snp","extra-params":{"supported-hash-algorithms":["sha256","sha384","sha512","sm3"]}}`,
		},
		{
			"request without extra params",
			Request{Version: ProtocolVersion, TEE: "az-snp-vtpm", ExtraParams: NoExtraParams()},
			`{"version":"0.4.0","tee":"az-snp-vtpm","extra-params":""}`,
		},
		{
			"challenge",
			Challenge{Nonce: nonce, ExtraParams: NoExtraParams()},
			`{"nonce":"` + nonce + `","extra-params":""}`,
		},
		{
			"challenge that selects a hash",
			Challenge{Nonce: nonce, ExtraParams: json.RawMessage(`{"selected-hash-algorithm":"sha512"}`)},
			`{"nonce":"` + nonce + `","extra-params":{"selected-hash-algorithm":"sha512"}}`,
		},
		{
			"attestation",
			Attestation{
				InitData:    &InitData{Format: "toml", Body: "version = \"0.1.0\"\n"},
				RuntimeData: RuntimeData{Nonce: nonce, TEEPubKey: key()},
				TEEEvidence: TEEEvidence{PrimaryEvidence: json.RawMessage(`{"svn":"1"}`), AdditionalEvidence: `{"nvidia":{}}`},
			},
			`{"init-data":{"format":"toml","body":"version = \"0.1.0\"\n"},` +
				`"runtime-data":{"nonce":"` + nonce + `","tee-pubkey":{"kty":"EC","crv":"P-256","alg":"ECDH-ES+A256KW",` +
				`"x":"UVw9brnjlrkE0_7Kf1T9zQzB6Ze_N13KUVrQpsO0A18","y":"RTa-OlDzGPv5pUdZAqIhUCvvDVfgjFOyzApW8X2fk1Q"}},` +
				`"tee-evidence":{"primary_evidence":{"svn":"1"},"additional_evidence":"{\"nvidia\":{}}"}}`,
		},
		{
			"attestation without init-data and devices",
			Attestation{
				RuntimeData: RuntimeData{Nonce: nonce, TEEPubKey: JWK{Kty: "RSA", Alg: "RSA-OAEP-256", N: "AQ", E: "AQAB"}},
				TEEEvidence: TEEEvidence{PrimaryEvidence: json.RawMessage(`"x"`)},
			},
			`{"init-data":null,"runtime-data":{"nonce":"` + nonce + `","tee-pubkey":{"kty":"RSA","alg":"RSA-OAEP-256","n":"AQ","e":"AQAB"}},` +
				`"tee-evidence":{"primary_evidence":"x","additional_evidence":""}}`,
		},
		{"token", AttestResponse{Token: "a.b.c"}, `{"token":"a.b.c"}`},
		{
			"JWE",
			JWE{Protected: "cA", EncryptedKey: "aw", IV: "aXY", Ciphertext: "", Tag: "dA"},
			`{"protected":"cA","encrypted_key":"aw","iv":"aXY","ciphertext":"","tag":"dA"}`,
		},
		{
			"error of the field",
			ErrorInformation{Type: ErrorTypePrefix + "PolicyDeny", Detail: "Access denied by policy"},
			`{"type":"https://github.com/confidential-containers/kbs/errors/PolicyDeny","detail":"Access denied by policy"}`,
		},
		{
			"our error",
			ErrorInformation{Type: ErrorTypePrefix + "PolicyDeny", Detail: "Access denied by policy", Code: "policy_denied", Ticket: "7QK2-M9TD"},
			`{"type":"https://github.com/confidential-containers/kbs/errors/PolicyDeny","detail":"Access denied by policy","code":"policy_denied","ticket":"7QK2-M9TD"}`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := json.Marshal(tt.value)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != tt.want {
				t.Fatalf("got  %s\nwant %s", got, tt.want)
			}
			back := reflect.New(reflect.TypeOf(tt.value))
			if err := json.Unmarshal(got, back.Interface()); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(back.Elem().Interface(), tt.value) {
				t.Fatalf("came back as %+v", back.Elem())
			}
		})
	}
}

func TestExtraParams(t *testing.T) {
	tests := []struct {
		name, raw string
		want      ExtraParams
		refused   bool
	}{
		{"absent", "", ExtraParams{}, false},
		{"empty string", `""`, ExtraParams{}, false},
		{"null", "null", ExtraParams{}, false},
		{"empty object", " {} ", ExtraParams{}, false},
		{"list", `{"supported-hash-algorithms":["sha512"]}`, ExtraParams{SupportedHashAlgorithms: []string{"sha512"}}, false},
		{"selected", `{"selected-hash-algorithm":"SHA256","new":1}`, ExtraParams{SelectedHashAlgorithm: "SHA256"}, false},
		{"selector", `{"attestation-policy-selector":"gpu"}`, ExtraParams{AttestationPolicySelector: "gpu"}, false},
		{"selected is a number", `{"selected-hash-algorithm":384}`, ExtraParams{}, true},
		{"another string", `"sha384"`, ExtraParams{}, true},
		{"array", `[]`, ExtraParams{}, true},
		{"broken", `{`, ExtraParams{}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseExtraParams(json.RawMessage(tt.raw))
			if (err != nil) != tt.refused || !reflect.DeepEqual(got, tt.want) {
				t.Fatalf("got %+v, %v", got, err)
			}
			if err != nil {
				return
			}
			raw, err := got.Raw()
			if err != nil {
				t.Fatal(err)
			}
			if again, err := ParseExtraParams(raw); err != nil || !reflect.DeepEqual(again, got) {
				t.Fatalf("%s came back as %+v, %v", raw, again, err)
			}
		})
	}
	if raw, err := (ExtraParams{}).Raw(); err != nil || string(raw) != `""` {
		t.Fatalf("no params are written as %s, %v", raw, err)
	}
}

func FuzzParseExtraParams(f *testing.F) {
	for _, s := range []string{`""`, "null", `{"selected-hash-algorithm":"sha384"}`, `{"supported-hash-algorithms":["sm3",""]}`, "[", `{"a":{}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		p, err := ParseExtraParams(in)
		if err != nil {
			return
		}
		raw, err := p.Raw()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseExtraParams(raw)
		if err != nil || again.SelectedHashAlgorithm != p.SelectedHashAlgorithm || len(again.SupportedHashAlgorithms) != len(p.SupportedHashAlgorithms) {
			t.Fatalf("%q came back as %s (%v)", in, raw, err)
		}
	})
}
