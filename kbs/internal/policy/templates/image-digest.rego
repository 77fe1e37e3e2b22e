# Only guests in which nothing but some images may run, named by digest.
# kind resource
# set digests: the images' digests, each like sha256:0f3a...

package policy

import rego.v1

# Simulated roots that are good enough, by the name that the broker's
# configuration gives them. None, unless you write one here.
accepted_simulated_roots := set()

digests := {"sha256:0000000000000000000000000000000000000000000000000000000000000000"}

default allow := false

allow if {
	affirming
	images_allowed
}

images_allowed if {
	count(containers) > 0
	every container in containers {
		image_allowed(container)
	}
}

image_allowed(container) if {
	some digest in digests
	endswith(image(container), sprintf("@%s", [digest]))
}

image(container) := object.get(container, ["OCI", "Annotations", "io.kubernetes.cri.image-name"], "")

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
	not images_allowed
	finding := {
		"claim": "container_images",
		"seen": [name | some container in containers; name := image(container)],
		"wanted": [digest | some digest in digests],
		"rule": "images_allowed",
	}
}
