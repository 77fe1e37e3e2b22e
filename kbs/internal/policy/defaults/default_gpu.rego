# How a GPU is judged (kbs-protocol 9.3): by the claims of NVIDIA's remote
# attestation service, or by those of this broker's own verifier. That one cannot
# ask whether a certificate was revoked; a GPU is recognised all the same only if
# the reference value gpu_revocation says that "not-checked" is good enough.

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
		"x-nvidia-gpu-arch-check",
		"x-nvidia-gpu-attestation-report-cert-chain-fwid-match",
		"x-nvidia-gpu-attestation-report-parsed",
		"x-nvidia-gpu-attestation-report-signature-verified",
	],
	"executables": [
		"x-nvidia-gpu-driver-rim-fetched",
		"x-nvidia-gpu-driver-rim-measurements-available",
		"x-nvidia-gpu-driver-rim-schema-validated",
		"x-nvidia-gpu-driver-rim-signature-verified",
		"x-nvidia-gpu-driver-rim-version-match",
		"x-nvidia-gpu-vbios-rim-fetched",
		"x-nvidia-gpu-vbios-rim-measurements-available",
		"x-nvidia-gpu-vbios-rim-schema-validated",
		"x-nvidia-gpu-vbios-rim-signature-verified",
		"x-nvidia-gpu-vbios-rim-version-match",
	],
	"configuration": ["secboot"],
}

# Certificate chains that must be valid and not revoked.
chains := {
	"hardware": ["x-nvidia-gpu-attestation-report-cert-chain"],
	"executables": ["x-nvidia-gpu-vbios-rim-cert-chain"],
	"configuration": [],
}

fixed := {
	"hardware": {},
	"executables": {"measres": "success"},
	"configuration": {"dbgstat": "disabled"},
}

versions := {
	"x-nvidia-gpu-vbios-version": "allowed_vbios_versions",
	"x-nvidia-gpu-driver-version": "allowed_driver_versions",
}

# The same of this broker's own verifier. Which measurements are good, its
# configuration says (manifests of driver and VBIOS).
local_fixed := {"measres": "success"}

local_hardware := {"revocation": "gpu_revocation"}

local_versions := {
	"vbios_version": "allowed_vbios_versions",
	"driver_version": "allowed_driver_versions",
}

executables := 3 if holds("executables")

executables := 3 if sample_device

executables := 3 if {
	locally_verified
	all_are(input.nvidia, local_fixed)
}

hardware := 2 if {
	holds("hardware")
	root_accepted(input.nvidia)
}

hardware := 2 if {
	locally_verified
	all_match(input.nvidia, local_hardware)
	root_accepted(input.nvidia)
}

hardware := 2 if {
	sample_device
	root_accepted(input.sampledevice)
}

configuration := 2 if {
	holds("configuration")
	all_match(input.nvidia, versions)
} else := 3 if {
	holds("configuration")
} else := 2 if {
	sample_device
} else := 2 if {
	locally_verified
	all_match(input.nvidia.config, local_versions)
}

# The remote service tells no measurements, only what they are worth.
locally_verified if input.nvidia.measurements

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

# A device of the test platform, if somebody registered it.
sample_device if matches(input.sampledevice.svn, "sampledevice_svn")

root_accepted(claims) if not claims.simulated_root

root_accepted(claims) if claims.simulated_root in accepted_simulated_roots

all_match(claims, names) if {
	every claim, name in names {
		matches(claims[claim], name)
	}
}

all_are(claims, values) if {
	every claim, value in values {
		claims[claim] == value
	}
}

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
	remotely_verified
	some aspect in lacking
	some claim in flags[aspect]
	claimed(claim) != true
}

explain contains finding(claim, [value], aspect) if {
	remotely_verified
	some aspect in lacking
	some claim, value in fixed[aspect]
	claimed(claim) != value
}

explain contains found if {
	remotely_verified
	some aspect in lacking
	some chain in chains[aspect]
	some member, value in {"x-nvidia-cert-status": "valid", "x-nvidia-cert-ocsp-status": "good"}
	seen := object.get(input.nvidia, [chain, member], null)
	seen != value
	found := {"claim": sprintf("%s.%s", [chain, member]), "seen": seen, "wanted": [value], "rule": aspect}
}

explain contains finding(claim, [value], "executables") if {
	locally_verified
	"executables" in lacking
	some claim, value in local_fixed
	claimed(claim) != value
}

explain contains found if {
	locally_verified
	some [aspect, place, names] in [["hardware", [], local_hardware], ["configuration", ["config"], local_versions]]
	aspect in lacking
	some claim, name in names
	path := array.concat(place, [claim])
	seen := object.get(input.nvidia, path, null)
	not matches(seen, name)
	found := {
		"claim": concat(".", path), "seen": seen, "rule": aspect,
		"wanted": query_reference_value(name), "reference": name,
	}
}

explain contains found if {
	some device in ["nvidia", "sampledevice"]
	claims := input[device]
	not root_accepted(claims)
	found := {
		"claim": "simulated_root", "seen": claims.simulated_root, "rule": "hardware",
		"wanted": [name | some name in accepted_simulated_roots],
	}
}

explain contains found if {
	input.sampledevice
	not sample_device
	found := {
		"claim": "svn", "seen": object.get(input.sampledevice, "svn", null), "rule": "hardware",
		"wanted": query_reference_value("sampledevice_svn"), "reference": "sampledevice_svn",
	}
}

remotely_verified if {
	input.nvidia
	not locally_verified
}

claimed(claim) := object.get(input.nvidia, claim, null)

finding(claim, wanted, aspect) := {"claim": claim, "seen": claimed(claim), "wanted": wanted, "rule": aspect}
