package cca

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure"

	"github.com/vouchsafe-cc/vouchsafe/measure/internal/evidencetest"
)

// example returns the example token of Arm's software stack, and a verifier
// that names its root as what it is: a simulation, for everybody has its keys.
func example(t *testing.T) ([]byte, *Verifier) {
	t.Helper()
	token, anchors := evidencetest.File(t, "cca", "cca-example-token.cbor"), evidencetest.File(t, "cca", "tastore.json")
	v, err := NewVerifier(VerifierConfig{UnsafeSimulatedRoots: []TrustStore{{Name: "arm-example", Anchors: anchors}}})
	if err != nil {
		t.Fatal(err)
	}
	return token, v
}

func exampleExpected(t *testing.T) measure.Expected {
	t.Helper()
	challenge, err := hex.DecodeString("57e979ae2618de0c1ab73144c440d741cf9236dc9d52ed190053382a4d190252f9f0370403c35dcb155fb4362d73c66d5b0494bf939315d3dc52b8cdc8b85a96")
	if err != nil {
		t.Fatal(err)
	}
	return measure.Expected{ReportData: measure.BoundTo(challenge), InitData: measure.BoundTo(make([]byte, 64))}
}

func TestExampleToken(t *testing.T) {
	token, v := example(t)
	l := &lab{t: t}
	got, err := l.verify(v, token, exampleExpected(t))
	if err != nil {
		t.Fatal(err)
	}
	if !got.Root.Simulated || got.Claims[ClaimSimulatedRoot] != "arm-example" {
		t.Errorf("a token that everybody can sign passes for genuine: %+v", got.Root)
	}
	realm, platform := got.Claims["realm"].(measure.Claims), got.Claims["platform"].(measure.Claims)
	rim := "ae87fbf7f105e71a7827cb6f0896889c73d2beaf4830d4f9cb05e3e96c3fc7b4faa04caf36a26bd094cf9c7b738617e4c189aaee184dedda5d7a03c39dbdac7c"
	if raw, err := hex.DecodeString(rim); err != nil || realm["cca-realm-initial-measurement"] != b64(raw) {
		t.Errorf("initial measurement %v", realm["cca-realm-initial-measurement"])
	}
	if n := len(platform["cca-platform-sw-components"].([]any)); n != 13 {
		t.Errorf("%d software components", n)
	}
	if platform["cca-platform-lifecycle-state"] != "secured" || got.Claims["init_data"] != strings.Repeat("00", 64) {
		t.Errorf("claims %v", got.Claims)
	}
}

// No configuration makes the example's machine a production one.
func TestExampleIsNeverProduction(t *testing.T) {
	anchors := evidencetest.File(t, "cca", "tastore.json")
	for _, name := range []string{"arm-example", "production"} {
		_, err := NewVerifier(VerifierConfig{TrustStores: []TrustStore{{Name: name, Anchors: anchors}}})
		if err == nil || !strings.Contains(err.Error(), "everybody can sign") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A token whose every bit matters: no other token with one bit changed is
// accepted.
func TestEveryBitOfTheExampleCounts(t *testing.T) {
	token, v := example(t)
	l, want := &lab{t: t}, exampleExpected(t)
	for at := 0; at < len(token); at += mutationStep {
		changed := append([]byte(nil), token...)
		changed[at] ^= 1 << (at % 8)
		if _, err := l.verify(v, changed, want); err == nil {
			t.Errorf("byte %d changed, and the token is accepted", at)
		}
	}
}

// The claims have the names and types of the field's, and say of the example
// what the field's reference values know.
func TestExampleClaims(t *testing.T) {
	token, v := example(t)
	got, err := (&lab{t: t}).verify(v, token, exampleExpected(t))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(got.Claims)
	if err != nil {
		t.Fatal(err)
	}
	var seen, field map[string]any
	if err := errors.Join(json.Unmarshal(raw, &seen), json.Unmarshal(evidencetest.File(t, "cca", "cca-claims.json"), &field)); err != nil {
		t.Fatal(err)
	}
	sameShape(t, "", field, seen)

	var known struct {
		Platform []struct {
			Components []struct {
				Value  string `json:"measurement-value"`
				Signer string `json:"signer-id"`
				Type   string `json:"component-type"`
			} `json:"sw-components"`
		} `json:"platform"`
	}
	if err := json.Unmarshal(evidencetest.File(t, "cca", "rvstore.json"), &known); err != nil {
		t.Fatal(err)
	}
	var want, have []string
	for _, c := range known.Platform[0].Components {
		want = append(want, c.Type+" "+c.Value+" "+c.Signer)
	}
	parsed, err := ParseToken(token)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range parsed.Platform.Components {
		have = append(have, c.Type+" "+hex.EncodeToString(c.Measurement)+" "+hex.EncodeToString(c.Signer))
	}
	slices.Sort(want)
	slices.Sort(have)
	if !slices.Equal(have, want) {
		t.Errorf("components\n%s\nwant\n%s", strings.Join(have, "\n"), strings.Join(want, "\n"))
	}
}

// sameShape demands that whatever the field claims is claimed here, as a value
// of the same type.
func sameShape(t *testing.T, path string, field, seen any) {
	t.Helper()
	switch f := field.(type) {
	case map[string]any:
		s, ok := seen.(map[string]any)
		if !ok {
			t.Errorf("%s is no object", path)
		}
		for name := range f {
			sameShape(t, path+"/"+name, f[name], s[name])
		}
	case []any:
		s, ok := seen.([]any)
		if !ok || len(s) == 0 {
			t.Errorf("%s is no list", path)
			return
		}
		sameShape(t, path+"/0", f[0], s[0])
	default:
		if reflect.TypeOf(field) != reflect.TypeOf(seen) {
			t.Errorf("%s is %T, want %T", path, seen, field)
		}
	}
}
