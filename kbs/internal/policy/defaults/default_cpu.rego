# How the primary evidence of a guest is judged (kbs-protocol 9.3), for every
# platform by its own rules. Tables say which claim must be among which
# reference value; the explanations at the end read the same tables.
#
# Without reference values no guest is affirming, save where the platform itself
# is the only proof (se). docs/reference/platforms.md tells what the claims of a
# platform prove. Change a copy of this text with
#   kbsctl apply -f POLICY

package policy

import rego.v1

# Simulated roots that are good enough, by the name that the broker's
# configuration gives them. None, unless you write one here.
accepted_simulated_roots := set()

default executables := 33 # unrecognised

default hardware := 97 # not recognised, though it should be

default configuration := 36 # not available

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

# --- AMD SEV-SNP --------------------------------------------------------------

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

# No debugger and no migration agent can reach into the guest.
snp_closed := {"policy_debug_allowed": false, "policy_migrate_ma": false}

executables := 3 if all_match(input.snp, snp_executables)

hardware := 2 if {
	all_match(input.snp, snp_hardware)
	root_accepted(input.snp)
}

configuration := 2 if {
	all_are(input.snp, snp_closed)
	all_match(input.snp, snp_configuration)
} else := 3 if {
	all_are(input.snp, snp_closed)
}

# --- Intel TDX ----------------------------------------------------------------

tdx_executables := {"rtmr_1": "rtmr_1", "rtmr_2": "rtmr_2"}

tdx_hardware := {"mr_td": "mr_td"}

tdx_configuration := {"xfam": "xfam"}

tdx_header := {"tee_type": "81000000", "vendor_id": "939a7233f79c4ca9940a0db3957f0607"}

tdx_collateral := {"tcb_status": "UpToDate", "collateral_expiration_status": "0"}

tdx_closed := {"debug": false}

executables := 3 if {
	all_match(input.tdx.quote.body, tdx_executables)
	tdx_boot_recognised
} else := 4 if {
	all_match(input.tdx.quote.body, tdx_executables)
}

hardware := 2 if {
	all_are(input.tdx.quote.header, tdx_header)
	all_are(input.tdx, tdx_collateral)
	all_match(input.tdx.quote.body, tdx_hardware)
	root_accepted(input.tdx)
}

configuration := 2 if {
	all_are(input.tdx.td_attributes, tdx_closed)
	all_match(input.tdx.quote.body, tdx_configuration)
}

# The event log was replayed against the RTMRs by the verifier.
tdx_boot_recognised if {
	some kernel in input.tdx.uefi_event_logs
	kernel.type_name == "EV_EFI_BOOT_SERVICES_APPLICATION"
	"File(kernel)" in kernel.details.device_paths
	matches(kernel.digests[_].digest, "tdvfkernel")

	some parameters in input.tdx.uefi_event_logs
	parameters.type_name == "EV_EVENT_TAG"
	parameters.details.string == "LOADED_IMAGE::LoadOptions"
	matches(parameters.digests[_].digest, "tdvfkernelparams")
}

# --- Intel SGX: the field has no rule, this one is ours ----------------------

sgx_executables := {"mr_enclave": "sgx_mr_enclave"}

sgx_configuration := {"attributes.flags": "sgx_attributes_flags", "attributes.xfrm": "sgx_attributes_xfrm"}

sgx_closed := {"debug": false}

executables := 3 if all_match(input.sgx.body, sgx_executables)

hardware := 2 if {
	all_are(input.sgx, tdx_collateral)
	root_accepted(input.sgx)
}

configuration := 2 if {
	all_are(input.sgx, sgx_closed)
	all_match(input.sgx.body, sgx_configuration)
} else := 3 if {
	all_are(input.sgx, sgx_closed)
}

# --- Azure: SNP behind a vTPM -------------------------------------------------

# Every value of this platform is a string, and its measurement is base64.
az_snp_executables := {"measurement": "measurement"}

az_snp_boot := {"pcr11": "snp_pcr11"}

az_snp_hardware := {
	"reported_tcb_bootloader": "tcb_bootloader",
	"reported_tcb_microcode": "tcb_microcode",
	"reported_tcb_snp": "tcb_snp",
	"reported_tcb_tee": "tcb_tee",
}

az_snp_configuration := {
	"platform_smt_enabled": "smt_enabled",
	"platform_tsme_enabled": "tsme_enabled",
	"policy_abi_major": "abi_major",
	"policy_abi_minor": "abi_minor",
	"policy_single_socket": "single_socket",
	"policy_smt_allowed": "smt_allowed",
}

# The field's policy does not ask this of the two Azure platforms; ours does.
az_snp_closed := {"policy_debug_allowed": "false", "policy_migrate_ma": "false"}

executables := 3 if {
	all_match(input["az-snp-vtpm"], az_snp_executables)
	all_match(input["az-snp-vtpm"].tpm, az_snp_boot)
}

hardware := 2 if {
	all_match(input["az-snp-vtpm"], az_snp_hardware)
	root_accepted(input["az-snp-vtpm"])
}

configuration := 2 if {
	all_are(input["az-snp-vtpm"], az_snp_closed)
	all_match(input["az-snp-vtpm"], az_snp_configuration)
}

# --- Azure: TDX behind a vTPM -------------------------------------------------

az_tdx_boot := {"pcr11": "tdx_pcr11"}

az_tdx_collateral := {"tcb_status": "UpToDate"}

executables := 3 if all_match(input["az-tdx-vtpm"].tpm, az_tdx_boot)

hardware := 2 if {
	all_are(input["az-tdx-vtpm"].quote.header, tdx_header)
	all_are(input["az-tdx-vtpm"], az_tdx_collateral)
	all_match(input["az-tdx-vtpm"].quote.body, tdx_hardware)
	root_accepted(input["az-tdx-vtpm"])
}

configuration := 2 if {
	all_are(input["az-tdx-vtpm"].td_attributes, tdx_closed)
	all_match(input["az-tdx-vtpm"].quote.body, tdx_configuration)
}

# --- TPM ----------------------------------------------------------------------

# A TPM is what its attestation key says it is. Unlike in the field's policy,
# the hardware is recognised only by its key, or by why the broker's
# configuration trusts the key ("enrolled" or "certified").
tpm_hardware := {"ak_public": "trusted_aks"}

tpm_vouched := {"ak_trust": "tpm_ak_trust"}

tpm_boot := {"pcr11": "tpm_pcr11"}

tpm_recognised if all_match(input.tpm, tpm_hardware)

tpm_recognised if all_match(input.tpm, tpm_vouched)

executables := 3 if {
	tpm_recognised
	all_match(input.tpm, tpm_boot)
}

hardware := 2 if {
	tpm_recognised
	root_accepted(input.tpm)
}

configuration := 0 if input.tpm

# --- Arm CCA: the field has no rule, this one is ours ------------------------

cca_executables := {"cca-realm-initial-measurement": "cca_realm_initial_measurement"}

cca_hardware := {"cca-platform-implementation-id": "cca_platform_implementation_id"}

# Every piece of firmware that the platform names must be known.
cca_firmware := {"measurement-value": "cca_platform_sw_components"}

cca_configuration := {"cca-platform-config": "cca_platform_config"}

cca_closed := {"cca-platform-lifecycle-state": "secured"}

executables := 3 if all_match(input.cca.realm, cca_executables)

hardware := 2 if {
	all_match(input.cca.platform, cca_hardware)
	count(input.cca.platform["cca-platform-sw-components"]) > 0
	every component in input.cca.platform["cca-platform-sw-components"] {
		all_match(component, cca_firmware)
	}
	root_accepted(input.cca)
}

configuration := 2 if {
	all_are(input.cca.platform, cca_closed)
	all_match(input.cca.platform, cca_configuration)
} else := 3 if {
	all_are(input.cca.platform, cca_closed)
}

# --- IBM Secure Execution: opened only with keys of the guest's owner ---------

executables := 3 if input.se

hardware := 2 if {
	input.se
	root_accepted(input.se)
}

configuration := 2 if input.se

# --- sample: no hardware at all, contraindicated unless asked for -------------

sample_executables := {"launch_digest": "launch_digest"}

sample_hardware := {"svn": "svn"}

sample_version := {"major": "major_version"}

sample_least := {"minor": "minimum_minor_version"}

sample_closed := {"debug": false}

executables := 3 if all_match(input.sample, sample_executables)

hardware := 2 if {
	all_match(input.sample, sample_hardware)
	all_match(input.sample.platform_version, sample_version)
	all_reach(input.sample.platform_version, sample_least)
	root_accepted(input.sample)
}

configuration := 2 if all_are(input.sample, sample_closed)

# csv and what nobody knows: no rule, so contraindicated.

# --- words --------------------------------------------------------------------

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

all_reach(claims, names) if {
	every claim, name in names {
		reaches(claims[claim], name)
	}
}

# A reference value is a list of good values, or the only good value.
matches(seen, name) if seen in query_reference_value(name)

matches(seen, name) if {
	wanted := query_reference_value(name)
	wanted != null # an absent value matches nothing, not even null
	seen == wanted
}

reaches(seen, name) if {
	least := query_reference_value(name)
	is_number(least) # in Rego every number is greater than null
	is_number(seen)
	seen >= least
}

root_accepted(claims) if not claims.simulated_root

root_accepted(claims) if claims.simulated_root in accepted_simulated_roots

# --- what the token tells beside the vector -----------------------------------

containers := object.get(input, ["init_data_claims", "agent_policy_claims", "containers"], [])

images := [i | some c in containers; i := c.OCI.Annotations["io.kubernetes.cri.image-name"]]

uids := [u | some c in containers; u := c.OCI.Process.User.UID]

validated := {k: v |
	some k, v in {"container_images": images, "container_uids": uids}
	count(v) > 0
}

extensions := [{"name": "ear.trustee.identifiers", "key": -18, "value": {"validated": validated}}]

# --- why not: evaluated only to explain a refusal to an administrator ---------

platforms := {"snp", "tdx", "sgx", "az-snp-vtpm", "az-tdx-vtpm", "tpm", "cca", "se", "sample"}

lacking contains aspect if {
	some aspect, value in {"executables": executables, "hardware": hardware, "configuration": configuration}
	value > 31 # not affirming
}

# What was asked: the aspect, where the claims are, and the table.
asked contains ["executables", ["snp"], snp_executables]

asked contains ["hardware", ["snp"], snp_hardware]

asked contains ["executables", ["tdx", "quote", "body"], tdx_executables]

asked contains ["hardware", [tdx, "quote", "body"], tdx_hardware] if some tdx in {"tdx", "az-tdx-vtpm"}

asked contains ["configuration", [tdx, "quote", "body"], tdx_configuration] if some tdx in {"tdx", "az-tdx-vtpm"}

asked contains ["executables", ["az-snp-vtpm"], az_snp_executables]

asked contains ["executables", ["az-snp-vtpm", "tpm"], az_snp_boot]

asked contains ["hardware", ["az-snp-vtpm"], az_snp_hardware]

asked contains ["configuration", ["az-snp-vtpm"], az_snp_configuration]

asked contains ["executables", ["az-tdx-vtpm", "tpm"], az_tdx_boot]

asked contains ["executables", ["tpm"], object.union(tpm_hardware, tpm_boot)]

asked contains ["hardware", ["tpm"], tpm_hardware]

asked contains ["executables", ["sgx", "body"], sgx_executables]

asked contains ["executables", ["cca", "realm"], cca_executables]

asked contains ["hardware", ["cca", "platform"], cca_hardware]

asked contains ["hardware", ["cca", "platform", "cca-platform-sw-components", i], cca_firmware] if {
	some i, _ in input.cca.platform["cca-platform-sw-components"]
}

asked contains ["executables", ["sample"], sample_executables]

asked contains ["hardware", ["sample"], sample_hardware]

asked contains ["hardware", ["sample", "platform_version"], sample_version]

fixed contains ["configuration", ["snp"], snp_closed]

fixed contains ["hardware", ["tdx"], tdx_collateral]

fixed contains ["hardware", ["az-tdx-vtpm"], az_tdx_collateral]

fixed contains ["hardware", [tdx, "quote", "header"], tdx_header] if some tdx in {"tdx", "az-tdx-vtpm"}

fixed contains ["configuration", [tdx, "td_attributes"], tdx_closed] if some tdx in {"tdx", "az-tdx-vtpm"}

fixed contains ["hardware", ["sgx"], tdx_collateral]

fixed contains ["configuration", ["sgx"], sgx_closed]

fixed contains ["configuration", ["cca", "platform"], cca_closed]

fixed contains ["configuration", ["az-snp-vtpm"], az_snp_closed]

fixed contains ["configuration", ["sample"], sample_closed]

explain contains finding if {
	some [aspect, place, names] in asked
	input[place[0]]
	aspect in lacking
	some claim, name in names
	path := array.concat(place, [claim])
	seen := object.get(input, path, null)
	not matches(seen, name)
	finding := {
		"claim": spelled(path), "seen": seen, "wanted": query_reference_value(name),
		"reference": name, "rule": aspect,
	}
}

explain contains finding if {
	some [aspect, place, values] in fixed
	input[place[0]]
	aspect in lacking
	some claim, value in values
	path := array.concat(place, [claim])
	seen := object.get(input, path, null)
	seen != value
	finding := {"claim": spelled(path), "seen": seen, "wanted": [value], "rule": aspect}
}

explain contains finding if {
	input.sample
	"hardware" in lacking
	some claim, name in sample_least
	seen := object.get(input.sample, ["platform_version", claim], null)
	not reaches(seen, name)
	finding := {
		"claim": sprintf("platform_version.%s", [claim]), "seen": seen, "reference": name, "rule": "hardware",
		"wanted": [sprintf(">= %v", [least]) | least := query_reference_value(name); least != null],
	}
}

explain contains finding if {
	some platform in platforms
	not root_accepted(input[platform])
	finding := {
		"claim": "simulated_root",
		"seen": input[platform].simulated_root,
		"wanted": [name | some name in accepted_simulated_roots],
		"rule": "hardware",
	}
}

explain contains finding if {
	count(platforms & object.keys(input)) == 0
	finding := {
		"claim": "platform",
		"seen": concat(", ", [name | some name, value in input; is_object(value); not endswith(name, "_claims")]),
		"wanted": platforms,
		"rule": "hardware",
	}
}

# The platform's own member goes without saying.
spelled(path) := concat(".", [sprintf("%v", [p]) | some p in array.slice(path, 1, count(path))])
