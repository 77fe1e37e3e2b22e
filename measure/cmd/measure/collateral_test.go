package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/measure/dcap"
)

// do runs the command and demands an exit code.
func do(t *testing.T, code int, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	if got := run(t.Context(), args, strings.NewReader(""), &out, &err); got != code {
		t.Fatalf("measure %s: exit code %d, want %d: %s", strings.Join(args, " "), got, code, err.String())
	}
	return out.String(), err.String()
}

// pccs serves the collateral of a simulated Intel.
func pccs(t *testing.T) (address, root string) {
	t.Helper()
	vendor, err := dcap.NewVendor(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	root = filepath.Join(t.TempDir(), "root.pem")
	if err := os.WriteFile(root, vendor.Bundle(), 0o600); err != nil {
		t.Fatal(err)
	}
	all := map[dcap.TEE]dcap.Collateral{}
	for _, tee := range []dcap.TEE{dcap.TDX, dcap.SGX} {
		if all[tee], err = vendor.Collateral(tee, time.Now(), dcap.Statement{}); err != nil {
			t.Fatal(err)
		}
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := all[dcap.TEE(strings.Split(r.URL.Path, "/")[1])]
		give := func(header string, chain, body []byte) {
			w.Header().Set(header, url.PathEscape(string(chain)))
			_, _ = w.Write(body)
		}
		switch path := r.URL.Path; {
		case strings.HasSuffix(path, "/tcb"):
			give("TCB-Info-Issuer-Chain", c.TCBInfoChain, c.TCBInfo)
		case strings.HasSuffix(path, "/qe/identity"):
			give("SGX-Enclave-Identity-Issuer-Chain", c.QEIdentityChain, c.QEIdentity)
		case strings.HasSuffix(path, "/pckcrl") && r.URL.Query().Get("ca") == "platform":
			give("SGX-PCK-CRL-Issuer-Chain", c.PCKCRLChain, c.PCKCRL)
		case strings.HasSuffix(path, "/rootcacrl"):
			_, _ = w.Write(c.RootCRL)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL, root
}

func keyFiles(t *testing.T) (private, public string) {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	der, err1 := x509.MarshalPKCS8PrivateKey(key)
	spki, err2 := x509.MarshalPKIXPublicKey(pub)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	dir := t.TempDir()
	private, public = filepath.Join(dir, "me.key"), filepath.Join(dir, "me.pub")
	for path, block := range map[string]*pem.Block{private: {Type: "PRIVATE KEY", Bytes: der}, public: {Type: "PUBLIC KEY", Bytes: spki}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return private, public
}

func TestCollateralCommand(t *testing.T) {
	service, root := pccs(t)
	private, public := keyFiles(t)
	dir, beyond := filepath.Join(t.TempDir(), "here"), filepath.Join(t.TempDir(), "there")
	mine := []string{"--simulated-root", "mine=" + root}
	names := []string{"intel/tdx/tcb/53494d000000", "intel/tdx/qe", "intel/pckcrl/platform", "intel/rootcrl"}
	with := func(args ...string) []string { return append(args, mine...) }

	out, _ := do(t, fault.ExitOK, append(with("collateral", "fetch", "--dir", dir, "--amd-service", "none", "--intel-service", service), names...)...)
	for _, n := range names {
		if !strings.Contains(out, n) {
			t.Errorf("%s is not in the list:\n%s", n, out)
		}
	}
	// What there is not, is said, and the rest is fetched all the same.
	out, stderr := do(t, fault.ExitUnavailable, with("collateral", "fetch", "--dir", dir, "--amd-service", "none", "--intel-service", service, "--fmspc", "53494d000000")...)
	if !strings.Contains(stderr, "intel/pckcrl/processor: ") || !strings.Contains(out, "intel/sgx/qe") {
		t.Errorf("out %s\nerr %s", out, stderr)
	}
	kit, _ := do(t, fault.ExitOK, with("collateral", "export", "--dir", dir, "--key", private)...)
	file := filepath.Join(t.TempDir(), "kit")
	if err := os.WriteFile(file, []byte(kit), 0o600); err != nil {
		t.Fatal(err)
	}
	_, other := keyFiles(t)
	_, stderr = do(t, fault.ExitEvidence, with("collateral", "import", "--dir", beyond, "--key", other, file)...)
	if !strings.Contains(stderr, "not by any key that was given") {
		t.Error(stderr)
	}
	_, stderr = do(t, fault.ExitEvidence, "collateral", "import", "--dir", beyond, "--key", public, file) // nobody trusts this vendor
	if !strings.Contains(stderr, "nobody who is trusted signed") {
		t.Error(stderr)
	}
	out, _ = do(t, fault.ExitOK, with("collateral", "import", "--dir", beyond, "--key", public, file)...)
	if n := strings.Count(out, "yes"); n != 6 {
		t.Errorf("%d items were taken, want 6:\n%s", n, out)
	}
	out, _ = do(t, fault.ExitOK, with("collateral", "show", "--dir", beyond, "-o", "json")...)
	if n := strings.Count(out, `"name"`); n != 6 {
		t.Errorf("%d items are shown, want 6:\n%s", n, out)
	}
	late := time.Now().Add(40 * 24 * time.Hour).Format(time.RFC3339)
	_, stderr = do(t, fault.ExitUsage, with("collateral", "export", "--dir", dir, "--key", private, "--at", late)...)
	if !strings.Contains(stderr, "nothing that is good now") {
		t.Error(stderr)
	}
	out, _ = do(t, fault.ExitOK, with("collateral", "import", "--dir", filepath.Join(beyond, "late"), "--key", public, "--at", late, file)...)
	if strings.Contains(out, "yes") || !strings.Contains(out, "ended at") {
		t.Error(out)
	}
}

func TestCollateralUsage(t *testing.T) {
	dir := t.TempDir()
	for _, args := range [][]string{
		{"fetch", "--dir", dir}, {"fetch", "--dir", dir, "--amd", "Naples"}, {"fetch", "--dir", dir, "--fmspc", "00"},
		{"fetch", "--dir", dir, "--intel-service", "http://pccs.example", "intel/rootcrl"}, {"fetch"}, {"export", "--dir", dir}, {"import", "--dir", dir, "x"},
	} {
		do(t, fault.ExitUsage, append([]string{"collateral"}, args...)...)
	}
	_, stderr := do(t, fault.ExitUnavailable, "collateral", "fetch", "--dir", dir, "--intel-service", "none", "--amd-service", "none", "not/a/name")
	if !strings.Contains(stderr, "not a name") {
		t.Error(stderr)
	}
}
