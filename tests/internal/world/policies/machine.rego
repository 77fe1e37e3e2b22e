# The attestation policy of booted guests: a TPM whose key was enrolled quotes a
# kernel, its command line and initrd, and init-data that were all foreseen.
package policy

import rego.v1

# PCR 4 holds the kernel, PCR 9 command line and initrd, PCR 11 the sections of a
# unified kernel image, PCR 7 the state of Secure Boot, PCR 8 the init-data.
registers := {"pcr04", "pcr07", "pcr08", "pcr09", "pcr11"}

foreseen contains name if {
	some name in registers
	input.tpm[name] in query_reference_value(concat("", ["tpm_", name]))
}

default executables := 33

executables := 3 if registers == foreseen

default hardware := 97

hardware := 2 if input.tpm.ak_trust == "enrolled"

default configuration := 36

configuration := 2 if input.tpm

trust_claims := {
	"executables": executables,
	"hardware": hardware,
	"configuration": configuration,
}

# Why not: evaluated only to explain a refusal to an administrator.
explain contains {
	"claim": concat(".", ["tpm", name]),
	"seen": input.tpm[name],
	"wanted": query_reference_value(concat("", ["tpm_", name])),
	"rule": "executables",
} if {
	some name in registers - foreseen
}

explain contains {
	"claim": "tpm.ak_trust",
	"seen": input.tpm.ak_trust,
	"wanted": ["enrolled"],
	"rule": "hardware",
} if {
	hardware != 2
}
