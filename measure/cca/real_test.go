package cca

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure"
)

// example returns the example token of Arm's software stack, and a verifier
// that names its root as what it is: a simulation, for everybody has its keys.
func example(t *testing.T) ([]byte, *Verifier) {
	t.Helper()
	token, anchors := shared(t, "cca", "cca-example-token.cbor"), shared(t, "cca", "tastore.json")
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
	anchors := shared(t, "cca", "tastore.json")
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
