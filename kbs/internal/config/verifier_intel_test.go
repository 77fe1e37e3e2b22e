package config

import (
	"slices"
	"testing"
)

// TestIntelWaiversAreTold has every setting that makes less secure, and every
// one of them is told at the start of the broker.
func TestIntelWaiversAreTold(t *testing.T) {
	c := Default(env(nil))
	text := `
[verifier.tdx]
enabled = true
insecure_no_collateral = true
insecure_debug = true
insecure_migratable = true
insecure_simulated_roots = [{name = "lab", path = "root.pem"}]
[verifier.sgx]
enabled = true
insecure_no_collateral = true
insecure_debug = true
`
	if err := Parse([]byte(text), &c); err != nil {
		t.Fatal(err)
	}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"verifier.tdx.insecure_simulated_roots: lab", "verifier.tdx.insecure_no_collateral", "verifier.tdx.insecure_debug",
		"verifier.tdx.insecure_migratable", "verifier.sgx.insecure_no_collateral", "verifier.sgx.insecure_debug",
	}
	if got := c.Verifier.insecure(); !slices.Equal(got, want) {
		t.Errorf("%q are told, want %q", got, want)
	}
	if got := c.Verifier.Files(); !slices.Contains(got, "root.pem") {
		t.Errorf("%q are watched, and not root.pem", got)
	}
}
