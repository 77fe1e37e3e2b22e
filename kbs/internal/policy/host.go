package policy

// Host is what the engines of a process share: the goroutines that evaluate,
// and the compiled policies. An engine belongs to one tenant and may be
// dropped at any time; the host is closed.
type Host struct {
	runner   *runner
	programs *programs
}

// NewHost returns a host.
func NewHost() *Host { return &Host{runner: newRunner(), programs: newPrograms()} }

// Engine returns an engine over the stored policies and reference values of
// one tenant.
func (h *Host) Engine(docs *Documents, refs References) *Engine {
	return &Engine{Host: h, docs: docs, refs: refs}
}

// Close ends the goroutines that wait for evaluations. Those of policies that
// ignored their end are left behind.
func (h *Host) Close() { h.runner.close() }
