package tpm

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
)

func TestVerify(t *testing.T) {
	for name, c := range map[string]struct {
		lab *lab
		pss bool
	}{
		"RSASSA":      {lab: newLab(t, rsaKey())},
		"RSAPSS":      {lab: newLab(t, rsaKey()), pss: true},
		"ECDSA P-256": {lab: newLab(t, ecdsaKey(t, elliptic.P256()))},
		"ECDSA P-384": {lab: newLab(t, ecdsaKey(t, elliptic.P384()))},
	} {
		t.Run(name, func(t *testing.T) {
			l := c.lab
			l.t = t
			if c.pss {
				l.device.UsePSS()
			}
			for _, extra := range [][]byte{challenge[:32], append(challenge[:48:48], make([]byte, 16)...)} {
				got, err := l.verify(l.config(), l.quote(extra), l.expected())
				if err != nil {
					t.Fatal(err)
				}
				for _, check := range []measure.CheckName{
					measure.CheckSignature, measure.CheckChain, measure.CheckRevocation, CheckPCRs,
					measure.CheckBinding, measure.CheckInitData, measure.CheckEventLog,
				} {
					if c := got.Check(check); c.Outcome != measure.Passed {
						t.Errorf("%s is %s: %s", check, c.Outcome, c.Reason)
					}
				}
				if got.Root != (measure.Root{Name: "lab", Simulated: true}) || got.Claims[ClaimSimulatedRoot] != "lab" || got.Claims["ak_trust"] != "certified" {
					t.Errorf("root %+v, claims %v", got.Root, got.Claims)
				}
			}
		})
	}
}

func TestClaims(t *testing.T) {
	l := newLab(t, rsaKey())
	got, err := l.verify(l.config(), l.quote(challenge[:32]), l.expected())
	if err != nil {
		t.Fatal(err)
	}
	predicted, err := Predict(launch)
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range predicted {
		if got.Claims[pcrName(i)] != hex.EncodeToString(v) {
			t.Errorf("%s is %v, predicted %x", pcrName(i), got.Claims[pcrName(i)], v)
		}
	}
	for name, want := range map[string]any{
		"report_data": hex.EncodeToString(challenge[:32]), "init_data": hex.EncodeToString(InitDataValue(document)),
		"pcr_selection": "SHA-256:0-23", "tpm_clock_safe": true, "signature_scheme": "RSASSA SHA-256",
		"tpm_firmware_version": "0000000056530001",
	} {
		if got.Claims[name] != want {
			t.Errorf("%s is %v, want %v", name, got.Claims[name], want)
		}
	}
	if events, ok := got.Claims[eventlog.ClaimEvents].([]any); !ok || len(events) != len(l.log.Events) {
		t.Error("the events are no claims")
	}
}

// A large log is listed for those whose evidence is good otherwise alone.
func TestLargeEventLog(t *testing.T) {
	l := newLab(t, rsaKey())
	l.log.Add(15, eventlog.EventTag, make([]byte, eventlog.MaxUnproven), []byte("large"))
	l.must(l.device.Extend(Bank, 15, Bank.Sum([]byte("large"))))
	e := l.quote(challenge[:32])
	listed := func(c measure.Claims) int {
		events, _ := c[eventlog.ClaimEvents].([]any)
		return len(events)
	}
	v, err := NewVerifier(l.config())
	l.must(err)
	verify := func() (measure.Verdict, error) {
		ev, err := e.Wire()
		l.must(err)
		return v.Verify(t.Context(), ev, l.expected())
	}
	got, err := verify()
	if n := listed(got.Claims); err != nil || n != len(l.log.Events) {
		t.Errorf("%d events and %v, want %d", n, err, len(l.log.Events))
	}
	e.Message[len(e.Message)-1] ^= 1
	got, err = verify()
	if n := listed(got.Claims); err == nil || n != 0 {
		t.Errorf("refused with %v, and %d events listed", err, n)
	}
	if c := got.Check(measure.CheckEventLog); c.Outcome != measure.Passed {
		t.Errorf("the log that was not listed is %s: %s", c.Outcome, c.Reason)
	}
	if n := listed(e.Claims()); n != len(l.log.Events) {
		t.Errorf("whoever only asks what evidence claims sees %d events", n)
	}
}

// Every way in which evidence can be wrong is found, under its own check.
func TestRefusals(t *testing.T) {
	l := newLab(t, rsaKey())
	other := ecdsaKey(t, elliptic.P256())
	for name, c := range map[string]struct {
		change func(*Evidence)
		failed measure.CheckName
		want   string
	}{
		"another key's signature": {func(e *Evidence) {
			e.AKPublic, _ = x509.MarshalPKIXPublicKey(other.Public())
		}, measure.CheckSignature, "does not go with a key"},
		"a changed quote": {func(e *Evidence) { e.Message[len(e.Message)-1] ^= 1 }, measure.CheckSignature, "did not sign"},
		"SHA-1":           {func(e *Evidence) { e.Signature.Hash = eventlog.SHA1 }, measure.CheckSignature, "SHA-1 is not accepted"},
		"a small RSA key": {func(e *Evidence) { small(t, e) }, measure.CheckSignature, "RSA key of 1024 bits"},
		"no key":          {func(e *Evidence) { e.AKPublic = []byte("x") }, measure.CheckChain, "AK is malformed"},
		"no certificate":  {func(e *Evidence) { e.AKCertificates = nil }, measure.CheckChain, "no certificate of it"},
		"a certificate of another key": {func(e *Evidence) {
			cert, err := l.vendor.certify(other.Public(), oidAKCertificate, labTime)
			l.must(err)
			e.AKCertificates = [][]byte{cert.Raw}
		}, measure.CheckChain, "of another key"},
		"a certificate of an endorsement key": {func(e *Evidence) {
			cert, err := l.vendor.certify(l.ak.Public(), oidEKCertificate, labTime)
			l.must(err)
			e.AKCertificates = [][]byte{cert.Raw}
		}, measure.CheckChain, "not for this purpose"},
		"an expired certificate": {func(e *Evidence) {
			cert, err := l.vendor.certify(l.ak.Public(), oidAKCertificate, labTime.Add(-keyLife-time.Hour))
			l.must(err)
			e.AKCertificates = [][]byte{cert.Raw}
		}, measure.CheckChain, "expired"},
		"a certificate of another CA": {func(e *Evidence) {
			v, err := newVendor(labTime)
			l.must(err)
			cert, err := v.certify(l.ak.Public(), oidAKCertificate, labTime)
			l.must(err)
			e.AKCertificates = [][]byte{cert.Raw, v.cert.Raw}
		}, measure.CheckChain, "not valid under lab"},
		"a certificate of a CA": {func(e *Evidence) {
			e.AKCertificates = [][]byte{l.certificate(l.ak.Public(), l.vendor.cert, l.vendor.key, func(c *x509.Certificate) {
				c.IsCA, c.BasicConstraintsValid = true, true
			}).Raw}
		}, measure.CheckChain, "is that of a CA"},
		"a CA for other purposes between": {func(e *Evidence) {
			key := ecdsaKey(t, elliptic.P256())
			between := l.certificate(key.Public(), l.vendor.cert, l.vendor.key, func(c *x509.Certificate) {
				c.IsCA, c.BasicConstraintsValid, c.KeyUsage, c.Subject.CommonName = true, true, x509.KeyUsageCertSign, "of web servers"
				c.UnknownExtKeyUsage, c.ExtKeyUsage = nil, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
			})
			e.AKCertificates = [][]byte{l.certificate(l.ak.Public(), between, key, nil).Raw, between.Raw}
		}, measure.CheckChain, "only for other purposes"},
		"a key between that takes long": {func(e *Evidence) {
			n := new(big.Int).Lsh(big.NewInt(1), 16<<10)
			huge := l.certificate(&rsa.PublicKey{N: n.Sub(n, big.NewInt(1)), E: 65537}, l.vendor.cert, l.vendor.key, nil)
			e.AKCertificates = append(e.AKCertificates, huge.Raw)
		}, measure.CheckChain, "RSA key of 16384 bits"},
		"a broken certificate": {func(e *Evidence) { e.AKCertificates[0] = []byte("x") }, measure.CheckChain, "certificate is malformed"},
		"one PCR less": {func(e *Evidence) {
			*e = *l.quote(challenge[:32], Selection{Bank, []byte{0xff, 0xff, 0x7f}})
		}, CheckPCRs, "every PCR"},
		// The attack that a digest without its selection allows: PCR 16 can be
		// reset by anyone, and here it stands where PCR 8 belongs.
		"PCR 16 in place of PCR 8": {func(e *Evidence) {
			*e = *l.quote(challenge[:32], Selection{Bank, []byte{0xff, 0xfe, 0xff}})
			e.PCRs = append(e.PCRs, make([]byte, 32))
		}, CheckPCRs, "SHA-256:0-7,9-23"},
		"another bank": {func(e *Evidence) { *e = *l.quote(challenge[:32], AllPCRs(eventlog.SHA384)) }, CheckPCRs, "SHA-384:0-23"},
		"two banks": {func(e *Evidence) {
			e.Quote.Selection = append(e.Quote.Selection, AllPCRs(eventlog.SHA384))
			l.resign(e)
		}, CheckPCRs, "SHA-256:0-23 and SHA-384:0-23"},
		"no PCRs":          {func(e *Evidence) { e.Quote.Selection = nil; l.resign(e) }, CheckPCRs, "nothing"},
		"a claimed PCR":    {func(e *Evidence) { e.PCRs[11] = make([]byte, 32) }, CheckPCRs, "not those that were quoted"},
		"swapped PCRs":     {func(e *Evidence) { e.PCRs[4], e.PCRs[11] = e.PCRs[11], e.PCRs[4] }, CheckPCRs, "not those that were quoted"},
		"shifted bytes":    {func(e *Evidence) { shift(e.PCRs) }, CheckPCRs, "wrong length"},
		"another nonce":    {func(e *Evidence) { *e = *l.quote(make48(1)[:32]) }, measure.CheckBinding, "not bound to this challenge"},
		"half a nonce":     {func(e *Evidence) { *e = *l.quote(challenge[:31]) }, measure.CheckBinding, "not bound to this challenge"},
		"no nonce":         {func(e *Evidence) { *e = *l.quote(nil) }, measure.CheckBinding, "not bound to this challenge"},
		"a log cut off":    {func(e *Evidence) { e.EventLog = e.EventLog[:len(e.EventLog)-1] }, measure.CheckEventLog, "middle of a record"},
		"a log of another": {func(e *Evidence) { e.EventLog = otherLog(t) }, measure.CheckEventLog, "does not lead to the quoted pcr04"},
		"a log without the bank": {func(e *Evidence) {
			log, err := eventlog.New(eventlog.SHA384)
			l.must(err)
			log.Add(0, eventlog.Separator, nil, nil)
			e.EventLog = log.Marshal()
		}, measure.CheckEventLog, "no SHA-256 digest"},
	} {
		t.Run(name, func(t *testing.T) {
			e := l.quote(challenge[:32])
			c.change(e)
			got, err := l.verify(l.config(), e, l.expected())
			if verr, ok := errors.AsType[*measure.VerificationError](err); !ok || !verr.Has(c.failed) {
				t.Fatalf("%s did not fail: %v", c.failed, err)
			}
			check := got.Check(c.failed)
			text := check.Reason
			for _, f := range check.Findings {
				text += " " + f.Seen
			}
			if !strings.Contains(text, c.want) {
				t.Errorf("%q, want %q in it", text, c.want)
			}
		})
	}
}

// certificate issues one of an AK, after a change of its template.
func (l *lab) certificate(key crypto.PublicKey, parent *x509.Certificate, signer crypto.Signer, change func(*x509.Certificate)) *x509.Certificate {
	l.t.Helper()
	c := *l.cert
	c.AuthorityKeyId, c.Extensions = nil, nil
	if change != nil {
		change(&c)
	}
	out, err := issue(&c, parent, key, signer)
	l.must(err)
	return out
}

// small replaces key and signature by those of a key that is too small.
func small(t *testing.T, e *Evidence) {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	d, err := NewDevice(k, nil)
	if err != nil {
		t.Fatal(err)
	}
	if e.Signature, err = d.sign(e.Message); err != nil {
		t.Fatal(err)
	}
	if e.AKPublic, err = x509.MarshalPKIXPublicKey(k.Public()); err != nil {
		t.Fatal(err)
	}
}

// shift moves a byte from one value to the next: the digest stays the same.
func shift(values [][]byte) {
	values[1] = append(values[1][:32:32], values[2][0])
	values[2] = values[2][1:]
}

func otherLog(t *testing.T) []byte {
	t.Helper()
	log, err := Launch{Image: []byte("another")}.Log()
	if err != nil {
		t.Fatal(err)
	}
	return log.Marshal()
}

func TestInitData(t *testing.T) {
	l := newLab(t, rsaKey())
	for name, c := range map[string]struct {
		want    measure.Binding
		outcome measure.Outcome
		reason  string
	}{
		"bound":         {measure.BoundTo(document), measure.Passed, ""},
		"another":       {measure.BoundTo(make([]byte, 32)), measure.Failed, "not bound to this init-data"},
		"sha384":        {measure.BoundTo(challenge), measure.Failed, "sha256 only"},
		"empty":         {measure.BoundTo(nil), measure.Failed, "sha256 only"},
		"not presented": {measure.NotPresented(), measure.NotApplicable, "no init-data"},
		"waived":        {measure.UnsafeUnbound("a test"), measure.Waived, "a test"},
	} {
		want := l.expected()
		want.InitData = c.want
		got, err := l.verify(l.config(), l.quote(challenge[:32]), want)
		if check := got.Check(measure.CheckInitData); check.Outcome != c.outcome || !strings.Contains(check.Reason, c.reason) || (err != nil) != (c.outcome == measure.Failed) {
			t.Errorf("%s: %+v, error %v", name, check, err)
		}
	}
	// Extended twice, it is another value.
	l.must(l.device.Extend(Bank, InitDataPCR, document))
	if _, err := l.verify(l.config(), l.quote(challenge[:32]), l.expected()); err == nil {
		t.Error("extended twice, and accepted")
	}
}

func TestBinding(t *testing.T) {
	l := newLab(t, rsaKey())
	for name, c := range map[string]struct {
		want    measure.Binding
		outcome measure.Outcome
	}{
		"waived":        {measure.UnsafeUnbound("a test"), measure.Waived},
		"nothing":       {measure.BoundTo(nil), measure.Failed},
		"not presented": {measure.NotPresented(), measure.Failed},
		"too long":      {measure.BoundTo(make([]byte, 65)), measure.Failed},
	} {
		want := l.expected()
		want.ReportData = c.want
		if got, _ := l.verify(l.config(), l.quote(challenge[:32]), want); got.Check(measure.CheckBinding).Outcome != c.outcome {
			t.Errorf("%s: %+v", name, got.Check(measure.CheckBinding))
		}
	}
	if _, err := l.verify(l.config(), l.quote(challenge[:32]), measure.Expected{}); !errors.Is(err, measure.ErrUnset) {
		t.Errorf("nothing decided: %v", err)
	}
}

func TestNoEventLog(t *testing.T) {
	l := newLab(t, rsaKey())
	e := l.quote(challenge[:32])
	e.EventLog = nil
	got, err := l.verify(l.config(), e, l.expected())
	if err != nil || got.Check(measure.CheckEventLog).Outcome != measure.NotApplicable {
		t.Errorf("%+v, %v", got.Check(measure.CheckEventLog), err)
	}
}

// Who vouches for the key, and how that shows.
func TestTrust(t *testing.T) {
	l := newLab(t, rsaKey())
	bare := l.quote(challenge[:32])
	bare.AKCertificates = nil
	enrolled := func(key []byte) VerifierConfig {
		return VerifierConfig{Enrolled: []EnrolledKeys{{Name: "rack 7", Keys: key}}}
	}
	public := publicPEM(t, l.ak.Public())
	der, _ := pem.Decode(public)
	certificate := pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: l.cert.Raw})
	marked := pem.EncodeToMemory(&pem.Block{Type: pemPublicKey, Headers: map[string]string{headerSimulated: "yes"}, Bytes: der.Bytes})
	for name, c := range map[string]struct {
		config  VerifierConfig
		outcome measure.Outcome
		root    measure.Root
	}{
		"the zero value":           {VerifierConfig{}, measure.Failed, measure.Root{}},
		"an enrolled key":          {enrolled(public), measure.Passed, measure.Root{Name: "rack 7"}},
		"in DER":                   {enrolled(der.Bytes), measure.Passed, measure.Root{Name: "rack 7"}},
		"by certificate":           {enrolled(certificate), measure.Passed, measure.Root{Name: "rack 7", Simulated: true}},
		"as the simulator writes":  {enrolled(marked), measure.Passed, measure.Root{Name: "rack 7", Simulated: true}},
		"among many":               {enrolled(append(publicPEM(t, ecdsaKey(t, elliptic.P256()).Public()), public...)), measure.Passed, measure.Root{Name: "rack 7"}},
		"another key":              {enrolled(publicPEM(t, ecdsaKey(t, elliptic.P256()).Public())), measure.Failed, measure.Root{}},
		"an authority, no papers":  {l.config(), measure.Failed, measure.Root{}},
		"self-declared, by waiver": {VerifierConfig{UnsafeSelfDeclaredKeys: true}, measure.Waived, measure.Root{Name: RootSelfDeclared, Simulated: true}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := l.verify(c.config, bare, l.expected())
			if check := got.Check(measure.CheckChain); check.Outcome != c.outcome || got.Root != c.root || (err != nil) != (c.outcome == measure.Failed) {
				t.Errorf("%+v, root %+v, error %v", check, got.Root, err)
			}
			if simulated := got.Claims[ClaimSimulatedRoot]; (simulated != nil) != c.root.Simulated {
				t.Errorf("simulated root %v", simulated)
			}
			verr, ok := errors.AsType[*measure.VerificationError](err)
			if ok && !verr.UntrustedRoot() {
				t.Errorf("it is not the root that is refused: %v", err)
			}
		})
	}
}

// An authority that no simulator made is a real one.
func TestAuthority(t *testing.T) {
	l := newLab(t, rsaKey())
	template := *l.vendor.cert
	template.Subject.SerialNumber, template.RawSubject = "", nil
	var err error
	l.vendor.cert, err = issue(&template, &template, l.vendor.key.Public(), l.vendor.key)
	l.must(err)
	l.must(l.vendor.revoke(labTime))
	l.cert, err = l.vendor.certify(l.ak.Public(), oidAKCertificate, labTime)
	l.must(err)
	c := VerifierConfig{Authorities: []Authority{{Name: "cloud", Bundle: l.vendor.bundle()}}, Now: l.config().Now}
	got, err := l.verify(c, l.quote(challenge[:32]), l.expected())
	if err != nil || got.Root != (measure.Root{Name: "cloud"}) || got.Claims[ClaimSimulatedRoot] != nil {
		t.Errorf("%+v, %v", got.Root, err)
	}
}

func TestRevocation(t *testing.T) {
	l := newLab(t, rsaKey())
	base := l.config()
	with := func(change func()) VerifierConfig {
		change()
		return l.config()
	}
	noList := base
	noList.UnsafeSimulatedRoots = []Authority{{Name: "lab", Bundle: pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: l.vendor.cert.Raw})}}
	revoked := with(func() { l.must(l.vendor.revoke(labTime, l.cert)) })
	old := with(func() { l.must(l.vendor.revoke(labTime.Add(-2 * vendorLife))) })
	future := with(func() { l.must(l.vendor.revoke(labTime.Add(48 * time.Hour))) })
	for name, c := range map[string]struct {
		config          VerifierConfig
		strict, lenient measure.Outcome
		reason          string
	}{
		"none at hand": {noList, measure.Failed, measure.Waived, "no revocation list"},
		"revoked":      {revoked, measure.Failed, measure.Failed, "is revoked"},
		"an old list":  {old, measure.Failed, measure.Waived, "revocation list of"},
		"a new list":   {future, measure.Failed, measure.Waived, "revocation list of"},
		"a good list":  {base, measure.Passed, measure.Passed, ""},
	} {
		for _, lenient := range []bool{false, true} {
			c.config.UnsafeNoRevocation = lenient
			want := c.strict
			if lenient {
				want = c.lenient
			}
			got, _ := l.verify(c.config, l.quote(challenge[:32]), l.expected())
			if check := got.Check(measure.CheckRevocation); check.Outcome != want || !strings.Contains(check.Reason, c.reason) {
				t.Errorf("%s, waived %v: %+v", name, lenient, check)
			}
		}
	}
}

func TestConfigurationIsChecked(t *testing.T) {
	l := newLab(t, rsaKey())
	good := l.vendor.bundle()
	stranger, err := newVendor(labTime)
	l.must(err)
	key := publicPEM(t, l.ak.Public())
	leaf := pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: l.cert.Raw})
	foreignCRL := append(pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: l.vendor.cert.Raw}), pem.EncodeToMemory(&pem.Block{Type: pemCRL, Bytes: stranger.crl.Raw})...)
	for want, c := range map[string]VerifierConfig{
		"is a simulated one":              {Authorities: []Authority{{"a", good}}},
		`name "" of an authority`:         {UnsafeSimulatedRoots: []Authority{{"", good}}},
		`name "a" of an authority`:        {UnsafeSimulatedRoots: []Authority{{"a", good}, {"a", good}}},
		`name "k" of enrolled keys`:       {Enrolled: []EnrolledKeys{{"k", key}, {"k", key}}},
		`name "k" of an authority is`:     {Enrolled: []EnrolledKeys{{"k", key}}, UnsafeSimulatedRoots: []Authority{{"k", good}}},
		`"self-declared key" of enrolled`: {Enrolled: []EnrolledKeys{{RootSelfDeclared, key}}},
		`a key is enrolled twice`:         {Enrolled: []EnrolledKeys{{"k", key}, {"l", key}}},
		`enrolled keys "k"`:               {Enrolled: []EnrolledKeys{{"k", []byte("x")}}},
		`PEM block "CERTIFICATE REQUES`:   {Enrolled: []EnrolledKeys{{"k", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST"})}}},
		"not PEM":                         {UnsafeSimulatedRoots: []Authority{{"a", []byte("x")}}},
		"no self-signed root":             {UnsafeSimulatedRoots: []Authority{{"a", nil}}},
		"not one of a CA":                 {UnsafeSimulatedRoots: []Authority{{"a", leaf}}},
		"signed by none":                  {UnsafeSimulatedRoots: []Authority{{"a", foreignCRL}}},
		`unexpected PEM block "PUBLIC K`:  {UnsafeSimulatedRoots: []Authority{{"a", key}}},
	} {
		if _, err := NewVerifier(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
}

// No simulated root satisfies a configuration that does not name it, whatever
// the TPM signs with.
func TestSimulatedRootsAreRefused(t *testing.T) {
	real7, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		l := newLab(t, ecdsaKey(t, elliptic.P256()))
		for name, c := range map[string]VerifierConfig{
			"nothing":           {Now: l.config().Now},
			"an enrolled key":   {Now: l.config().Now, Enrolled: []EnrolledKeys{{"k", publicPEM(t, real7.Public())}}},
			"another simulated": newLab(t, ecdsaKey(t, elliptic.P256())).config(),
		} {
			_, err := l.verify(c, l.quote(challenge[:32]), l.expected())
			if verr, ok := errors.AsType[*measure.VerificationError](err); !ok || !verr.Has(measure.CheckChain) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestVerifyStops(t *testing.T) {
	l := newLab(t, rsaKey())
	v, err := NewVerifier(l.config())
	l.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := v.Verify(ctx, measure.Evidence{}, l.expected()); !errors.Is(err, context.Canceled) {
		t.Errorf("after cancelling: %v", err)
	}
	if v.Platform() != measure.TPM {
		t.Error(v.Platform())
	}
}
