# The attestation policy of booted guests whose kernel measures what it executes, and
# what it says of itself (ima_policy=tcb|critical_data): what booted was foreseen, as in
# machine.rego, every agent that was executed is the one that was built, and the
# kernel is of the version that was.
package policy

import rego.v1

wanted := {
	"pcr04": "measured_pcr04",
	"pcr07": "measured_pcr07",
	"pcr08": "pod_pcr08",
	"pcr09": "measured_pcr09",
}

foreseen contains register if {
	some register, name in wanted
	input.tpm[register] in query_reference_value(name)
}

# None where no list explains PCR 10.
agents := {f.digest | some f in input.tpm.ima.files; f.path == "/usr/bin/guest-agent"}

kernels := {b.digest | some b in input.tpm.ima.buffers; b.name == "kernel_version"}

default executables := 33

executables := 3 if {
	object.keys(wanted) == foreseen
	count(agents) > 0
	every digest in agents {
		digest in query_reference_value("agent")
	}
	kernels == {k | some k in query_reference_value("kernel")}
}

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
	"claim": "tpm.ima.files",
	"seen": concat(" ", agents),
	"wanted": query_reference_value("agent"),
	"rule": "executables",
} if {
	executables != 3
}

explain contains {
	"claim": "tpm.ima.buffers",
	"seen": concat(" ", kernels),
	"wanted": query_reference_value("kernel"),
	"rule": "executables",
} if {
	executables != 3
}
