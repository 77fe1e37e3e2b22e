package policy_test

import data.policy
import rego.v1

affirming := {"submods": {"cpu0": {"ear.status": "affirming"}}}

submods(changes) := {"submods": object.union(affirming.submods, changes)}

test_affirming if {
	policy.allow with input as affirming with data.plugin as "resource"
}

test_other_plugin if {
	not policy.allow with input as affirming with data.plugin as "nebula-ca"
}

test_no_plugin if {
	not policy.allow with input as affirming
}

test_not_affirming if {
	every status in ["none", "warning", "contraindicated", "", null, true] {
		not policy.allow with input as submods({"cpu0": {"ear.status": status}}) with data.plugin as "resource"
	}
}

test_every_submod_counts if {
	not policy.allow with input as submods({"gpu0": {"ear.status": "warning"}}) with data.plugin as "resource"
	not policy.allow with input as submods({"gpu0": {}}) with data.plugin as "resource"
	policy.allow with input as submods({"gpu0": {"ear.status": "affirming"}}) with data.plugin as "resource"
}

test_no_submods if {
	not policy.allow with input as {"submods": {}} with data.plugin as "resource"
	not policy.allow with input as {} with data.plugin as "resource"
}

simulated(name) := submods({"cpu0": {"ear.status": "affirming", "ear.vouchsafe.simulated-root": name}})

test_simulated_root if {
	not policy.allow with input as simulated("lab") with data.plugin as "resource"
	not policy.allow with input as simulated("") with data.plugin as "resource"
}

test_simulated_root_that_is_named if {
	policy.allow with input as simulated("lab") with data.plugin as "resource"
		with policy.accepted_simulated_roots as {"lab"}
	not policy.allow with input as simulated("other") with data.plugin as "resource"
		with policy.accepted_simulated_roots as {"lab"}
}

test_explain_status if {
	found := policy.explain with input as submods({"cpu0": {"ear.status": "warning"}}) with data.plugin as "resource"
	found == {{"claim": "cpu0.ear.status", "seen": "warning", "wanted": ["affirming"], "rule": "allow"}}
}

test_explain_simulated_root if {
	found := policy.explain with input as simulated("lab") with data.plugin as "resource"
	{f.claim | some f in found} == {"cpu0.ear.vouchsafe.simulated-root"}
}
