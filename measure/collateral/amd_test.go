package collateral

import (
	"bytes"
	"context"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
)

// simulated is a simulated AMD and a guest on one of its chips.
type simulated struct {
	bundle []byte
	guest  *snp.Simulator
	report *snp.Report
	chain  []byte // as the service has it: signing certificate, root
	list   []byte
	leaf   []byte
}

var challenge = measure.ReportData{1, 2, 3}

// theAMD makes it once: its keys take seconds.
var theAMD = sync.OnceValues(func() (*simulated, error) {
	dir, err := os.MkdirTemp("", "collateral-amd-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // of the test
	vendor, guest := filepath.Join(dir, "vendor"), filepath.Join(dir, "guest")
	if err := snp.CreateVendor(vendor, "Turin"); err != nil {
		return nil, err
	}
	if err := snp.CreateGuest(vendor, guest, snp.Launch{Image: []byte("agent"), CommandLine: "quiet"}); err != nil {
		return nil, err
	}
	a := new(simulated)
	if a.bundle, err = os.ReadFile(filepath.Join(vendor, "root.pem")); err != nil {
		return nil, err
	}
	if a.guest, err = snp.OpenSimulator(guest); err != nil {
		return nil, err
	}
	return a, a.read()
})

func (a *simulated) read() error {
	ev, err := a.guest.Evidence(context.Background(), challenge)
	if err != nil {
		return err
	}
	e, err := snp.ParseEvidence(ev)
	if err != nil {
		return err
	}
	a.report, a.leaf = e.Report, e.Certificate(snp.CertVCEK)
	for _, kind := range []snp.CertType{snp.CertASK, snp.CertARK} {
		a.chain = append(a.chain, pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: e.Certificate(kind)})...)
	}
	for block, rest := pem.Decode(a.bundle); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "X509 CRL" {
			a.list = block.Bytes
		}
	}
	return nil
}

func newAMD(t testing.TB) *simulated {
	t.Helper()
	a, err := theAMD()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *simulated) roots() []snp.SimulatedRoot {
	return []snp.SimulatedRoot{{Name: "lab", Bundle: a.bundle}}
}

func (a *simulated) vcek() Name {
	return VCEK(snp.Turin, snp.Turin.HardwareID(a.report.ChipID), a.report.ReportedTCB)
}

// service is AMD's, on loopback.
func (a *simulated) service(t testing.TB) (base string, asked *[]string) {
	t.Helper()
	asked = new([]string)
	mux := http.NewServeMux()
	serve := func(pattern string, body []byte) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			*asked = append(*asked, r.URL.String())
			_, _ = w.Write(body)
		})
	}
	serve("/vcek/v1/Turin/crl", a.list)
	serve("/vcek/v1/Turin/cert_chain", a.chain)
	serve(fmt.Sprintf("/vcek/v1/Turin/%x", a.report.ChipID[:8]), a.leaf)
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.URL, asked
}

func (a *simulated) store(t testing.TB, from ...Fetcher) *Store {
	t.Helper()
	trusted, err := Authorities(a.roots(), nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(Config{Authorities: trusted, Fetchers: from})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// A report without any certificate is verified with what the service has.
func TestBareReport(t *testing.T) {
	a := newAMD(t)
	base, asked := a.service(t)
	f, err := AMD(base, WebConfig{})
	if err != nil {
		t.Fatal(err)
	}
	roots := a.roots()
	roots[0].Bundle, _, _ = bytes.Cut(roots[0].Bundle, []byte("-----BEGIN X509 CRL")) // no list of its own
	v, err := snp.NewVerifier(snp.VerifierConfig{UnsafeSimulatedRoots: roots, Source: a.store(t, f)})
	if err != nil {
		t.Fatal(err)
	}
	ev, err := (&snp.Evidence{Report: a.report}).Wire()
	if err != nil {
		t.Fatal(err)
	}
	want := measure.Expected{ReportData: measure.BoundTo(challenge[:]), InitData: measure.NotPresented()}
	for range 2 {
		if _, err := v.Verify(t.Context(), ev, want); err != nil {
			t.Fatal(err)
		}
	}
	if len(*asked) != 2 {
		t.Errorf("asked %q, want once for the certificate and once for the list", *asked)
	}
	s := a.report.ReportedTCB.SVNs(snp.Turin)
	wantURL := fmt.Sprintf("/vcek/v1/Turin/%x?blSPL=%02d&fmcSPL=%02d&snpSPL=%02d&teeSPL=%02d&ucodeSPL=%02d",
		a.report.ChipID[:8], s.Bootloader, *s.FMC, s.SNP, s.TEE, s.Microcode)
	if (*asked)[0] != wantURL {
		t.Errorf("asked %s, want %s", (*asked)[0], wantURL)
	}
}

func TestKDSPaths(t *testing.T) {
	chip := bytes.Repeat([]byte{0xab}, 64)
	for n, want := range map[Name]string{
		AMDList(snp.Milan, snp.VCEK):  "vcek/v1/Milan/crl",
		AMDList(snp.Genoa, snp.VLEK):  "vlek/v1/Genoa/crl",
		AMDChain(snp.Turin, snp.VLEK): "vlek/v1/Turin/cert_chain",
		VCEK(snp.Milan, chip, snp.TCB{3, 0, 0, 0, 0, 0, 8, 115}): "vcek/v1/Milan/" + strings.Repeat("ab", 64) +
			"?blSPL=03&snpSPL=08&teeSPL=00&ucodeSPL=115",
		RootCRL: "",
	} {
		r, err := n.parse()
		if err != nil {
			t.Fatal(err)
		}
		path, query := kdsPath(r)
		if q := query.Encode(); q != "" {
			path += "?" + q
		}
		if path != want {
			t.Errorf("%s is at %q, want %q", n, path, want)
		}
	}
}

func TestSwappedOfAMD(t *testing.T) {
	a := newAMD(t)
	tcb := a.report.ReportedTCB
	tcb[7]++
	for _, c := range []struct {
		name Name
		body []byte
		text string
	}{
		{VCEK(snp.Turin, []byte("8 bytes!"), a.report.ReportedTCB), a.leaf, "it is for the chip"},
		{VCEK(snp.Turin, a.report.ChipID[:8], tcb), a.leaf, "it is for the TCB"},
		{a.vcek(), a.chain, "malformed"},
		{a.vcek(), append(append([]byte(nil), a.leaf[:len(a.leaf)-1]...), a.leaf[len(a.leaf)-1]^1), "nobody who is trusted signed"},
		{AMDList(snp.Genoa, snp.VCEK), a.list, `want "ARK-Genoa"`},
		{AMDChain(snp.Turin, snp.VLEK), a.chain, `want "SEV-VLEK-Turin"`},
		{AMDChain(snp.Turin, snp.VCEK), a.chain[100:], `want "SEV-Turin"`},
		{AMDChain(snp.Turin, snp.VCEK), a.leaf, "issuer chain is missing"},
		{AMDList(snp.Turin, snp.VCEK), a.leaf, "x509"},
	} {
		s := a.store(t, fetched(func(Name) (Item, error) { return Item{Body: c.body}, nil }))
		_, err := s.Get(t.Context(), c.name)
		mentions(t, err, c.text)
	}
}

// The layout of the field's offline store: vcek/{chip}/{numbers}_vcek.der.
func TestFilesOfAMD(t *testing.T) {
	a, dir := newAMD(t), t.TempDir()
	write(t, dir, map[string][]byte{
		fmt.Sprintf("vcek/%x/vcek.der", a.report.ChipID[:8]): a.leaf,
		"Turin/crl": a.list, "Turin/cert_chain": a.chain,
	})
	trusted, err := Authorities(a.roots(), nil)
	if err != nil {
		t.Fatal(err)
	}
	shelf, err := ReadFiles(dir, trusted)
	if err != nil || len(shelf.Skipped) != 0 {
		t.Fatal(err, shelf.Skipped)
	}
	if der, err := shelf.VCEK(t.Context(), snp.Turin, a.report.ChipID[:8], a.report.ReportedTCB); err != nil || !bytes.Equal(der, a.leaf) {
		t.Errorf("the chip's certificate: %v", err)
	}
	for _, k := range []snp.SigningKey{snp.VCEK, snp.VLEK} {
		if der, err := shelf.RevocationList(t.Context(), snp.Turin, k); err != nil || !bytes.Equal(der, a.list) {
			t.Errorf("list of %s: %v", k, err)
		}
	}
	if got, err := shelf.Chain(t.Context(), snp.Turin, snp.VCEK); err != nil || !bytes.Equal(got, a.chain) {
		t.Errorf("chain: %v", err)
	}
	f, err := NewFiles(dir, trusted)
	if err != nil {
		t.Fatal(err)
	}
	s := a.store(t, f.Chips())
	if _, err := s.Get(t.Context(), a.vcek()); err != nil {
		t.Error(err)
	}
	_, err = s.Get(t.Context(), AMDList(snp.Turin, snp.VCEK))
	mentions(t, err, "no source is configured")
}

// Certificates of chips are kept apart from what all evidence needs: there may
// be very many, and a stranger can make a broker ask for them.
func TestChipsOnDisk(t *testing.T) {
	a, dir := newAMD(t), t.TempDir()
	trusted, err := Authorities(a.roots(), nil)
	if err != nil {
		t.Fatal(err)
	}
	open := func(most int, from ...Fetcher) *Store {
		s, err := Open(Config{Authorities: trusted, Dir: dir, MaxItems: most, Fetchers: from})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	all := fetched(func(n Name) (Item, error) {
		if n == a.vcek() {
			return Item{Body: a.leaf}, nil
		}
		return Item{Body: a.list}, nil
	})
	s := open(1, all)
	for _, n := range []Name{a.vcek(), AMDList(snp.Turin, snp.VCEK), a.vcek()} {
		if _, err := s.Get(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(s.Status()); n != 1 {
		t.Errorf("%d in memory, want 1", n)
	}
	again := open(10)
	if n := len(again.Status()); n != 1 {
		t.Errorf("%d in memory at the start, want the list alone", n)
	}
	if _, err := again.Get(t.Context(), a.vcek()); err != nil {
		t.Errorf("the chip's certificate is not found on disk: %v", err)
	}
	for _, st := range again.Status() {
		if st.Name.OfChip() && st.Due.Before(time.Now().Add(365*24*time.Hour)) {
			t.Errorf("a chip's certificate is renewed within a year: %+v", st)
		}
	}
}
