package kata

import (
	"errors"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// takeNetworkParameters takes the parameters of the network out of a spec whose
// container lives in the pod's network, which is the guest's: a runtime would
// refuse to set them for a container that has no network of its own.
func takeNetworkParameters(spec *specs.Spec) map[string]string {
	if slices.ContainsFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace }) {
		return nil
	}
	taken, rest := map[string]string{}, map[string]string{}
	for name, value := range spec.Linux.Sysctl {
		if strings.HasPrefix(name, "net.") {
			taken[name] = value
		} else {
			rest[name] = value
		}
	}
	spec.Linux.Sysctl = rest
	return taken
}

// maxParameter limits the value of a kernel parameter, in bytes: a page, as the
// kernel gives it.
const maxParameter = 4096

// parameters are the kernel's, of the network that all containers share.
type parameters struct {
	root string // where they lie

	mu     sync.Mutex
	writes map[string]int // how often each one was set
}

// set writes some; their names have been confined: none has an empty part. undo
// gives those their values back that nobody else has set meanwhile. If one cannot be
// written, those before it have theirs back.
func (p *parameters) set(values map[string]string) (undo func() error, err error) {
	if len(values) == 0 {
		return func() error { return nil }, nil
	}
	dir, err := os.OpenRoot(p.root)
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }()
	p.mu.Lock()
	defer p.mu.Unlock()
	var done []written
	for _, name := range slices.Sorted(maps.Keys(values)) {
		w := written{name: name}
		w.before, w.known = current(dir, name)
		if err := write(dir, name, values[name]); err != nil {
			return nil, errors.Join(invalidf("the kernel parameter %.64q cannot be set: %v", name, err), p.restore(done))
		}
		p.writes[name]++
		w.nth = p.writes[name]
		done = append(done, w)
	}
	return func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.restore(done)
	}, nil
}

// written is a parameter that was set.
type written struct {
	name, before string
	known        bool // before is: not all parameters can be read
	nth          int  // of the writes
}

// restore gives values back; the lock must be held.
func (p *parameters) restore(done []written) error {
	dir, err := os.OpenRoot(p.root)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	var failed []error
	for _, w := range slices.Backward(done) {
		if w.known && p.writes[w.name] == w.nth {
			failed = append(failed, write(dir, w.name, w.before))
		}
	}
	return errors.Join(failed...)
}

func file(name string) string { return strings.ReplaceAll(name, ".", "/") }

func current(dir *os.Root, name string) (value string, ok bool) {
	f, err := dir.Open(file(name))
	if err != nil {
		return "", false
	}
	defer func() { _ = f.Close() }()
	raw, err := io.ReadAll(io.LimitReader(f, maxParameter))
	return string(raw), err == nil
}

func write(dir *os.Root, name, value string) error {
	f, err := dir.OpenFile(file(name), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}
