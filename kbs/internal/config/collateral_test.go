package config

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestCollateral(t *testing.T) {
	for name, c := range map[string]struct {
		text, want string
		insecure   []string
	}{
		"files alone":         {text: "enabled = true\nfiles = ['/a', '/b']\ngrace_hours = 24\n"},
		"vendors":             {text: "enabled = true\n[collateral.intel]\nservice = 'https://api.trustedservices.intel.com'\n[collateral.amd]\nservice = 'https://kdsintf.amd.com'\n"},
		"a cache on loopback": {text: "enabled = true\n[collateral.intel]\nservice = 'http://127.0.0.1:8081'\nearly = true\nca_file = '/ca.pem'\n"},
		"without TLS":         {text: "enabled = true\n[collateral.amd]\nservice = 'http://kds.example'\n", want: "collateral.amd.service: must have TLS"},
		"without TLS, named": {
			text:     "enabled = true\n[collateral.amd]\nservice = 'http://kds.example'\ninsecure_http = true\n[collateral.intel]\nservice = 'http://pccs.example'\ninsecure_http = true\n",
			insecure: []string{"collateral.intel.insecure_http", "collateral.amd.insecure_http"},
		},
		"not enabled":            {text: "files = ['/a']\n", want: "enabled is false"},
		"no address":             {text: "enabled = true\n[collateral.intel]\nservice = 'pccs'\n", want: "is not an http or https address"},
		"settings of nobody":     {text: "enabled = true\n[collateral.intel]\nearly = true\n", want: "collateral.intel.service: must be set"},
		"settings of nobody too": {text: "enabled = true\n[collateral.amd]\nca_file = '/x'\n", want: "collateral.amd.service: must be set"},
		"grace for ever":         {text: "enabled = true\ngrace_hours = 100000\n", want: "collateral.grace_hours"},
		"refreshed never":        {text: "enabled = true\nrefresh_hours = 0\n", want: "collateral.refresh_hours"},
		"no directory":           {text: "enabled = true\nfiles = ['']\n", want: "collateral.files[0]: must not be empty"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Default(env(nil))
			err := Parse([]byte("[collateral]\n"+c.text), &cfg)
			if err == nil {
				err = cfg.Validate()
			}
			switch {
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, want %q in it", err, c.want)
			case c.want == "" && err != nil:
				t.Error(err)
			}
			if c.want == "" && !slices.Equal(cfg.Insecure(), c.insecure) {
				t.Errorf("insecure are %q, want %q", cfg.Insecure(), c.insecure)
			}
		})
	}
	if c := (Collateral{GraceHours: 2, RefreshHours: 3}); c.Grace() != 2*time.Hour || c.RefreshEvery() != 3*time.Hour {
		t.Error("hours are no hours")
	}
}
