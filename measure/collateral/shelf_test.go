package collateral

import (
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure/dcap"
)

func write(t testing.TB, dir string, files map[string][]byte) {
	t.Helper()
	for name, raw := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func (l *lab) shelf(dir string) *Shelf {
	l.t.Helper()
	s, err := ReadFiles(dir, l.config().Authorities)
	if err != nil {
		l.t.Fatal(err)
	}
	return s
}

// plain are files as somebody saves what Intel's service answers.
func (l *lab) plain() map[string][]byte {
	tdx := l.said[dcap.TDX]
	return map[string][]byte{
		"tcb.json": tdx.TCBInfo, "qe/identity.json": tdx.QEIdentity, "signer.pem": tdx.TCBInfoChain,
		"platform.crl": tdx.PCKCRL, "ca.pem": tdx.PCKCRLChain,
		"root.pem": pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: tdx.RootCRL}),
	}
}

func TestPlainFiles(t *testing.T) {
	l, dir := newLab(t), t.TempDir()
	write(t, dir, l.plain())
	write(t, dir, map[string][]byte{"README": []byte("not collateral"), ".hidden/x": []byte("not looked at")})
	s := l.shelf(dir)
	got, err := s.Collateral(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	judge, err := dcap.NewJudge(dcap.Config{
		TEE: dcap.TDX, Source: s, Now: l.time, UnsafeSimulatedRoots: []dcap.SimulatedRoot{{Name: "lab", Bundle: l.vendor.Bundle()}},
	})
	if err != nil {
		t.Fatal(err)
	}
	chip, err := l.vendor.NewChip(dcap.TDX, l.time(), dcap.ChipOptions{})
	if err != nil {
		t.Fatal(err)
	}
	q, err := chip.Quote(4, dcap.BodyTD10, make([]byte, 584))
	if err != nil {
		t.Fatal(err)
	}
	module := dcap.SimulatedModule()
	for _, c := range judge.Judge(t.Context(), q, &module).Checks {
		if c.Reason != "" {
			t.Errorf("%s: %s", c.Name, c.Reason)
		}
	}
	if string(got.RootCRL) != string(l.said[dcap.TDX].RootCRL) {
		t.Error("the root's list is another")
	}
	if len(s.Skipped) != 1 {
		t.Errorf("skipped %v, want the README alone", s.Skipped)
	}
	if _, err := s.find(t.Context(), RootCRL); err != nil {
		t.Error(err)
	}
	_, err = s.Collateral(t.Context(), dcap.Request{TEE: dcap.SGX, FMSPC: dcap.SimulatedFMSPC, CA: dcap.Processor})
	if !errors.Is(err, ErrAbsent) {
		t.Errorf("got %v, want ErrAbsent", err)
	}
}

func TestNewestFileCounts(t *testing.T) {
	l, dir := newLab(t), t.TempDir()
	write(t, dir, map[string][]byte{"b.crl": l.said[dcap.TDX].RootCRL})
	l.pass(24 * time.Hour)
	l.state(dcap.Statement{})
	newest := l.said[dcap.TDX].RootCRL
	write(t, dir, map[string][]byte{"a.crl": newest})
	items, err := l.shelf(dir).find(t.Context(), RootCRL)
	if err != nil || string(items[0].Body) != string(newest) {
		t.Errorf("not the newest list; %v", err)
	}
}

func TestFilesOfStrangers(t *testing.T) {
	l, dir := newLab(t), t.TempDir()
	write(t, dir, newLab(t).plain())
	s := l.shelf(dir)
	if n := len(s.Items()); n != 0 {
		t.Errorf("%d items of another vendor", n)
	}
	if len(s.Skipped) != 4 {
		t.Errorf("skipped %v, want four", s.Skipped)
	}
}

// What Intel's PcsClientTool writes, indented as it does.
func TestPcsClientTool(t *testing.T) {
	l, dir := newLab(t), t.TempDir()
	tdx, sgx := l.said[dcap.TDX], l.said[dcap.SGX]
	raw, err := json.MarshalIndent(map[string]any{
		"platforms": []any{},
		"collaterals": map[string]any{
			"version": 4,
			"tcbinfos": []any{map[string]any{
				"fmspc":       hex.EncodeToString(dcap.SimulatedFMSPC[:]),
				"sgx_tcbinfo": json.RawMessage(sgx.TCBInfo), "tdx_tcbinfo": nil, "tdx_tcbinfo_early": json.RawMessage(tdx.TCBInfo),
			}},
			"pckcacrl":   map[string]any{"processorCrl": "", "platformCrl": hex.EncodeToString(tdx.PCKCRL)},
			"qeidentity": string(sgx.QEIdentity), "tdqeidentity": json.RawMessage(tdx.QEIdentity),
			"certificates": map[string]any{
				"SGX-TCB-Info-Issuer-Chain":        url.PathEscape(string(tdx.TCBInfoChain)),
				"SGX-PCK-Certificate-Issuer-Chain": map[string]any{"PLATFORM": url.PathEscape(string(tdx.PCKCRLChain))},
			},
			"rootcacrl": hex.EncodeToString(tdx.RootCRL),
		},
	}, "", "    ")
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, map[string][]byte{"platform_collaterals.json": raw})
	s := l.shelf(dir)
	if len(s.Skipped) != 0 {
		t.Errorf("skipped %v", s.Skipped)
	}
	for _, tee := range []dcap.TEE{dcap.TDX, dcap.SGX} {
		if _, err := s.Collateral(t.Context(), dcap.Request{TEE: tee, FMSPC: dcap.SimulatedFMSPC, CA: dcap.Platform}); err != nil {
			t.Errorf("%s: %v", tee, err)
		}
	}
}

func TestFilesThatChange(t *testing.T) {
	l, dir := newLab(t), t.TempDir()
	f, err := NewFiles(dir, l.config().Authorities)
	if err != nil {
		t.Fatal(err)
	}
	s := l.store(func(c *Config) { c.Fetchers = []Fetcher{f.Chips(), f} })
	mentions(t, l.get(s, RootCRL), "among the files")
	write(t, dir, l.plain())
	l.pass(time.Hour)
	if err := l.get(s, RootCRL); err != nil {
		t.Error(err)
	}
	if _, err := NewFiles(filepath.Join(dir, "absent"), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a directory that is absent: %v", err)
	}
}

func FuzzReadFiles(f *testing.F) {
	l := newLab(f)
	for _, raw := range l.plain() {
		f.Add(raw)
	}
	f.Add([]byte(`{"collaterals":{"tcbinfos":[{"fmspc":"00"}],"certificates":{"a":"%zz"}}}`))
	f.Add([]byte(`{"name":"intel/rootcrl","body":"AA=="}`))
	trusted := l.config().Authorities
	f.Fuzz(func(t *testing.T, raw []byte) {
		h := heap{trust: trusted, pool: trusted}
		h.add("file", raw)
		for _, i := range h.sort().Items() {
			if _, err := authorities(trusted).read(i); err != nil {
				t.Fatalf("%s was taken: %v", i.Name, err)
			}
		}
	})
}

func FuzzUnpack(f *testing.F) {
	l, key := newLab(f), newKey(f)
	kit, err := Pack([]Item{{Name: RootCRL, Body: l.said[dcap.TDX].RootCRL}}, start, key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(kit)
	f.Add([]byte{0xd2, 0x84, 0x40, 0xa0, 0x40, 0x40})
	f.Fuzz(func(t *testing.T, raw []byte) {
		if k, err := Unpack(raw, key.Public()); err == nil && len(k.Items) != 1 {
			t.Fatalf("a kit of %d items that nobody signed", len(k.Items))
		}
	})
}

func FuzzName(f *testing.F) {
	for _, n := range Names(request) {
		f.Add(string(n))
	}
	f.Add("amd/Turin/vcek/0011223344556677/0102030000000004")
	f.Fuzz(func(t *testing.T, text string) {
		n := Name(text)
		r, err := n.parse()
		if err != nil {
			return
		}
		if r.name() != n {
			t.Fatalf("%q means %q", n, r.name())
		}
		if back, ok := nameOfFile(n.file()); !ok || back != n || filepath.Base(n.file()) != n.file() {
			t.Fatalf("%q is kept as %q, which means %q", n, n.file(), back)
		}
	})
}
