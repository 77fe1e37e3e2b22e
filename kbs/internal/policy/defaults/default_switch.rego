# How a switch between GPUs is judged (kbs-protocol 9.3): by the claims of
# NVIDIA's remote attestation service.

package policy

import rego.v1

# Simulated roots that are good enough, by the name that the broker's
# configuration gives them. None, unless you write one here.
accepted_simulated_roots := set()

default executables := 33

default hardware := 97

default configuration := 36

trust_claims := {
	"instance-identity": 0,
	"configuration": configuration,
	"executables": executables,
	"file-system": 0,
	"hardware": hardware,
	"runtime-opaque": 0,
	"storage-opaque": 0,
	"sourced-data": 0,
}

# Claims that must be true, under their common beginning.
flags := {
	"hardware": [
		"x-nvidia-switch-arch-check",
		"x-nvidia-switch-attestation-report-cert-chain-fwid-match",
		"x-nvidia-switch-attestation-report-parsed",
		"x-nvidia-switch-attestation-report-signature-verified",
	],
	"executables": [
		"x-nvidia-switch-bios-rim-fetched",
		"x-nvidia-switch-bios-rim-measurements-available",
		"x-nvidia-switch-bios-rim-schema-validated",
		"x-nvidia-switch-bios-rim-signature-verified",
		"x-nvidia-switch-bios-rim-version-match",
	],
	"configuration": ["secboot"],
}

# Certificate chains that must be valid and not revoked.
chains := {
	"hardware": ["x-nvidia-switch-attestation-report-cert-chain"],
	"executables": ["x-nvidia-switch-bios-rim-cert-chain"],
	"configuration": [],
}

fixed := {
	"hardware": {},
	"executables": {"measres": "success"},
	"configuration": {"dbgstat": "disabled"},
}

versions := {"x-nvidia-switch-bios-version": "allowed_switch_bios_versions"}

executables := 3 if holds("executables")

hardware := 2 if {
	holds("hardware")
	root_accepted
}

configuration := 2 if {
	holds("configuration")
	every claim, name in versions {
		matches(input.nvidia[claim], name)
	}
} else := 3 if {
	holds("configuration")
}

holds(aspect) if {
	input.nvidia
	every claim in flags[aspect] {
		input.nvidia[claim] == true
	}
	every claim, value in fixed[aspect] {
		input.nvidia[claim] == value
	}
	every chain in chains[aspect] {
		input.nvidia[chain]["x-nvidia-cert-status"] == "valid"
		input.nvidia[chain]["x-nvidia-cert-ocsp-status"] == "good"
	}
}

root_accepted if not input.nvidia.simulated_root

root_accepted if input.nvidia.simulated_root in accepted_simulated_roots

matches(seen, name) if seen in query_reference_value(name)

matches(seen, name) if {
	wanted := query_reference_value(name)
	wanted != null
	seen == wanted
}

# --- why not: evaluated only to explain a refusal to an administrator ---------

lacking contains aspect if {
	some aspect, value in {"executables": executables, "hardware": hardware, "configuration": configuration}
	value > 31
}

explain contains finding(claim, [true], aspect) if {
	input.nvidia
	some aspect in lacking
	some claim in flags[aspect]
	claimed(claim) != true
}

explain contains finding(claim, [value], aspect) if {
	input.nvidia
	some aspect in lacking
	some claim, value in fixed[aspect]
	claimed(claim) != value
}

explain contains found if {
	input.nvidia
	some aspect in lacking
	some chain in chains[aspect]
	some member, value in {"x-nvidia-cert-status": "valid", "x-nvidia-cert-ocsp-status": "good"}
	seen := object.get(input.nvidia, [chain, member], null)
	seen != value
	found := {"claim": sprintf("%s.%s", [chain, member]), "seen": seen, "wanted": [value], "rule": aspect}
}

explain contains finding("simulated_root", [name | some name in accepted_simulated_roots], "hardware") if {
	input.nvidia
	not root_accepted
}

claimed(claim) := object.get(input.nvidia, claim, null)

finding(claim, wanted, aspect) := {"claim": claim, "seen": claimed(claim), "wanted": wanted, "rule": aspect}
