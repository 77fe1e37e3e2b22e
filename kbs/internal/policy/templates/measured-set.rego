# Only guests whose launch measurement is in one of some reference values.
# kind resource
# set references: names of reference values, each a list of measurements

package policy

import rego.v1

# Simulated roots that are good enough, by the name that the broker's
# configuration gives them. None, unless you write one here.
accepted_simulated_roots := set()

references := {"snp_launch_measurement"}

default allow := false

allow if {
	affirming
	measured
}

measured if {
	some name in references
	measurement in query_reference_value(name)
}

# What each platform calls the measurement of what it started.
places := [
	["snp", "measurement"],
	["az-snp-vtpm", "measurement"],
	["tdx", "quote", "body", "mr_td"],
	["az-tdx-vtpm", "quote", "body", "mr_td"],
	["se", "image_phkh"],
	["tpm", "pcr11"],
	["sample", "launch_digest"],
]

measurement := found[0] if {
	found := [seen | some place in places; seen := object.get(evidence, place, null); seen != null]
}

evidence := object.get(input, ["submods", "cpu0", "ear.veraison.annotated-evidence"], {})

# Every part of the guest was found affirming, on hardware that is real.
affirming if {
	count(input.submods) > 0
	every submod in input.submods {
		submod["ear.status"] == "affirming"
		root_accepted(submod)
	}
}

root_accepted(submod) if not submod["ear.vouchsafe.simulated-root"]

root_accepted(submod) if submod["ear.vouchsafe.simulated-root"] in accepted_simulated_roots

# --- why not: evaluated only to explain a refusal to an administrator ---------

explain contains finding if {
	some name, submod in input.submods
	status := object.get(submod, "ear.status", null)
	status != "affirming"
	finding := {"claim": sprintf("%s.ear.status", [name]), "seen": status, "wanted": ["affirming"], "rule": "affirming"}
}

explain contains finding if {
	some name, submod in input.submods
	not root_accepted(submod)
	finding := {
		"claim": sprintf("%s.ear.vouchsafe.simulated-root", [name]),
		"seen": submod["ear.vouchsafe.simulated-root"],
		"wanted": [root | some root in accepted_simulated_roots],
		"rule": "affirming",
	}
}

explain contains finding if {
	affirming
	not measured
	finding := {
		"claim": "measurement",
		"seen": [seen | seen := measurement],
		"wanted": [value | some name in references; some value in query_reference_value(name)],
		"rule": "measured",
	}
}
