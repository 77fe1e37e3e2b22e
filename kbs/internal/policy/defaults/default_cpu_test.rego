package policy_test

import data.policy
import rego.v1

good_values := {
	"snp_launch_measurement": ["aa11", "bb22"],
	"snp_bootloader": [10],
	"snp_microcode": [25],
	"snp_snp_svn": [23],
	"snp_tee_svn": [0],
	"snp_smt_enabled": [true],
	"snp_tsme_enabled": [false],
	"snp_guest_abi_major": [0],
	"snp_guest_abi_minor": [0],
	"snp_single_socket": [false],
	"snp_smt_allowed": [true],
}

lookup(name) := object.get(good_values, name, null)

nothing(_) := null

guest := {"snp": {
	"measurement": "aa11",
	"reported_tcb_bootloader": 10,
	"reported_tcb_microcode": 25,
	"reported_tcb_snp": 23,
	"reported_tcb_tee": 0,
	"platform_smt_enabled": true,
	"platform_tsme_enabled": false,
	"policy_abi_major": 0,
	"policy_abi_minor": 0,
	"policy_single_socket": false,
	"policy_smt_allowed": true,
	"policy_debug_allowed": false,
	"policy_migrate_ma": false,
}}

altered(changes) := {"snp": object.union(guest.snp, changes)}

test_known_guest if {
	claims := policy.trust_claims with input as guest with query_reference_value as lookup
	[claims.executables, claims.hardware, claims.configuration] == [3, 2, 2]
}

test_no_reference_values if {
	claims := policy.trust_claims with input as guest with query_reference_value as nothing
	[claims.executables, claims.hardware, claims.configuration] == [33, 97, 3]
}

test_null_claims_match_nothing if {
	claims := policy.trust_claims with input as altered({"measurement": null, "reported_tcb_snp": null})
		with query_reference_value as nothing
	[claims.executables, claims.hardware] == [33, 97]
}

test_other_measurement if {
	claims := policy.trust_claims with input as altered({"measurement": "cc33"}) with query_reference_value as lookup
	[claims.executables, claims.hardware] == [33, 2]
}

test_single_value_instead_of_list if {
	claims := policy.trust_claims with input as guest with query_reference_value as single_lookup
	claims.executables == 3
}

single_lookup(name) := object.get(object.union(good_values, {"snp_launch_measurement": "aa11"}), name, null)

test_types_are_kept if {
	claims := policy.trust_claims with input as altered({"reported_tcb_snp": "23"}) with query_reference_value as lookup
	claims.hardware == 97
}

test_each_tcb_part_counts if {
	every part in ["bootloader", "microcode", "snp", "tee"] {
		claims := policy.trust_claims with input as altered({sprintf("reported_tcb_%s", [part]): 99})
			with query_reference_value as lookup
		claims.hardware == 97
	}
}

test_missing_claim if {
	claims := policy.trust_claims with input as {"snp": object.remove(guest.snp, ["reported_tcb_tee"])}
		with query_reference_value as lookup
	claims.hardware == 97
}

test_debug_and_migration if {
	every flag in ["policy_debug_allowed", "policy_migrate_ma"] {
		claims := policy.trust_claims with input as altered({flag: true}) with query_reference_value as lookup
		claims.configuration == 36
	}
}

test_closed_but_unlisted_configuration if {
	claims := policy.trust_claims with input as altered({"policy_single_socket": true}) with query_reference_value as lookup
	claims.configuration == 3
}

test_simulated_root_is_refused if {
	claims := policy.trust_claims with input as altered({"simulated_root": "lab"}) with query_reference_value as lookup
	[claims.executables, claims.hardware] == [3, 97]
}

test_simulated_root_with_empty_name_is_refused if {
	claims := policy.trust_claims with input as altered({"simulated_root": ""}) with query_reference_value as lookup
	claims.hardware == 97
}

test_simulated_root_that_is_named if {
	claims := policy.trust_claims with input as altered({"simulated_root": "lab"})
		with query_reference_value as lookup
		with policy.accepted_simulated_roots as {"lab"}
	claims.hardware == 2
}

test_simulated_root_that_is_not_the_named_one if {
	claims := policy.trust_claims with input as altered({"simulated_root": "other"})
		with query_reference_value as lookup
		with policy.accepted_simulated_roots as {"lab"}
	claims.hardware == 97
}

sample := {"sample": {
	"svn": "1", "launch_digest": "abcde",
	"platform_version": {"major": 1, "minor": 4}, "debug": false,
}}

sample_values(name) := object.get(
	{
		"svn": ["1"], "launch_digest": ["abcde"], "major_version": [1], "minimum_minor_version": 4,
	},
	name, null,
)

test_sample_is_contraindicated if {
	claims := policy.trust_claims with input as sample with query_reference_value as nothing
	[claims.executables, claims.hardware] == [33, 97]
}

test_sample_with_values if {
	claims := policy.trust_claims with input as sample with query_reference_value as sample_values
	[claims.executables, claims.hardware, claims.configuration] == [3, 2, 2]
}

only_minor_missing(name) := object.get({"svn": ["1"], "major_version": [1]}, name, null)

test_sample_minor_version_needs_a_value if {
	claims := policy.trust_claims with input as sample with query_reference_value as only_minor_missing
	claims.hardware == 97
}

test_unknown_platform if {
	claims := policy.trust_claims with input as {"tdx": {}} with query_reference_value as lookup
	[claims.executables, claims.hardware, claims.configuration] == [33, 97, 36]
}

test_identifiers if {
	agent := {"containers": [{"OCI": {
		"Annotations": {"io.kubernetes.cri.image-name": "registry.example/app:1"},
		"Process": {"User": {"UID": 1000}},
	}}]}
	exts := policy.extensions with input as {"init_data_claims": {"agent_policy_claims": agent}}
	exts[0].name == "ear.trustee.identifiers"
	exts[0].value == {"validated": {"container_images": ["registry.example/app:1"], "container_uids": [1000]}}
}

test_identifiers_without_init_data if {
	exts := policy.extensions with input as {"init_data_claims": null}
	exts[0].value == {"validated": {}}
}

test_explain_measurement if {
	found := policy.explain with input as altered({"measurement": "cc33"}) with query_reference_value as lookup
	found == {{
		"claim": "measurement", "seen": "cc33", "wanted": ["aa11", "bb22"],
		"reference": "snp_launch_measurement", "rule": "executables",
	}}
}

test_explain_debug_and_root if {
	found := policy.explain with input as altered({"policy_debug_allowed": true, "simulated_root": "lab"})
		with query_reference_value as lookup
	{f.claim | some f in found} == {"policy_debug_allowed", "simulated_root"}
}

test_nothing_to_explain if {
	found := policy.explain with input as guest with query_reference_value as lookup
	count(found) == 0
}
