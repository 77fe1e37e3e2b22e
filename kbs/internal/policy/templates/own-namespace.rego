# A pod gets the resources whose repository is named like its namespace.
# kind resource

package policy

import rego.v1

# Simulated roots that are good enough, by the name that the broker's
# configuration gives them. None, unless you write one here.
accepted_simulated_roots := set()

default allow := false

allow if {
	affirming
	own_namespace
}

own_namespace if {
	count(containers) > 0
	every container in containers {
		namespace(container) == data["resource-path"][0]
	}
}

namespace(container) := object.get(container, ["OCI", "Annotations", "io.kubernetes.cri.sandbox-namespace"], null)

evidence := object.get(input, ["submods", "cpu0", "ear.veraison.annotated-evidence"], {})

# The containers of the pod, as the agent policy in the measured init-data
# lists them.
containers := object.get(evidence, ["init_data_claims", "agent_policy_claims", "containers"], [])

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
	not own_namespace
	finding := {
		"claim": "namespaces",
		"seen": [name | some container in containers; name := namespace(container)],
		"wanted": [data["resource-path"][0]],
		"rule": "own_namespace",
	}
}
