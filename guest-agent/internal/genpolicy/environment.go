package genpolicy

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/kbs/sealed"
)

// environment is a container's, while it is put together. Of a variable that only
// the cluster knows the value is nil.
type environment struct {
	values map[string]*string
	order  []string
	known  map[string]*string // those that $(NAME) may name
}

func (e *environment) set(name string, value *string) {
	if _, ok := e.values[name]; !ok {
		e.order = append(e.order, name)
	}
	e.values[name] = value
}

// setOwn sets a variable that the pod's file names, not the image.
func (e *environment) setOwn(name string, value *string) {
	e.set(name, value)
	e.known[name] = value
}

// environment joins the image's variables and the pod's, the later ones before
// the earlier: first whole config maps and secrets, then single variables. It
// returns the values that are known, for $(NAME) in arguments.
func (p *pod) environment(out *containerData, c container, image Image) (map[string]*string, error) {
	e := &environment{values: map[string]*string{}, known: map[string]*string{}}
	for _, variable := range image.Env {
		name, value, _ := strings.Cut(variable, "=")
		e.set(name, &value)
	}
	for _, from := range c.EnvFrom {
		if err := p.allOf(e, out, from); err != nil {
			return nil, fmt.Errorf("envFrom: %w", err)
		}
	}
	for _, v := range c.Env {
		value, there, err := p.valueOf(v, e.known)
		if err != nil {
			return nil, fmt.Errorf("variable %s: %w", v.Name, err)
		}
		if there {
			e.setOwn(v.Name, value)
		}
	}
	out.Env = []string{}
	for _, name := range e.order {
		if v := e.values[name]; v != nil {
			out.Env = append(out.Env, name+"="+*v)
		} else {
			out.EnvAny = append(out.EnvAny, name)
		}
	}
	if _, ok := e.values["PATH"]; !ok {
		out.EnvAlso = append(out.EnvAlso, defaultPath)
	}
	if c.TTY {
		out.EnvAlso = append(out.EnvAlso, "TERM=xterm")
	}
	return e.known, nil
}

// variableName is what every version of Kubernetes takes for the name of a
// variable. Others of a config map's keys are left out by some.
var variableName = regexp.MustCompile(`^[-._a-zA-Z][-._a-zA-Z0-9]*$`)

// allOf takes every value of a config map or a secret for a variable.
func (p *pod) allOf(e *environment, out *containerData, from envFrom) error {
	ref, secret := from.ConfigMapRef, false
	if ref == nil {
		ref, secret = from.SecretRef, true
	}
	if ref == nil || from.ConfigMapRef != nil && from.SecretRef != nil {
		return fmt.Errorf("it names either a config map or a secret")
	}
	m, err := p.valueMap(ref.Name, secret)
	if err != nil {
		return err
	}
	if m == nil {
		return fmt.Errorf("%s %q is not in the file: which variables come of it is not known. Put it beside the pod, as a further document, or name its variables one by one (env.valueFrom)", kindOf(secret), ref.Name)
	}
	for _, key := range m.keys() {
		name, value := from.Prefix+key, m.value(key)
		switch {
		case variableName.MatchString(name) && name != "." && !strings.HasPrefix(name, ".."):
			e.setOwn(name, value)
		case strings.ContainsAny(name, "=\x00"):
			return fmt.Errorf("%s %q: %.64q is no name of a variable", kindOf(secret), ref.Name, name)
		case value != nil:
			out.EnvAlso = append(out.EnvAlso, name+"="+*value)
		default:
			out.EnvAny = append(out.EnvAny, name)
		}
	}
	return nil
}

// valueOf is nil for a value that only the cluster knows. A variable is not there
// if it may be absent, and is.
func (p *pod) valueOf(v variable, known map[string]*string) (value *string, there bool, err error) {
	if v.ValueFrom == nil {
		value, ok := expand(v.Value, known)
		if !ok {
			return nil, true, nil
		}
		return &value, true, nil
	}
	if ref := v.ValueFrom.ConfigMapKeyRef; ref != nil {
		return p.valueAt(ref, false)
	}
	if ref := v.ValueFrom.SecretKeyRef; ref != nil {
		return p.valueAt(ref, true)
	}
	if f := v.ValueFrom.FieldRef; f != nil && !p.generated {
		switch {
		case f.FieldPath == "metadata.name":
			return &p.Name, true, nil
		case f.FieldPath == "metadata.namespace" && p.Namespace != "":
			return &p.Namespace, true, nil
		}
	}
	return nil, true, nil
}

// valueAt is one value of a config map or a secret: known if that is in the file.
func (p *pod) valueAt(ref *keyRef, secret bool) (value *string, there bool, err error) {
	m, err := p.valueMap(ref.Name, secret)
	if err != nil || m == nil {
		return nil, true, err
	}
	if _, ok := m.values[ref.Key]; ok {
		return m.value(ref.Key), true, nil
	}
	if ref.Optional != nil && *ref.Optional {
		return nil, false, nil
	}
	return nil, false, fmt.Errorf("%s %q has no key %q", kindOf(secret), ref.Name, ref.Key)
}

// value is nil for what must not stand in a policy, which travels in the pod's
// annotations and past the host: who may read a pod may not read its secrets. What
// is sealed is none.
func (m *valueMap) value(key string) *string {
	v := m.values[key]
	if m.secret && !sealed.Is(v) {
		return nil
	}
	return &v
}

func (m *valueMap) keys() []string {
	var keys []string
	for key := range m.values {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

var reference = regexp.MustCompile(`\$\$|\$\([A-Za-z_][A-Za-z0-9_.-]*\)`)

// expand replaces $(NAME) as Kubernetes does: $$ is a dollar, and a name that
// nobody has defined stays as it is. It fails for a value that is not known.
func expand(s string, known map[string]*string) (string, bool) {
	ok := true
	out := reference.ReplaceAllStringFunc(s, func(m string) string {
		if m == "$$" {
			return "$"
		}
		v, defined := known[m[2:len(m)-1]]
		switch {
		case !defined:
			return m
		case v == nil:
			ok = false
			return m
		}
		return *v
	})
	return out, ok
}
