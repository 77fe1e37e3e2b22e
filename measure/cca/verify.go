package cca

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/measure"
)

// Checks of this platform beside those that all platforms have.
const (
	// CheckProfile is whether the token follows a profile that is known.
	CheckProfile measure.CheckName = "profile"
	// CheckRealmKey is whether the platform vouches for the realm's key.
	CheckRealmKey measure.CheckName = "realm_key"
)

// TrustStore lists machines and their keys.
type TrustStore struct {
	// Name appears in verdicts; that of a simulated root also in claims and
	// tokens. Names must differ.
	Name string
	// Anchors is JSON: [{"pkey": JWK, "implementation-id": hex, "instance-id": hex}].
	Anchors []byte
}

// VerifierConfig says what a [Verifier] trusts. The zero value trusts no
// machine, so it refuses everything. It needs no clock: nothing in a token has
// an end.
type VerifierConfig struct {
	// TrustStores are of machines whose makers keep the keys inside them.
	TrustStores []TrustStore
	// UnsafeSimulatedRoots are trusted beside them. Evidence under one carries
	// no proof of hardware at all.
	UnsafeSimulatedRoots []TrustStore
	// UnsafeAnyLifecycle accepts a platform whose debug port may be open, or
	// whose keys were not yet provisioned. The state stays a claim.
	UnsafeAnyLifecycle bool
}

// Verifier judges CCA evidence. It does not change after it was made.
type Verifier struct {
	anchors      map[[33]byte]anchor // by instance id
	names        []string            // of the stores
	anyLifecycle bool
}

// NewVerifier reads the trust stores and checks the configuration as a whole.
func NewVerifier(c VerifierConfig) (*Verifier, error) {
	v := &Verifier{anchors: map[[33]byte]anchor{}, anyLifecycle: c.UnsafeAnyLifecycle}
	seen := map[string]bool{}
	for i, s := range append(c.TrustStores[:len(c.TrustStores):len(c.TrustStores)], c.UnsafeSimulatedRoots...) {
		if s.Name == "" || seen[s.Name] {
			return nil, fmt.Errorf("trust stores need names that differ, got %q", s.Name)
		}
		seen[s.Name] = true
		if err := v.add(s, i >= len(c.TrustStores)); err != nil {
			return nil, fmt.Errorf("trust store %q: %w", s.Name, err)
		}
		v.names = append(v.names, s.Name)
	}
	return v, nil
}

// add takes over a store. A machine belongs to one store alone, so that
// nobody's simulation can stand in for it.
func (v *Verifier) add(s TrustStore, simulated bool) error {
	anchors, err := parseStore(&store{name: s.Name, simulated: simulated}, s.Anchors)
	if err != nil {
		return err
	}
	for _, a := range anchors {
		if whose, ok := published[thumbprint(a.key)]; ok && !simulated {
			return fmt.Errorf("the key of instance %x is that of %s: everybody can sign with it", a.instance, whose)
		}
		if bytes.HasPrefix(a.implementation[:], []byte(simulatedImplementation)) && !simulated {
			return fmt.Errorf("instance %x is a simulated machine", a.instance)
		}
		if other, ok := v.anchors[a.instance]; ok {
			return fmt.Errorf("instance %x is also in %q", a.instance, other.store.name)
		}
		v.anchors[a.instance] = a
	}
	return nil
}

// Platform returns [measure.CCA].
func (v *Verifier) Platform() measure.Platform { return measure.CCA }

// Verify judges evidence as [measure.Verifier] demands. All checks are made
// whatever the others found. Evidence that cannot be parsed gives a plain
// error.
func (v *Verifier) Verify(ctx context.Context, ev measure.Evidence, want measure.Expected) (measure.Verdict, error) {
	verdict := measure.Verdict{Platform: measure.CCA, Class: "cpu"}
	if err := ctx.Err(); err != nil {
		return verdict, err
	}
	if err := want.Validate(); err != nil {
		return verdict, err
	}
	token, err := ParseEvidence(ev)
	if err != nil {
		return verdict, err
	}
	a := &examination{v: v, token: token}
	a.find()
	verdict.Checks = []measure.Check{
		a.checkProfile(),
		a.checkSignature(),
		a.checkChain(),
		{Name: measure.CheckRevocation, Outcome: measure.NotApplicable, Reason: "no certificate vouches for a machine; one that is taken out of the trust store is not trusted any more"},
		a.checkTCB(),
		a.checkRealmKey(),
		measure.CheckReportData(token.Realm.Challenge, want.ReportData),
		measure.CheckInitDataField(token.Realm.Personalization[:], want.InitData),
		{Name: measure.CheckEventLog, Outcome: measure.NotApplicable, Reason: "no log comes with the extensible measurements"},
	}
	if a.anchor != nil {
		verdict.Root = measure.Root{Name: a.anchor.store.name, Simulated: a.anchor.store.simulated}
	}
	verdict.Claims = a.claims()
	return verdict, verdict.Err()
}

// examination is one token with what was found out about it before the checks.
type examination struct {
	v      *Verifier
	token  *Token
	anchor *anchor // nil if no store has the machine
}

func (a *examination) find() {
	if found, ok := a.v.anchors[a.token.Platform.InstanceID]; ok {
		a.anchor = &found
	}
}

// profiles are those that this package knows, the realm's under the
// platform's. Tokens of the first edition have no profile in the realm's part.
var profiles = map[string]string{
	"http://arm.com/CCA-SSD/1.0.0":        "",
	"tag:arm.com,2023:cca_platform#1.0.0": "tag:arm.com,2023:realm#1.0.0",
}

func (a *examination) checkProfile() measure.Check {
	var t measure.Tally
	realm, ok := profiles[a.token.Platform.Profile]
	switch {
	case !ok:
		t.Find("the platform's profile is not known, so its claims may mean something else", "cca-platform-profile", a.token.Platform.Profile, keys(profiles)...)
	case realm != a.token.Realm.Profile:
		t.Find("the realm's profile does not go with the platform's", "cca-realm-profile", a.token.Realm.Profile, realm)
	}
	return t.Check(CheckProfile)
}

func (a *examination) checkSignature() measure.Check {
	var t measure.Tally
	if a.anchor == nil {
		t.Fail(errors.New("without the machine's key the platform's signature cannot be checked"))
	} else if err := verifySign1(a.token.platform, a.anchor.key); err != nil {
		t.Fail(fmt.Errorf("the machine's key did not sign the platform's part: %w", err))
	}
	key, err := realmKey(a.token.Realm.PublicKey)
	if err != nil {
		t.Fail(fmt.Errorf("the realm's key is malformed: %w", err))
	} else if err := verifySign1(a.token.realm, key); err != nil {
		t.Fail(fmt.Errorf("the realm's key did not sign the realm's part: %w", err))
	}
	return t.Check(measure.CheckSignature)
}
