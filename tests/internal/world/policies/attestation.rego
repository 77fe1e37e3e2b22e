# The demo's attestation policy: a guest is affirmed if its launch measurement
# is a reference value, nobody can debug or migrate it, and its chain ends in
# AMD's roots or in the one simulated root that this policy names.
package policy

import rego.v1

accepted_simulated_roots := {"demo"}

default executables := 33

executables := 3 if input.snp.measurement in query_reference_value("snp_launch_measurement")

default hardware := 97

hardware := 2 if not input.snp.simulated_root

hardware := 2 if input.snp.simulated_root in accepted_simulated_roots

default configuration := 36

configuration := 2 if {
	input.snp.policy_debug_allowed == false
	input.snp.policy_migrate_ma == false
}

trust_claims := {
	"executables": executables,
	"hardware": hardware,
	"configuration": configuration,
}

# Why not: evaluated only to explain a refusal to an administrator.
explain contains {
	"claim": "snp.measurement",
	"seen": input.snp.measurement,
	"wanted": query_reference_value("snp_launch_measurement"),
	"rule": "executables",
} if {
	executables != 3
}

explain contains {
	"claim": "snp.simulated_root",
	"seen": input.snp.simulated_root,
	"wanted": [name | some name in accepted_simulated_roots],
	"rule": "hardware",
} if {
	hardware != 2
}
