// Package policylang is what broker and guest agent have in common where they
// evaluate Rego: which builtins there are, what a text's author is told, and how
// much time and memory compiling and evaluating may take.
//
// Texts come from administrators and owners of pods, inputs from guests and hosts.
// Neither may reach outside of a policy, hold up its process, or end it.
package policylang

import (
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// forbidden builtins reach outside the policy (the network, the process, other
// modules, the trace log), or can spend without limit within a single call,
// where no deadline interrupts them. Policies that use one do not compile.
func forbidden(name string) bool {
	switch name {
	case "http.send", "opa.runtime", "rego.parse_module", "rego.metadata.chain", "rego.metadata.rule",
		"trace", "rand.intn", "uuid.rfc4122", "bits.lsh", "graph.reachable_paths",
		"json.match_schema", "json.verify_schema":
		return true
	}
	for _, family := range []string{"net.", "providers.", "graphql."} {
		if strings.HasPrefix(name, family) {
			return true
		}
	}
	return false
}

// Capabilities are the builtins that policies may use: the library's, but for
// those that are forbidden, and the caller's own.
func Capabilities(own ...*ast.Builtin) *ast.Capabilities {
	c := ast.CapabilitiesForThisVersion()
	c.Builtins = slices.DeleteFunc(slices.Clone(c.Builtins), func(b *ast.Builtin) bool { return forbidden(b.Name) })
	c.Builtins, c.AllowNet = append(c.Builtins, own...), []string{}
	return c
}

// Varies says whether a builtin may answer otherwise the next time, with the same
// operands. The library marks those, except for the ones that hold certificates
// against the clock.
func Varies(b *ast.Builtin) bool {
	return b.Nondeterministic || strings.HasPrefix(b.Name, "crypto.x509.parse_and_verify_")
}

// Steady says whether the answers of a compiled policy depend on nothing but what
// it is asked, so that they may be remembered. All of its text counts, whatever
// rule it is in; and of the builtins with a family those alone whose families have
// nothing to do with time, chance and keys, so that one which a later version of
// the library brings does not pass unseen. The callers' own builtins are steady
// but for those named.
func Steady(c *ast.Compiler, unsteady ...string) bool {
	found := false
	for _, m := range c.Modules {
		ast.WalkRefs(m, func(x ast.Ref) bool {
			name := x.String()
			b := ast.BuiltinMap[name]
			found = found || slices.Contains(unsteady, name) || b != nil && (Varies(b) || !steadyFamily(b.Name))
			return found
		})
	}
	return !found
}

func steadyFamily(name string) bool {
	family, _, dotted := strings.Cut(name, ".")
	if !dotted {
		return true
	}
	switch family {
	case "array", "base64", "base64url", "bits", "glob", "graph", "hex", "internal", "json", "numbers", "object", "regex", "semver",
		"strings", "units", "uri", "urlquery", "yaml":
		return true
	}
	return false
}
