# How a group of GPUs and switches behind protected PCIe is judged (kbs-protocol
# 9.3). Its devices have appraisals of their own; this one only says that they
# form a whole.

package policy

import rego.v1

# Simulated roots that are good enough, by the name that the broker's
# configuration gives them. None, unless you write one here.
accepted_simulated_roots := set()

default configuration := 36

configuration := 2 if {
	input.nvidia
	root_accepted
}

trust_claims := {
	"instance-identity": 0,
	"configuration": configuration,
	"executables": 0,
	"file-system": 0,
	"hardware": 0,
	"runtime-opaque": 0,
	"storage-opaque": 0,
	"sourced-data": 0,
}

root_accepted if not input.nvidia.simulated_root

root_accepted if input.nvidia.simulated_root in accepted_simulated_roots

# --- why not: evaluated only to explain a refusal to an administrator ---------

explain contains finding if {
	not root_accepted
	finding := {
		"claim": "simulated_root",
		"seen": input.nvidia.simulated_root,
		"wanted": [name | some name in accepted_simulated_roots],
		"rule": "configuration",
	}
}
