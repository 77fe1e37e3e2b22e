package tdx

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-tdx-guest/verify"

	"github.com/vouchsafe-cc/vouchsafe/measure/dcap"

	"github.com/vouchsafe-cc/vouchsafe/measure/internal/evidencetest"
)

// published answers a library that asks Intel's PCS, with the same collateral
// that our verifier gets.
type published dcap.Collateral

func (p published) Get(address string) (map[string][]string, []byte, error) {
	chain := func(header string, pem []byte) map[string][]string {
		return map[string][]string{header: {url.QueryEscape(string(pem))}}
	}
	switch {
	case strings.Contains(address, "/tcb?fmspc="):
		return chain("Tcb-Info-Issuer-Chain", p.TCBInfoChain), p.TCBInfo, nil
	case strings.Contains(address, "/qe/identity"):
		return chain("Sgx-Enclave-Identity-Issuer-Chain", p.QEIdentityChain), p.QEIdentity, nil
	case strings.Contains(address, "/pckcrl"):
		return chain("Sgx-Pck-Crl-Issuer-Chain", p.PCKCRLChain), p.PCKCRL, nil
	case strings.Contains(address, "IntelSGXRootCA"):
		return nil, p.RootCRL, nil
	}
	return nil, nil, fmt.Errorf("nobody publishes %s", address)
}

// TestSecondOpinion asks Google's library, which knows quotes of version 4 and
// the status UpToDate alone. It is no judge here: it decides nothing, and must
// agree where it can.
func TestSecondOpinion(t *testing.T) {
	roots := func(l *lab) *x509.CertPool {
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(l.vendor.Bundle())
		return pool
	}
	for name, test := range map[string]struct {
		launch func(*Launch)
		say    func(t *testing.T, l *lab) dcap.Statement
		change func(q []byte)
		good   bool
	}{
		"good": {good: true},
		"another MRTD": {
			change: func(q []byte) { q[48+136] ^= 1 },
		},
		"revoked": {say: func(t *testing.T, l *lab) dcap.Statement {
			q, err := dcap.ParseQuote(l.evidence().Quote)
			if err != nil {
				t.Fatal(err)
			}
			c, err := x509.ParseCertificate(firstCertificate(t, q.Chain))
			if err != nil {
				t.Fatal(err)
			}
			return dcap.Statement{Revoked: []*x509.Certificate{c}}
		}},
		// Its next version accepts this: the module's level is good.
		"an old platform under a good module": {launch: func(l *Launch) {
			l.Chip.PCK = func(p *dcap.PCK) { p.Components[0]-- }
		}},
		"an old module": {launch: func(l *Launch) { l.Module = func(m *dcap.Module) { m.SVN[0] -= 2 } }},
		"an old quoting enclave": {launch: func(l *Launch) {
			l.Chip.QE = func(r *dcap.EnclaveReport) { r.ISVSVN -= 2 }
		}},
		"hardening needed": {say: func(*testing.T, *lab) dcap.Statement {
			return dcap.Statement{TCBInfo: func(i *dcap.TCBInfo) { i.Levels[0].Status = dcap.SWHardeningNeeded }}
		}},
		"expired": {launch: func(l *Launch) {
			l.Chip.Certificate = func(c *x509.Certificate) { c.NotAfter = c.NotBefore.Add(1) }
		}},
	} {
		t.Run(name, func(t *testing.T) {
			if test.launch == nil {
				test.launch = func(*Launch) {}
			}
			l := newLab(t, test.launch)
			var s dcap.Statement
			if test.say != nil {
				s = test.say(t, l)
			}
			c, err := l.vendor.Collateral(dcap.TDX, l.now, s)
			if err != nil {
				t.Fatal(err)
			}
			e := l.evidence()
			if test.change != nil {
				test.change(e.Quote)
			}
			_, ours := l.verify(l.verifier(func(v *VerifierConfig) { v.Source = fixed(c) }), e, l.expected())
			theirs := verify.RawTdxQuote(e.Quote, &verify.Options{
				GetCollateral: true, CheckRevocations: true, Getter: published(c), Now: l.now, TrustedRoots: roots(l),
			})
			if (ours == nil) != test.good || (theirs == nil) != test.good {
				t.Errorf("we say %v, the library says %v", ours, theirs)
			}
		})
	}
}

// TestSecondOpinionOfRealQuotes is without collateral, as none was recorded.
func TestSecondOpinionOfRealQuotes(t *testing.T) {
	dstack, _ := explained(t)
	for name, quote := range map[string][]byte{
		"debug": evidencetest.File(t, "tdx", "tdx_quote_4.dat"), "azure": evidencetest.File(t, "azure", "tdx", "td-quote.bin"), "dstack": dstack,
	} {
		if err := verify.RawTdxQuote(quote, &verify.Options{Now: realTime}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func firstCertificate(t *testing.T, chain []byte) []byte {
	t.Helper()
	block, _ := pem.Decode(chain)
	if block == nil {
		t.Fatal("no certificate")
	}
	return block.Bytes
}
