# The attestation policy of booted guests: a TPM whose key was enrolled quotes a
# kernel, its command line and initrd, and init-data that were all foreseen.
package policy

import rego.v1

# PCR 4 holds the kernel, PCR 5 the partitions of the disk that it came from, PCR 9
# command line and initrd, PCR 11 the sections of a unified kernel image, PCR 7 the
# state of Secure Boot: as they were predicted when the image was built. PCR 8 holds the
# init-data, which is the pod's.
wanted := {
	"pcr04": "tpm_pcr04",
	"pcr05": "tpm_pcr05",
	"pcr07": "tpm_pcr07",
	"pcr08": "pod_pcr08",
	"pcr09": "tpm_pcr09",
	"pcr11": "tpm_pcr11",
}

foreseen contains register if {
	some register, name in wanted
	input.tpm[register] in query_reference_value(name)
}

default executables := 33

executables := 3 if object.keys(wanted) == foreseen

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
	"claim": concat(".", ["tpm", register]),
	"seen": input.tpm[register],
	"wanted": query_reference_value(name),
	"rule": "executables",
} if {
	some register, name in wanted
	not register in foreseen
}

explain contains {
	"claim": "tpm.ak_trust",
	"seen": input.tpm.ak_trust,
	"wanted": ["enrolled"],
	"rule": "hardware",
} if {
	hardware != 2
}
