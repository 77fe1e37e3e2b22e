# How the primary evidence of a guest is judged (kbs-protocol 9.3).
#
# Every value comes from the reference values: without any, a guest is
# contraindicated. Change a copy of this text with
#   kbsctl apply -f POLICY

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

# A reference value is a list of good values, or the only good value.
matches(seen, name) if seen in query_reference_value(name)

matches(seen, name) if {
	wanted := query_reference_value(name)
	wanted != null # an absent value matches nothing, not even null
	seen == wanted
}

all_match(claims, names) if {
	every claim, name in names {
		matches(claims[claim], name)
	}
}

# --- AMD SEV-SNP -------------------------------------------------------------

snp_executables := {"measurement": "snp_launch_measurement"}

snp_hardware := {
	"reported_tcb_bootloader": "snp_bootloader",
	"reported_tcb_microcode": "snp_microcode",
	"reported_tcb_snp": "snp_snp_svn",
	"reported_tcb_tee": "snp_tee_svn",
}

snp_configuration := {
	"platform_smt_enabled": "snp_smt_enabled",
	"platform_tsme_enabled": "snp_tsme_enabled",
	"policy_abi_major": "snp_guest_abi_major",
	"policy_abi_minor": "snp_guest_abi_minor",
	"policy_single_socket": "snp_single_socket",
	"policy_smt_allowed": "snp_smt_allowed",
}

executables := 3 if {
	input.snp
	all_match(input.snp, snp_executables)
}

hardware := 2 if {
	input.snp
	root_accepted
	all_match(input.snp, snp_hardware)
}

configuration := 2 if {
	snp_closed
	all_match(input.snp, snp_configuration)
} else := 3 if {
	snp_closed
}

# No debugger and no migration agent can reach into the guest.
snp_closed if {
	input.snp.policy_debug_allowed == false
	input.snp.policy_migrate_ma == false
}

root_accepted if not input.snp.simulated_root

root_accepted if input.snp.simulated_root in accepted_simulated_roots

# --- sample: no hardware at all, contraindicated unless asked for ------------

executables := 3 if {
	input.sample
	matches(input.sample.launch_digest, "launch_digest")
}

hardware := 2 if {
	input.sample
	matches(input.sample.svn, "svn")
	matches(input.sample.platform_version.major, "major_version")
	minimum := query_reference_value("minimum_minor_version")
	is_number(minimum) # in Rego every number is greater than null
	input.sample.platform_version.minor >= minimum
}

configuration := 2 if input.sample.debug == false

# --- what the token tells beside the vector ----------------------------------

containers := object.get(input, ["init_data_claims", "agent_policy_claims", "containers"], [])

images := [i | some c in containers; i := c.OCI.Annotations["io.kubernetes.cri.image-name"]]

uids := [u | some c in containers; u := c.OCI.Process.User.UID]

validated := {k: v |
	some k, v in {"container_images": images, "container_uids": uids}
	count(v) > 0
}

extensions := [{"name": "ear.trustee.identifiers", "key": -18, "value": {"validated": validated}}]

# --- why not: evaluated only to explain a refusal to an administrator --------

explain contains finding(claim, name, "executables") if {
	some claim, name in snp_executables
	unmatched(claim, name)
}

explain contains finding(claim, name, "hardware") if {
	some claim, name in snp_hardware
	unmatched(claim, name)
}

explain contains finding if {
	input.snp
	not root_accepted
	finding := {
		"claim": "simulated_root",
		"seen": input.snp.simulated_root,
		"wanted": [name | some name in accepted_simulated_roots],
		"rule": "hardware",
	}
}

explain contains finding if {
	some claim in ["policy_debug_allowed", "policy_migrate_ma"]
	input.snp
	object.get(input.snp, claim, null) != false
	finding := {"claim": claim, "seen": object.get(input.snp, claim, null), "wanted": [false], "rule": "configuration"}
}

unmatched(claim, name) if {
	input.snp
	not matches(input.snp[claim], name)
}

finding(claim, name, rule) := {
	"claim": claim,
	"seen": object.get(input.snp, claim, null),
	"wanted": query_reference_value(name),
	"reference": name,
	"rule": rule,
}
