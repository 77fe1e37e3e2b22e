# Only guests that were appraised by one of some attestation policies. Guests
# choose the policy themselves, so a resource must say which it accepts.
# kind resource
# set policies: ids of attestation policies, as tokens show them

package policy

import rego.v1

# Simulated roots that are good enough, by the name that the broker's
# configuration gives them. None, unless you write one here.
accepted_simulated_roots := set()

policies := {"default"}

default allow := false

allow if {
	affirming
	appraised
}

appraised if {
	every submod in input.submods {
		submod["ear.appraisal-policy-id"] in policies
	}
}

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
	some name, submod in input.submods
	seen := object.get(submod, "ear.appraisal-policy-id", null)
	not seen in policies
	finding := {
		"claim": sprintf("%s.ear.appraisal-policy-id", [name]), "seen": seen,
		"wanted": [id | some id in policies], "rule": "appraised",
	}
}
