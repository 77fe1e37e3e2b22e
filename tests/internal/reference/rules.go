package reference

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/measure"
)

// rule is one comparison that a default policy makes.
type rule struct {
	claim     string // its last part
	value     string // name of a reference value, or the value itself
	reference bool
	aspect    string // of the trustworthiness vector
}

// The tables in the texts of the default policies, by their names: what the
// name ends in tells what is compared, and for which aspect.
var (
	table = regexp.MustCompile(`(?s)\n([a-z_]+) := \{(.*?)\n?\}\n`)
	entry = regexp.MustCompile(`"([^"]+)":\s*("[^"]*"|true|false)`)

	// tablesOf are the tables of each platform.
	tablesOf = map[measure.Platform]struct {
		policy string
		names  []string
	}{
		measure.SNP:          {"default_cpu", []string{"snp_executables", "snp_hardware", "snp_closed", "snp_configuration"}},
		measure.TDX:          {"default_cpu", []string{"tdx_executables", "tdx_hardware", "tdx_header", "tdx_collateral", "tdx_closed", "tdx_configuration"}},
		measure.SGX:          {"default_cpu", []string{"sgx_executables", "tdx_collateral", "sgx_closed", "sgx_configuration"}},
		measure.AzSNPvTPM:    {"default_cpu", []string{"az_snp_executables", "az_snp_boot", "az_snp_hardware", "az_snp_closed", "az_snp_configuration"}},
		measure.AzTDXvTPM:    {"default_cpu", []string{"az_tdx_boot", "tdx_hardware", "tdx_header", "az_tdx_collateral", "tdx_closed", "tdx_configuration"}},
		measure.TPM:          {"default_cpu", []string{"tpm_boot", "tpm_hardware", "tpm_vouched"}},
		measure.CCA:          {"default_cpu", []string{"cca_executables", "cca_hardware", "cca_firmware", "cca_closed", "cca_configuration"}},
		measure.NVIDIA:       {"default_gpu", []string{"local_fixed", "local_hardware", "local_versions"}},
		measure.Sample:       {"default_cpu", []string{"sample_executables", "sample_hardware", "sample_version", "sample_least", "sample_closed"}},
		measure.SampleDevice: {"default_gpu", []string{"sample_device"}},
	}

	// aspects by the end of a table's name; fixed tables hold the values.
	aspects = map[string]string{
		"executables": "executables", "boot": "executables", "fixed": "executables",
		"hardware": "hardware", "header": "hardware", "collateral": "hardware", "vouched": "hardware", "firmware": "hardware",
		"version": "hardware", "least": "hardware", "device": "all",
		"closed": "configuration", "configuration": "configuration", "versions": "configuration",
	}
	fixed = []string{"header", "collateral", "closed", "fixed"}
)

// defaultRules reads what the shipped policies compare. A table of a platform
// that nobody listed, or one that is not there, is an error: the page would
// leave something out.
func defaultRules(dir string) (map[measure.Platform][]rule, error) {
	tables := map[string]map[string][]rule{}
	for _, policy := range []string{"default_cpu", "default_gpu"} {
		text, err := os.ReadFile(filepath.Join(dir, policy+".rego"))
		if err != nil {
			return nil, err
		}
		tables[policy] = map[string][]rule{}
		for _, m := range table.FindAllStringSubmatch(string(text), -1) {
			if rules := parseTable(m[1], m[2]); rules != nil {
				tables[policy][m[1]] = rules
			}
		}
	}
	tables["default_gpu"]["sample_device"] = []rule{{"svn", "sampledevice_svn", true, "all"}} // a rule of its own, no table
	out, used := map[measure.Platform][]rule{}, map[string]bool{}
	for p, of := range tablesOf {
		for _, name := range of.names {
			rules, ok := tables[of.policy][name]
			if !ok {
				return nil, fmt.Errorf("%s.rego has no table %s", of.policy, name)
			}
			out[p], used[name] = append(out[p], rules...), true
		}
	}
	for _, of := range tables {
		for name := range of {
			if !used[name] {
				return nil, fmt.Errorf("the table %s of a default policy is of no platform of this page", name)
			}
		}
	}
	return out, nil
}

// parseTable returns nil for what only looks like a table.
func parseTable(name, text string) []rule {
	suffix := name[strings.LastIndex(name, "_")+1:]
	aspect, ok := aspects[suffix]
	if !ok || !strings.Contains(name, "_") || name == "trust_claims" {
		return nil
	}
	var out []rule
	for _, m := range entry.FindAllStringSubmatch(text, -1) {
		out = append(out, rule{m[1], strings.Trim(m[2], `"`), !slices.Contains(fixed, suffix), aspect})
	}
	return out
}
