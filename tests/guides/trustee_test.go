package guides

import (
	"os"
	"path/filepath"
)

// writeTrustee writes the directory "trustee" as the field's broker leaves it
// with storage of the type LocalFs (kbs-protocol 13.1, 14): a slash in a key is
// the four characters \x2F in the name of its file.
func writeTrustee(dir string) error {
	for name, text := range map[string]string{
		"kbs-config.toml": `[http_server]
sockets = ["0.0.0.0:8080"]
private_key = "/opt/confidential-containers/kbs/tls.key"
certificate = "/opt/confidential-containers/kbs/tls.crt"

[admin]
authorization_mode = "AuthenticatedAuthorization"

[admin.authentication.bearer_jwt]
identity_providers = [{ issuer = "ops", audience = "KBS", public_key_uri = "/opt/confidential-containers/kbs/admin.pub" }]

[admin.authorization.regex_acl]
acls = [{ role = "admin", allowed_endpoints = "^/kbs/v0/.*$" }]

[attestation_service]
type = "coco_as_builtin"

[attestation_service.attestation_token_broker]
duration_min = 5

[attestation_service.rvps_config]
type = "BuiltIn"

[attestation_service.verifier_config.dcap_verifier]
collateral_service = "https://api.trustedservices.intel.com/sgx/certification/v4/"

[storage_backend]
storage_type = "LocalFs"

[storage_backend.backends.local_fs]
dir_path = "/opt/confidential-containers/storage/local_fs"

[[plugins]]
name = "resource"
`,
		`storage/repository/default\x2Fdemo\x2Fcode`:   "the launch code",
		`storage/repository/default\x2Fdb\x2Fpassword`: "correct horse",
		"storage/kbs/resource-policy.rego": `package policy

import rego.v1

default allow := false

allow if {
	data.plugin == "resource"
	input["submods"]["cpu0"]["ear.status"] == "affirming"
}
`,
		"storage/attestation_service_policy/default_cpu.rego": `package policy

import rego.v1

default executables := 33

default hardware := 97

default configuration := 36

executables := 3 if {
	input.snp.measurement in query_reference_value("snp_launch_measurement")
}

hardware := 2 if {
	input.snp.reported_tcb_snp in query_reference_value("snp_tcb")
}

configuration := 2 if {
	input.snp.policy_debug_allowed == false
}

trust_claims := {"executables": executables, "hardware": hardware, "configuration": configuration}
`,
		"storage/reference_value/snp_launch_measurement": `{"version":"0.1.0","name":"snp_launch_measurement","expiration":"2099-08-21T00:00:00Z","value":["2f19c4"]}`,
		"storage/reference_value/snp_tcb":                `{"version":"0.1.0","name":"snp_tcb","expiration":"2099-08-21T00:00:00Z","value":[21,22]}`,
	} {
		path := filepath.Join(dir, "trustee", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}
