package dcap

import (
	"context"
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure"
)

func TestSimulatedChipPasses(t *testing.T) {
	for _, tee := range []TEE{TDX, SGX} {
		t.Run(string(tee), func(t *testing.T) {
			o := newLab(t, tee, ChipOptions{}).opinion()
			wantFailures(t, o, nil)
			for _, c := range o.Checks {
				if c.Outcome != measure.Passed {
					t.Errorf("%s: %s %s", c.Name, c.Outcome, c.Reason)
				}
			}
			if want := (measure.Root{Name: "lab", Simulated: true}); o.Root != want {
				t.Errorf("root %+v, want %+v", o.Root, want)
			}
		})
	}
}

// TestQuoteRefused changes a quote after it was signed.
func TestQuoteRefused(t *testing.T) {
	const signature, chain = measure.CheckSignature, measure.CheckChain
	for name, test := range map[string]struct {
		change func(t *testing.T, l *lab, q *Quote)
		want   map[measure.CheckName]string
	}{
		"another body": {
			func(_ *testing.T, _ *lab, q *Quote) { q.Body[100] ^= 1 },
			map[measure.CheckName]string{signature: "the attestation key did not sign this quote"},
		},
		"another header": {
			func(_ *testing.T, _ *lab, q *Quote) { q.Header.UserData[0] ^= 1 },
			map[measure.CheckName]string{signature: "the attestation key did not sign this quote"},
		},
		"a vendor of its own": {
			func(t *testing.T, l *lab, q *Quote) { q.Header.VendorID[0] ^= 1; l.sign(t, q) },
			map[measure.CheckName]string{chain: "the quoting enclave is of another vendor"},
		},
		"a key that is no point": {
			func(_ *testing.T, _ *lab, q *Quote) { q.Key = [64]byte{} },
			map[measure.CheckName]string{signature: "not a point on P-256; the quoting enclave did not make this attestation key"},
		},
		"a key of the guest's own": {
			func(t *testing.T, l *lab, q *Quote) {
				q.Key = l.newChip(ChipOptions{}).certified.Key
				l.sign(t, q)
			},
			map[measure.CheckName]string{signature: "the quoting enclave did not make this attestation key"},
		},
		"other authentication data": {
			func(_ *testing.T, _ *lab, q *Quote) { q.AuthData = append([]byte{0xff}, q.AuthData...) },
			map[measure.CheckName]string{signature: "the quoting enclave did not make this attestation key"},
		},
		"a quoting enclave that the PCK did not sign": {
			func(_ *testing.T, _ *lab, q *Quote) { q.QEReport.ISVSVN++ },
			map[measure.CheckName]string{signature: "the PCK did not sign the quoting enclave's report"},
		},
		"the chain of another chip": {
			func(_ *testing.T, l *lab, q *Quote) { q.Chain = l.newChip(ChipOptions{}).certified.Chain },
			map[measure.CheckName]string{signature: "the PCK did not sign the quoting enclave's report"},
		},
		"a chain that is cut": {
			func(_ *testing.T, l *lab, q *Quote) { q.Chain = encodePEM(l.chip.pck, l.vendor.ca) },
			map[measure.CheckName]string{
				signature: "2 certificates, want 3", chain: "2 certificates, want 3",
				measure.CheckRevocation: "without a PCK certificate", measure.CheckTCB: "without a PCK certificate",
			},
		},
		"no chain": {
			func(_ *testing.T, _ *lab, q *Quote) { q.Chain = nil },
			map[measure.CheckName]string{
				signature: "0 certificates", chain: "0 certificates", measure.CheckRevocation: "", measure.CheckTCB: "",
			},
		},
		"a CA of one's own under the root's certificate": {
			func(t *testing.T, l *lab, q *Quote) {
				other := newLab(t, l.tee, ChipOptions{})
				*q = *other.quote()
				q.Chain = encodePEM(other.chip.pck, other.vendor.ca, l.vendor.root)
			},
			map[measure.CheckName]string{
				chain:                   `Intel SGX PCK Platform CA was issued by`,
				measure.CheckRevocation: "without a chain to a trusted root", measure.CheckTCB: "without a chain to a trusted root",
			},
		},
	} {
		for _, tee := range []TEE{TDX, SGX} {
			t.Run(name+", "+string(tee), func(t *testing.T) {
				l := newLab(t, tee, ChipOptions{})
				q := l.quote()
				test.change(t, l, q)
				q, err := ParseQuote(q.Marshal())
				if err != nil {
					t.Fatal(err)
				}
				wantFailures(t, l.judge().Judge(t.Context(), q, l.module()), test.want)
			})
		}
	}
}

// sign makes the signature of the quote anew, with the chip's key.
func (l *lab) sign(t testing.TB, q *Quote) {
	t.Helper()
	var err error
	if q.Signature, err = signRaw(l.chip.key, q.marshalSigned()); err != nil {
		t.Fatal(err)
	}
}

// TestChipRefused is about chips that are not as they should be.
func TestChipRefused(t *testing.T) {
	const chain, tcb = measure.CheckChain, measure.CheckTCB
	for name, test := range map[string]struct {
		chip ChipOptions
		want map[measure.CheckName]string
	}{
		"expired": {
			ChipOptions{Certificate: func(c *x509.Certificate) { c.NotAfter = c.NotBefore.Add(time.Minute) }},
			map[measure.CheckName]string{chain: "the certificate Intel SGX PCK Certificate is not valid at this time"},
		},
		"not yet valid": {
			ChipOptions{Certificate: func(c *x509.Certificate) { c.NotBefore = c.NotAfter.Add(-time.Minute) }},
			map[measure.CheckName]string{chain: "the certificate Intel SGX PCK Certificate is not valid at this time"},
		},
		"an authority": {
			ChipOptions{Certificate: func(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign }},
			map[measure.CheckName]string{chain: "the PCK certificate is that of an authority", measure.CheckRevocation: "", tcb: ""},
		},
		"a name of its own": {
			ChipOptions{Certificate: func(c *x509.Certificate) { c.Subject.CommonName = "chip" }},
			map[measure.CheckName]string{measure.CheckSignature: "", chain: `the certificate is named "chip"`, measure.CheckRevocation: "", tcb: ""},
		},
		"a quoting enclave that can be debugged": {
			ChipOptions{QE: func(r *EnclaveReport) { r.Attributes.Flags |= FlagDebug }},
			map[measure.CheckName]string{chain: "debug enclave", tcb: "other attributes than Intel's"},
		},
		"a quoting enclave that was not initialised": {
			ChipOptions{QE: func(r *EnclaveReport) { r.Attributes.Flags &^= FlagInit }},
			map[measure.CheckName]string{chain: "was not initialised", tcb: "other attributes than Intel's"},
		},
		"an enclave of the guest's own": {
			ChipOptions{QE: func(r *EnclaveReport) { r.MRSigner[0] ^= 1 }},
			map[measure.CheckName]string{chain: "the quoting enclave is not signed by Intel", tcb: "the quoting enclave is not signed by Intel"},
		},
		"another enclave of Intel's": {
			ChipOptions{QE: func(r *EnclaveReport) { r.ISVProdID = 99 }},
			map[measure.CheckName]string{chain: "another product", tcb: "another product"},
		},
		"a quoting enclave with other state": {
			ChipOptions{QE: func(r *EnclaveReport) { r.MiscSelect = 1 }},
			map[measure.CheckName]string{tcb: "other state components"},
		},
		"an old platform": {
			ChipOptions{PCK: func(p *PCK) { p.Components[1]-- }},
			map[measure.CheckName]string{tcb: "the TCB is OutOfDate [INTEL-SA-00000]"},
		},
		"an old quoting enclave": {
			ChipOptions{QE: func(r *EnclaveReport) { r.ISVSVN -= 2 }},
			map[measure.CheckName]string{tcb: "the TCB is OutOfDate"},
		},
		"a quoting enclave below every level": {
			ChipOptions{QE: func(r *EnclaveReport) { r.ISVSVN = 0 }},
			map[measure.CheckName]string{tcb: "the quoting enclave is older than every level"},
		},
		"a platform below every level": {
			ChipOptions{PCK: func(p *PCK) { p.Components[0] = 0 }},
			map[measure.CheckName]string{tcb: "the TCB is below every level"},
		},
		"a provisioning enclave below every level": {
			ChipOptions{PCK: func(p *PCK) { p.PCESVN = 0 }},
			map[measure.CheckName]string{tcb: "the TCB is below every level"},
		},
		"another kind of platform": {
			ChipOptions{PCK: func(p *PCK) { p.FMSPC[5] = 1 }},
			map[measure.CheckName]string{tcb: "the TCB info is for another kind of platform"},
		},
		"another provisioning enclave": {
			ChipOptions{PCK: func(p *PCK) { p.PCEID[0] = 1 }},
			map[measure.CheckName]string{tcb: "the TCB info is for another provisioning enclave"},
		},
	} {
		for _, tee := range []TEE{TDX, SGX} {
			t.Run(name+", "+string(tee), func(t *testing.T) {
				wantFailures(t, newLab(t, tee, test.chip).opinion(), test.want)
			})
		}
	}
}

// TestCollateralRefused is about a good chip, of which the vendor says
// something bad, or somebody else speaks for the vendor.
func TestCollateralRefused(t *testing.T) {
	const revocation, tcb = measure.CheckRevocation, measure.CheckTCB
	stranger := newLab(t, TDX, ChipOptions{})
	for name, test := range map[string]struct {
		say    func(l *lab) Statement
		change func(c *Collateral)
		want   map[measure.CheckName]string
	}{
		"the chip is revoked": {
			say:  func(l *lab) Statement { return Statement{Revoked: []*x509.Certificate{l.chip.pck}} },
			want: map[measure.CheckName]string{revocation: "Intel SGX PCK Certificate (serial number"},
		},
		"the CA is revoked": {
			say:  func(*lab) Statement { return Statement{RevokeCA: true} },
			want: map[measure.CheckName]string{revocation: "Intel SGX PCK Platform CA (serial number"},
		},
		"the signer is revoked": {
			say:  func(*lab) Statement { return Statement{RevokeSigner: true} },
			want: map[measure.CheckName]string{revocation: "Intel SGX TCB Signing (serial number"},
		},
		"the TCB is revoked": {
			say: func(*lab) Statement {
				return Statement{TCBInfo: func(i *TCBInfo) { i.Levels[0].Status = Revoked }}
			},
			want: map[measure.CheckName]string{tcb: "the TCB is Revoked"},
		},
		"the quoting enclave is revoked": {
			say: func(*lab) Statement {
				return Statement{QEIdentity: func(i *QEIdentity) { i.Levels[0].Status = Revoked }}
			},
			want: map[measure.CheckName]string{tcb: "the TCB is Revoked"},
		},
		"advisories": {
			say: func(*lab) Statement {
				return Statement{TCBInfo: func(i *TCBInfo) {
					i.Levels[0].Status, i.Levels[0].Advisories = SWHardeningNeeded, []string{"INTEL-SA-00334", "INTEL-SA-00615"}
				}}
			},
			want: map[measure.CheckName]string{tcb: "the TCB is SWHardeningNeeded [INTEL-SA-00334 INTEL-SA-00615]"},
		},
		"the lists have ended": {
			say: func(*lab) Statement {
				return Statement{Lists: func(pck, root *x509.RevocationList) {
					pck.NextUpdate, root.NextUpdate = pck.ThisUpdate.Add(time.Minute), root.ThisUpdate.Add(time.Minute)
				}}
			},
			want: map[measure.CheckName]string{revocation: "the revocation list of the root was to be renewed by"},
		},
		"the lists are of tomorrow": {
			say: func(l *lab) Statement {
				return Statement{Lists: func(pck, root *x509.RevocationList) {
					pck.ThisUpdate, root.ThisUpdate = l.now.Add(time.Hour), l.now.Add(time.Hour)
				}}
			},
			want: map[measure.CheckName]string{revocation: "after the time of verification"},
		},
		"the TCB info has ended": {
			say: func(l *lab) Statement {
				return Statement{TCBInfo: func(i *TCBInfo) { i.NextUpdate = l.now.Add(-time.Second) }}
			},
			want: map[measure.CheckName]string{tcb: "the TCB info was to be renewed by"},
		},
		"the TCB info is of tomorrow": {
			say: func(l *lab) Statement {
				return Statement{TCBInfo: func(i *TCBInfo) { i.IssueDate = l.now.Add(time.Hour) }}
			},
			want: map[measure.CheckName]string{tcb: "the TCB info is from"},
		},
		"the QE identity has ended": {
			say: func(l *lab) Statement {
				return Statement{QEIdentity: func(i *QEIdentity) { i.NextUpdate = l.now.Add(-time.Second) }}
			},
			want: map[measure.CheckName]string{tcb: "the QE identity was to be renewed by"},
		},
		"a QE identity without an end": {
			say: func(*lab) Statement {
				return Statement{QEIdentity: func(i *QEIdentity) { i.NextUpdate = time.Time{} }}
			},
			want: map[measure.CheckName]string{tcb: "the QE identity was to be renewed by"},
		},
		"an info of another kind of platform": {
			say: func(*lab) Statement {
				return Statement{TCBInfo: func(i *TCBInfo) { i.FMSPC = []byte{1, 2, 3, 4, 5, 6} }}
			},
			want: map[measure.CheckName]string{tcb: "the TCB info is for another kind of platform"},
		},
		"a status that nobody knows": {
			say: func(*lab) Statement {
				return Statement{TCBInfo: func(i *TCBInfo) { i.Levels[1].Status = "Fine" }}
			},
			want: map[measure.CheckName]string{tcb: `a TCB status "Fine" is not known`},
		},
		"an info of a version that nobody knows": {
			say:  func(*lab) Statement { return Statement{TCBInfo: func(i *TCBInfo) { i.Version = 4 }} },
			want: map[measure.CheckName]string{tcb: "version 4 of TCB type 0"},
		},
		"an identity that is cut": {
			say: func(*lab) Statement {
				return Statement{QEIdentity: func(i *QEIdentity) { i.AttributesMask = i.AttributesMask[:8] }}
			},
			want: map[measure.CheckName]string{tcb: "a field has the wrong length"},
		},
		"an identity without levels": {
			say:  func(*lab) Statement { return Statement{QEIdentity: func(i *QEIdentity) { i.Levels = nil }} },
			want: map[measure.CheckName]string{tcb: "it has no TCB levels"},
		},
		"an identity whose levels nobody knows": {
			say: func(*lab) Statement {
				return Statement{QEIdentity: func(i *QEIdentity) { i.Levels[1].Status = TDRelaunchAdvised }}
			},
			want: map[measure.CheckName]string{tcb: `a TCB status "TDRelaunchAdvised" is not known`},
		},
		"the info of another TEE": {
			say:  func(*lab) Statement { return Statement{TCBInfo: func(i *TCBInfo) { i.ID += "?" }} },
			want: map[measure.CheckName]string{tcb: `TCB info: `},
		},
		"the identity of another enclave": {
			say:  func(*lab) Statement { return Statement{QEIdentity: func(i *QEIdentity) { i.ID = "QVE" }} },
			want: map[measure.CheckName]string{tcb: `it is for "QVE"`},
		},
		"an info that was changed": {
			change: func(c *Collateral) {
				c.TCBInfo = []byte(strings.Replace(string(c.TCBInfo), `"pcesvn":13`, `"pcesvn":0`, 1))
			},
			want: map[measure.CheckName]string{tcb: "TCB info: the signature does not verify"},
		},
		"an identity that was changed": {
			change: func(c *Collateral) {
				c.QEIdentity = []byte(strings.Replace(string(c.QEIdentity), `"isvsvn":6`, `"isvsvn":0`, 1))
			},
			want: map[measure.CheckName]string{tcb: "QE identity: the signature does not verify"},
		},
		"an info of a stranger": {
			change: func(c *Collateral) {
				c.TCBInfo, c.TCBInfoChain = stranger.source.c.TCBInfo, stranger.source.c.TCBInfoChain
			},
			want: map[measure.CheckName]string{tcb: "the signer's chain ends in another root than lab"},
		},
		"a stranger's signer under the root": {
			change: func(c *Collateral) {
				c.TCBInfo, c.TCBInfoChain = stranger.source.c.TCBInfo, append(encodePEM(stranger.vendor.signer), lastPEM(c.TCBInfoChain)...)
			},
			want: map[measure.CheckName]string{tcb: "Intel SGX TCB Signing was issued by"},
		},
		"an info that the CA signed": {
			change: func(c *Collateral) { c.TCBInfoChain = c.PCKCRLChain },
			want:   map[measure.CheckName]string{tcb: `the signer is named "Intel SGX PCK Platform CA"`},
		},
		"the lists of a stranger": {
			change: func(c *Collateral) { c.PCKCRL, c.RootCRL = stranger.source.c.PCKCRL, stranger.source.c.RootCRL },
			want:   map[measure.CheckName]string{revocation: "revocation list of PCK certificates: it was issued by"},
		},
		"the lists are swapped": {
			change: func(c *Collateral) { c.PCKCRL, c.RootCRL = c.RootCRL, c.PCKCRL },
			want:   map[measure.CheckName]string{revocation: "it was issued by"},
		},
		"there are no lists": {
			change: func(c *Collateral) { c.PCKCRL, c.RootCRL = nil, nil },
			want:   map[measure.CheckName]string{revocation: "revocation list of PCK certificates: it is missing; revocation list of the root: it is missing"},
		},
		"there is nothing": {
			change: func(c *Collateral) { *c = Collateral{} },
			want:   map[measure.CheckName]string{revocation: "it is missing", tcb: "QE identity: "},
		},
	} {
		for _, tee := range []TEE{TDX, SGX} {
			t.Run(name+", "+string(tee), func(t *testing.T) {
				l := newLab(t, tee, ChipOptions{})
				if test.say != nil {
					l.state(test.say(l))
				}
				if test.change != nil {
					test.change(&l.source.c)
				}
				wantFailures(t, l.opinion(), test.want)
			})
		}
	}
}

// lastPEM returns the last certificate of a chain.
func lastPEM(chain []byte) []byte {
	return chain[strings.LastIndex(string(chain), "-----BEGIN"):]
}

// TestTheOtherTEE gives one TEE the collateral of the other, from the same
// vendor.
func TestTheOtherTEE(t *testing.T) {
	for tee, other := range map[TEE]TEE{TDX: SGX, SGX: TDX} {
		l := newLab(t, tee, ChipOptions{})
		var err error
		if l.source.c, err = l.vendor.Collateral(other, l.now, Statement{}); err != nil {
			t.Fatal(err)
		}
		wantFailures(t, l.opinion(), map[measure.CheckName]string{measure.CheckTCB: "TCB info: "})
	}
}

func TestWithoutCollateral(t *testing.T) {
	unreachable := fixed{err: errors.New("the service does not answer")}
	for name, test := range map[string]struct {
		source Source
		reason string
	}{"no source": {nil, "no collateral is configured"}, "a source that is down": {unreachable, "the service does not answer"}} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, TDX, ChipOptions{})
			o := l.opinion(func(c *Config) { c.Source = test.source })
			wantFailures(t, o, map[measure.CheckName]string{measure.CheckRevocation: test.reason, measure.CheckTCB: test.reason})
			o = l.opinion(func(c *Config) { c.Source, c.UnsafeNoCollateral = test.source, true })
			wantFailures(t, o, nil)
			for _, n := range []measure.CheckName{measure.CheckRevocation, measure.CheckTCB} {
				if c := check(t, o, n); c.Outcome != measure.Waived || !strings.Contains(c.Reason, test.reason) {
					t.Errorf("%s is %s: %s", n, c.Outcome, c.Reason)
				}
			}
		})
	}
}

// TestWaivingCollateralWaivesNoBadNews has collateral at hand, which counts.
func TestWaivingCollateralWaivesNoBadNews(t *testing.T) {
	l := newLab(t, TDX, ChipOptions{})
	l.state(Statement{Revoked: []*x509.Certificate{l.chip.pck}})
	o := l.opinion(func(c *Config) { c.UnsafeNoCollateral = true })
	wantFailures(t, o, map[measure.CheckName]string{measure.CheckRevocation: "is revoked since"})
}

func TestGrace(t *testing.T) {
	l := newLab(t, TDX, ChipOptions{})
	made := l.now
	j := l.judge(func(c *Config) { c.Grace = 24 * time.Hour })
	judge := func() Opinion { return j.Judge(context.Background(), l.quote(), l.module()) }
	l.now = made.Add(collateralLife + time.Minute)
	o := judge()
	wantFailures(t, o, nil)
	if c := check(t, o, measure.CheckTCB); c.Outcome != measure.Waived || !strings.Contains(c.Reason, "within the configured grace") {
		t.Errorf("%s: %s", c.Outcome, c.Reason)
	}
	if o.Claims["collateral_expiration_status"] != "1" {
		t.Errorf("collateral_expiration_status is %v", o.Claims["collateral_expiration_status"])
	}
	l.now = made.Add(collateralLife + 25*time.Hour)
	wantFailures(t, judge(), map[measure.CheckName]string{
		measure.CheckRevocation: "was to be renewed by", measure.CheckTCB: "was to be renewed by",
	})
}

// TestNothingIsRememberedTooLong asks a judge that knows the chip already.
func TestNothingIsRememberedTooLong(t *testing.T) {
	l := newLab(t, TDX, ChipOptions{})
	made := l.now
	var say Collateral
	source := func() fixed { return fixed{c: say} }
	j := l.judge(func(c *Config) { c.Source = late(source) })
	say = l.source.c
	judge := func(q *Quote) Opinion { return j.Judge(context.Background(), q, l.module()) }
	wantFailures(t, judge(l.quote()), nil)
	if j.certified.Len() != 1 || j.endorsed.Len() != 1 {
		t.Fatalf("%d chips and %d collaterals are remembered, want one of each", j.certified.Len(), j.endorsed.Len())
	}

	q := l.quote()
	q.Body[0] ^= 1
	q, err := ParseQuote(q.Marshal())
	if err != nil {
		t.Fatal(err)
	}
	wantFailures(t, judge(q), map[measure.CheckName]string{measure.CheckSignature: "the attestation key did not sign"})

	l.state(Statement{Revoked: []*x509.Certificate{l.chip.pck}})
	say = l.source.c
	wantFailures(t, judge(l.quote()), map[measure.CheckName]string{measure.CheckRevocation: "is revoked since"})

	l.now = made.Add(pckLife + time.Minute)
	l.state(Statement{})
	say = l.source.c
	wantFailures(t, judge(l.quote()), map[measure.CheckName]string{measure.CheckChain: "is not valid at this time"})
}

// late asks for the source when it is needed.
type late func() fixed

func (f late) Collateral(ctx context.Context, r Request) (Collateral, error) {
	return f().Collateral(ctx, r)
}

// TestStrangersDoNotDecideWhatIsFetched is about chains that do not lead to a
// root that is trusted: their platforms are nobody's business.
func TestStrangersDoNotDecideWhatIsFetched(t *testing.T) {
	l, stranger := newLab(t, TDX, ChipOptions{}), newLab(t, TDX, ChipOptions{})
	asked := 0
	j := l.judge(func(c *Config) { c.Source = late(func() fixed { asked++; return l.source }) })
	q := stranger.quote()
	j.Judge(t.Context(), q, l.module())
	q.Chain = encodePEM(stranger.chip.pck, stranger.vendor.ca, l.vendor.root)
	j.Judge(t.Context(), q, l.module())
	if asked != 0 {
		t.Errorf("the source was asked %d times", asked)
	}
	j.Judge(t.Context(), l.quote(), l.module())
	if asked != 1 {
		t.Errorf("the source was asked %d times for a chip that is trusted, want once", asked)
	}
}

func TestConfig(t *testing.T) {
	l := newLab(t, TDX, ChipOptions{})
	for want, change := range map[string]func(*Config){
		"has no quotes":               func(c *Config) { c.TEE = "csv" },
		"must not be negative":        func(c *Config) { c.Grace = -time.Second },
		"cannot be accepted":          func(c *Config) { c.Accepted = []Status{UpToDate, Revoked} },
		"does not start with Intel":   func(c *Config) { c.UnsafeSimulatedRoots[0].Name = "intel sgx" },
		`two simulated roots`:         func(c *Config) { c.UnsafeSimulatedRoots = append(c.UnsafeSimulatedRoots, l.root()) },
		"has the key of Intel SGX":    func(c *Config) { c.UnsafeSimulatedRoots[0].Bundle = intelRoot },
		"more than 1 certificates":    func(c *Config) { c.UnsafeSimulatedRoots[0].Bundle = l.chip.certified.Chain },
		"not a list of certificates":  func(c *Config) { c.UnsafeSimulatedRoots[0].Bundle = []byte("root") },
		`is named "Intel SGX PCK`:     func(c *Config) { c.UnsafeSimulatedRoots[0].Bundle = encodePEM(l.vendor.ca) },
		"0 certificates":              func(c *Config) { c.UnsafeSimulatedRoots[0].Bundle = nil },
		`simulated root needs a name`: func(c *Config) { c.UnsafeSimulatedRoots[0].Name = "" },
		`has the key of lab`: func(c *Config) {
			c.UnsafeSimulatedRoots = append(c.UnsafeSimulatedRoots, SimulatedRoot{"b", l.vendor.Bundle()})
		},
	} {
		c := Config{TEE: TDX, UnsafeSimulatedRoots: []SimulatedRoot{l.root()}}
		change(&c)
		if _, err := NewJudge(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}
