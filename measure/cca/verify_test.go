package cca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/veraison/go-cose"

	"github.com/vouchsafe-cc/vouchsafe/measure"

	"github.com/vouchsafe-cc/vouchsafe/measure/internal/verdicttest"
)

func TestSimulatedEvidencePasses(t *testing.T) {
	l := newLab(t)
	for _, tag := range []uint64{tagCollection, tagCMW} {
		token, err := l.sim.token(challenge, tag)
		if err != nil {
			t.Fatal(err)
		}
		got, err := l.verify(l.verifier(), token, l.expected())
		if err != nil {
			t.Fatal(err)
		}
		if want := (measure.Root{Name: "lab", Simulated: true}); got.Root != want || got.Claims[ClaimSimulatedRoot] != "lab" {
			t.Errorf("root %+v, want %+v", got.Root, want)
		}
		for _, c := range got.Checks {
			want := measure.Passed
			if c.Name == measure.CheckEventLog || c.Name == measure.CheckRevocation {
				want = measure.NotApplicable
			}
			if c.Outcome != want {
				t.Errorf("%s is %s: %s", c.Name, c.Outcome, c.Reason)
			}
		}
		if len(got.Checks) != 9 || got.Platform != measure.CCA || got.Class != "cpu" {
			t.Errorf("verdict %+v", got)
		}
	}
}

func TestEvidenceOfTheSimulator(t *testing.T) {
	l := newLab(t)
	ev, err := measure.EvidenceOver(t.Context(), l.sim, challenge[:48])
	if err != nil {
		t.Fatal(err)
	}
	want := l.expected()
	want.ReportData = measure.BoundTo(challenge[:48])
	got, err := l.verifier().Verify(t.Context(), ev, want)
	if err != nil {
		t.Fatal(err)
	}
	rim, err := Predict(l.launch)
	if err != nil {
		t.Fatal(err)
	}
	realm, _ := got.Claims["realm"].(measure.Claims)
	platform, _ := got.Claims["platform"].(measure.Claims)
	for name, pair := range map[string][2]any{
		"rim":       {realm["cca-realm-initial-measurement"], b64(rim[:])},
		"challenge": {got.Claims["report_data"], hex.EncodeToString(challenge[:48]) + strings.Repeat("00", 16)},
		"init-data": {got.Claims["init_data"], hex.EncodeToString(l.launch.InitDataDigest) + strings.Repeat("00", 64-len(l.launch.InitDataDigest))},
		"lifecycle": {platform["cca-platform-lifecycle"], json.Number("12288")},
		"state":     {platform["cca-platform-lifecycle-state"], "secured"},
		"hash":      {realm["cca-realm-hash-algo-id"], "sha-512"},
		"machine":   {platform["cca-platform-instance-id"], b64(l.machine.platform.InstanceID)},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s is %v, want %v", name, pair[0], pair[1])
		}
	}
	if n := len(realm["cca-realm-extensible-measurements"].([]any)); n != 4 {
		t.Errorf("%d extensible measurements", n)
	}
	if n := len(platform["cca-platform-sw-components"].([]any)); n != 2 {
		t.Errorf("%d software components", n)
	}
}

func TestRejections(t *testing.T) {
	l := newLab(t)
	other, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	otherKey, err := coseKey(&other.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	text := func(s string) *string { return &s }
	lifecycle := func(n uint16) func(*parts) { return func(p *parts) { p.platform.Lifecycle = &n } }
	for name, c := range map[string]struct {
		change func(*parts)
		want   map[measure.CheckName]string
	}{
		"another challenge":    {func(p *parts) { p.realm.Challenge = make([]byte, 64) }, map[measure.CheckName]string{measure.CheckBinding: "not bound to this challenge"}},
		"other init-data":      {func(p *parts) { p.realm.Personalization = make([]byte, 64) }, map[measure.CheckName]string{measure.CheckInitData: "not bound to this init-data"}},
		"debug":                {lifecycle(0x4000), map[measure.CheckName]string{measure.CheckTCB: "not secured"}},
		"recoverable debug":    {lifecycle(0x50ff), map[measure.CheckName]string{measure.CheckTCB: "not secured"}},
		"unknown lifecycle":    {lifecycle(0), map[measure.CheckName]string{measure.CheckTCB: "not secured"}},
		"before provisioning":  {lifecycle(0x2fff), map[measure.CheckName]string{measure.CheckTCB: "not secured"}},
		"after secured":        {lifecycle(0x3100), map[measure.CheckName]string{measure.CheckTCB: "not secured"}},
		"unvouched realm key":  {func(p *parts) { p.platform.Challenge = make([]byte, 32) }, map[measure.CheckName]string{CheckRealmKey: "does not vouch"}},
		"vouched by hash name": {func(p *parts) { p.realm.KeyHash = text("sha-384") }, map[measure.CheckName]string{CheckRealmKey: "does not vouch"}},
		"unknown hash":         {func(p *parts) { p.realm.KeyHash = text("md5") }, map[measure.CheckName]string{CheckRealmKey: "not one of"}},
		"another realm key": {func(p *parts) { p.realm.PublicKey = otherKey }, map[measure.CheckName]string{
			CheckRealmKey: "does not vouch", measure.CheckSignature: "the realm's key did not sign",
		}},
		"malformed realm key": {func(p *parts) { p.realm.PublicKey = []byte{4, 1} }, map[measure.CheckName]string{
			CheckRealmKey: "does not vouch", measure.CheckSignature: "the realm's key is malformed",
		}},
		"another machine": {func(p *parts) { p.platform.InstanceID = append([]byte{1}, make([]byte, 32)...) }, map[measure.CheckName]string{
			measure.CheckChain: "no trust store has this machine", measure.CheckSignature: "without the machine's key",
		}},
		"another kind of machine": {func(p *parts) { p.platform.ImplementationID = make([]byte, 32) }, map[measure.CheckName]string{measure.CheckChain: "another kind"}},
		"unknown profile":         {func(p *parts) { p.platform.Profile = text("tag:arm.com,2026:cca_platform#2.0.0") }, map[measure.CheckName]string{CheckProfile: "not known"}},
		"profiles do not match":   {func(p *parts) { p.realm.Profile = "" }, map[measure.CheckName]string{CheckProfile: "does not go with"}},
		"all at once": {func(p *parts) {
			p.realm.Challenge, p.platform.Challenge, p.platform.Profile = make([]byte, 64), make([]byte, 32), text("x")
		}, map[measure.CheckName]string{measure.CheckBinding: "", CheckRealmKey: "", CheckProfile: ""}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := l.verify(l.verifier(), l.token(c.change), l.expected())
			verdicttest.WantFailures(t, err, c.want)
		})
	}
}

// Evidence of another machine, whole in itself, ends in a root that nobody
// trusts, whatever is waived.
func TestUnnamedRoot(t *testing.T) {
	l, other := newLab(t), newLab(t)
	for name, change := range map[string]func(*VerifierConfig){
		"none":       func(c *VerifierConfig) { c.UnsafeSimulatedRoots = nil },
		"another":    func(c *VerifierConfig) { c.UnsafeSimulatedRoots = []TrustStore{other.root()} },
		"all waived": func(c *VerifierConfig) { *c = VerifierConfig{UnsafeAnyLifecycle: true} },
	} {
		t.Run(name, func(t *testing.T) {
			got, err := l.verify(l.verifier(change), l.token(), l.expected())
			verdicttest.WantFailures(t, err, map[measure.CheckName]string{measure.CheckChain: "no trust store", measure.CheckSignature: "without the machine's key"})
			if ve, _ := errors.AsType[*measure.VerificationError](err); !ve.UntrustedRoot() {
				t.Error("UntrustedRoot does not say so")
			}
			if _, there := got.Claims[ClaimSimulatedRoot]; there || got.Root != (measure.Root{}) {
				t.Errorf("root %+v", got.Root)
			}
		})
	}
}

// A machine that claims another's instance id must sign with its key.
func TestStolenInstance(t *testing.T) {
	l, thief := newLab(t), newLab(t)
	_, err := l.verify(l.verifier(), thief.token(func(p *parts) { p.platform.InstanceID = l.machine.platform.InstanceID }), l.expected())
	verdicttest.WantFailures(t, err, map[measure.CheckName]string{measure.CheckSignature: "did not sign the platform's part"})
}

// The parts of two tokens do not make a third: each realm's key is vouched for
// by its own platform part alone.
func TestPartsOfTwoRealms(t *testing.T) {
	l := newLab(t)
	other := l.guest(l.launch)
	realm := other.realm
	realm.Challenge = challenge[:]
	signed, err := signPart(realm, other.key)
	if err != nil {
		t.Fatal(err)
	}
	token, err := join(tagCMW, l.sim.platform, signed)
	if err != nil {
		t.Fatal(err)
	}
	_, err = l.verify(l.verifier(), token, l.expected())
	verdicttest.WantFailures(t, err, map[measure.CheckName]string{CheckRealmKey: "does not vouch"})
}

func TestAnyLifecycle(t *testing.T) {
	l := newLab(t)
	debug := l.launch
	debug.Lifecycle = uint16(RecoverableDebug) << 8
	token, err := l.guest(debug).token(challenge, tagCMW)
	if err != nil {
		t.Fatal(err)
	}
	got, err := l.verify(l.verifier(func(c *VerifierConfig) { c.UnsafeAnyLifecycle = true }), token, l.expected())
	if err != nil || got.Check(measure.CheckTCB).Outcome != measure.Waived {
		t.Errorf("%v, %+v", err, got.Check(measure.CheckTCB))
	}
	if state := got.Claims["platform"].(measure.Claims)["cca-platform-lifecycle-state"]; state != "recoverable-cca-platform-rot-debug" {
		t.Errorf("state %v", state)
	}
}

func TestUndecided(t *testing.T) {
	l := newLab(t)
	if _, err := l.verify(l.verifier(), l.token(), measure.Expected{}); !errors.Is(err, measure.ErrUnset) {
		t.Errorf("%v", err)
	}
	ev, err := Wire(l.token())
	if err != nil {
		t.Fatal(err)
	}
	ev.Platform = measure.SNP
	if _, err := l.verifier().Verify(t.Context(), ev, l.expected()); err == nil {
		t.Error("evidence of another platform")
	}
}

func TestConfigurations(t *testing.T) {
	l := newLab(t)
	root := l.root()
	private := strings.Replace(string(root.Anchors), `"crv"`, `"d": "AAAA", "crv"`, 1)
	store := func(anchors string) VerifierConfig {
		return VerifierConfig{TrustStores: []TrustStore{{Name: "a", Anchors: []byte(anchors)}}}
	}
	changed := func(old, instead string) VerifierConfig {
		return store(strings.Replace(string(root.Anchors), old, instead, 1))
	}
	for name, c := range map[string]struct {
		config VerifierConfig
		want   string
	}{
		"no name":               {VerifierConfig{TrustStores: []TrustStore{{Anchors: root.Anchors}}}, "names that differ"},
		"the name twice":        {VerifierConfig{UnsafeSimulatedRoots: []TrustStore{root, {Name: root.Name, Anchors: newLab(t).root().Anchors}}}, "names that differ"},
		"a machine twice":       {VerifierConfig{UnsafeSimulatedRoots: []TrustStore{root, {Name: "b", Anchors: root.Anchors}}}, `is also in "lab"`},
		"a simulated machine":   {store(string(root.Anchors)), "is a simulated machine"},
		"not JSON":              {store("x"), "trust store \"a\": "},
		"empty":                 {store("[]"), "0 keys"},
		"private":               {store(private), "a private key does not belong"},
		"another type of key":   {changed(`"EC"`, `"RSA"`), `a key of type "RSA"`},
		"another curve":         {changed(`P-384`, `P-256`), "coordinates of 48"},
		"not on the curve":      {changed(`"x": "`, `"x": "AAAA`), "coordinates of 51"},
		"another point":         {changed(`"x": "`, `"x": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "y0": "`), "entry 0"},
		"short implementation":  {changed(`-id": "`, `-id": "zz`), "is not the hex of 32 bytes"},
		"without an identifier": {store(`[{"pkey":{}}]`), "a key of type"},
	} {
		if _, err := NewVerifier(c.config); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestNothingIsOverwritten(t *testing.T) {
	l := newLab(t)
	if err := CreateVendor(l.dir); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second machine: %v", err)
	}
	dir := filepath.Join(t.TempDir(), "realm")
	if err := CreateGuest(l.dir, dir, l.launch); err != nil {
		t.Fatal(err)
	}
	if err := CreateGuest(l.dir, dir, l.launch); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second realm: %v", err)
	}
	if err := CreateGuest(l.dir, filepath.Join(t.TempDir(), "x"), Launch{}); err == nil {
		t.Error("a realm without an image")
	}
	if err := CreateGuest(dir, filepath.Join(t.TempDir(), "x"), l.launch); err == nil {
		t.Error("a realm on a realm")
	}
}

// What cannot be read is refused with a plain error.
func TestMalformed(t *testing.T) {
	l := newLab(t)
	platform, err := signPart(l.machine.platform, l.machine.key) // without challenge and lifecycle
	if err != nil {
		t.Fatal(err)
	}
	realm, err := signPart(l.sim.realm, l.sim.key) // without challenge
	if err != nil {
		t.Fatal(err)
	}
	collect := func(tag uint64, m map[uint64]any) []byte {
		raw, err := encoding.Marshal(cbor.Tag{Number: tag, Content: m})
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	tampered := func(change func(*cose.Sign1Message)) []byte {
		m, err := sign1(l.sim.platform)
		if err != nil {
			t.Fatal(err)
		}
		change(m)
		raw, err := m.MarshalCBOR()
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	good := l.sim.platform
	for name, raw := range map[string][]byte{
		"empty":            {},
		"no tag":           good,
		"another tag":      collect(18, map[uint64]any{labelPlatform: good, labelRealm: realm}),
		"one part":         collect(tagCollection, map[uint64]any{labelPlatform: good}),
		"an unknown entry": collect(tagCollection, map[uint64]any{labelPlatform: good, labelRealm: realm, 44258: realm}),
		"records in a 399": collect(tagCollection, map[uint64]any{labelPlatform: []any{formatCWT, good}, labelRealm: []any{formatCWT, realm}}),
		"bytes in a 907":   collect(tagCMW, map[uint64]any{labelPlatform: good, labelRealm: realm}),
		"another format":   collect(tagCMW, map[uint64]any{labelPlatform: []any{601, good}, labelRealm: []any{formatCWT, realm}}),
		"no challenge":     collect(tagCollection, map[uint64]any{labelPlatform: platform, labelRealm: realm}),
		"realm incomplete": collect(tagCollection, map[uint64]any{labelPlatform: good, labelRealm: realm}),
		"detached":         collect(tagCollection, map[uint64]any{labelPlatform: tampered(func(m *cose.Sign1Message) { m.Payload = []byte{} }), labelRealm: realm}),
		"critical parameters": collect(tagCollection, map[uint64]any{labelPlatform: tampered(func(m *cose.Sign1Message) {
			m.Headers.RawProtected = nil
			m.Headers.Protected[cose.HeaderLabelCritical] = []any{int64(33)}
			m.Headers.Protected[int64(33)] = []byte{1}
		}), labelRealm: realm}),
		"trailing bytes": append(l.token(), 0),
		"large":          make([]byte, MaxTokenSize+1),
	} {
		if _, err := ParseToken(raw); !errors.Is(err, ErrToken) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, data := range []string{``, `null`, `[]`, `{}`, `{"token":null}`, `{"token":"AAAA"}`, `{"token":[256]}`, `{"token":[-1]}`, `{"token":[1.5]}`, `{"token":[1],"token":[2]}`} {
		if _, err := ParseEvidence(measure.Evidence{Platform: measure.CCA, Data: json.RawMessage(data)}); err == nil {
			t.Errorf("%s: accepted", data)
		}
	}
}
