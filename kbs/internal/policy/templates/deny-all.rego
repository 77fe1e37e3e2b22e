# Nobody gets anything.
# kind resource

package policy

import rego.v1

default allow := false
