# The demo's resource policy: an affirmed guest gets the things that the demo's
# pod needs, and nothing else.
package policy

import rego.v1

default allow := false

needed := {
	["default", "security-policy", "demo"],
	["default", "cosign-public-key", "demo"],
	["default", "image-kek", "nginx"],
	["default", "demo", "greeting"],
	["default", "demo", "challenge"],
	["default", "signing", "owner"],
	["default", "volume", "data"],
}

allow if {
	data.plugin == "resource"
	data["resource-path"] in needed
	input.submods.cpu0["ear.status"] == "affirming"
}
