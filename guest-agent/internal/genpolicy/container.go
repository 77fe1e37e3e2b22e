package genpolicy

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// containerData is one container as the rules read it.
type containerData struct {
	Name            string     `json:"name"`
	Images          []string   `json:"images"`
	Args            []string   `json:"args"`
	Cwd             string     `json:"cwd"`
	Env             []string   `json:"env"`      // must be there
	EnvAlso         []string   `json:"env_also"` // may be there
	EnvAny          []string   `json:"env_any"`  // names whose value only the cluster knows
	UID             int64      `json:"uid"`
	GIDs            []int64    `json:"gids"`
	Groups          []int64    `json:"groups"`
	TTY             bool       `json:"tty"`
	Stdin           bool       `json:"stdin"`
	ReadonlyRoot    bool       `json:"readonly_root"`
	NoNewPrivileges bool       `json:"no_new_privileges"`
	Capabilities    []string   `json:"capabilities"`
	Mounts          []mount    `json:"mounts"` // must be there
	Files           []string   `json:"files"`  // may be copied in by the host
	Exec            [][]string `json:"exec"`
}

type mount struct {
	Destination string `json:"destination"`
	Kind        string `json:"kind"` // copied, memory or disk
	Volume      string `json:"volume,omitempty"`
	Readonly    bool   `json:"readonly"`
}

// defaultPath is what container engines add where an image has no PATH.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

const tokenPath = "/var/run/secrets/kubernetes.io/serviceaccount"

func (p *pod) container(c container, image Image) (*containerData, error) {
	if c.SecurityContext.Privileged {
		return nil, errors.New("it is privileged")
	}
	out := &containerData{
		Name: c.Name, Images: image.References, Cwd: first(c.WorkingDir, image.WorkingDir, "/"),
		EnvAlso: []string{}, EnvAny: []string{}, Exec: [][]string{}, Mounts: []mount{},
		TTY: c.TTY, Stdin: c.Stdin,
		ReadonlyRoot:    c.SecurityContext.ReadOnlyRootFilesystem,
		NoNewPrivileges: c.SecurityContext.AllowPrivilegeEscalation != nil && !*c.SecurityContext.AllowPrivilegeEscalation,
		Files:           []string{"/etc/hosts", "/etc/hostname", "/etc/resolv.conf", first(c.TerminationMessagePath, "/dev/termination-log")},
	}
	values := p.environment(out, c, image)
	var err error
	if out.Args, err = arguments(c, image, values); err != nil {
		return nil, err
	}
	for _, h := range []*handler{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe, c.Lifecycle.PostStart, c.Lifecycle.PreStop} {
		if h != nil && h.Exec != nil {
			out.Exec = append(out.Exec, h.Exec.Command)
		}
	}
	if err := p.user(out, c, image); err != nil {
		return nil, err
	}
	if out.Capabilities, err = rights(c.SecurityContext.Capabilities); err != nil {
		return nil, err
	}
	return out, p.mounts(out, c)
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// environment joins the image's variables and the pod's, the later ones before
// the earlier. It returns the values that are known, for $(NAME) in arguments;
// a variable whose value only the cluster knows has none.
func (p *pod) environment(out *containerData, c container, image Image) map[string]*string {
	values, order := map[string]*string{}, []string{}
	set := func(name string, value *string) {
		if _, ok := values[name]; !ok {
			order = append(order, name)
		}
		values[name] = value
	}
	for _, e := range image.Env {
		name, value, _ := strings.Cut(e, "=")
		set(name, &value)
	}
	known := map[string]*string{} // the image's are not for $(NAME)
	for _, v := range c.Env {
		value := p.valueOf(v, known)
		set(v.Name, value)
		known[v.Name] = value
	}
	out.Env = []string{}
	for _, name := range order {
		if v := values[name]; v != nil {
			out.Env = append(out.Env, name+"="+*v)
		} else {
			out.EnvAny = append(out.EnvAny, name)
		}
	}
	if values["PATH"] == nil && !slices.Contains(order, "PATH") {
		out.EnvAlso = append(out.EnvAlso, defaultPath)
	}
	if c.TTY {
		out.EnvAlso = append(out.EnvAlso, "TERM=xterm")
	}
	return known
}

// valueOf is nil for a value that only the cluster knows.
func (p *pod) valueOf(v variable, known map[string]*string) *string {
	if v.ValueFrom == nil {
		value, ok := expand(v.Value, known)
		if !ok {
			return nil
		}
		return &value
	}
	if f := v.ValueFrom.FieldRef; f != nil && !p.generated {
		switch {
		case f.FieldPath == "metadata.name":
			return &p.Name
		case f.FieldPath == "metadata.namespace" && p.Namespace != "":
			return &p.Namespace
		}
	}
	return nil
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

// arguments are the pod's or the image's: a command of the pod replaces both of
// the image's lists, arguments alone only the second.
func arguments(c container, image Image, known map[string]*string) ([]string, error) {
	args := slices.Concat(image.Entrypoint, image.Cmd)
	switch {
	case len(c.Command) > 0:
		args = slices.Concat(c.Command, c.Args)
	case len(c.Args) > 0:
		args = slices.Concat(image.Entrypoint, c.Args)
	}
	if len(args) == 0 {
		return nil, errors.New("neither the pod nor the image says what to run")
	}
	if len(c.Command)+len(c.Args) == 0 {
		return args, nil
	}
	for i, a := range args {
		v, ok := expand(a, known)
		if !ok {
			return nil, fmt.Errorf("the argument %q needs a value that only the cluster knows", a)
		}
		args[i] = v
	}
	return args, nil
}

// user is the pod's word, or the image's if that is a number: whom a name stands
// for is written in the image's files, which are not read here.
func (p *pod) user(out *containerData, c container, image Image) error {
	ps, cs := p.podSpec.SecurityContext, c.SecurityContext
	name, group, _ := strings.Cut(image.User, ":")
	uid := either(cs.RunAsUser, ps.RunAsUser)
	fromImage := uid == nil
	if fromImage {
		n, err := strconv.ParseInt(first(name, "0"), 10, 32)
		if name == "root" {
			n, err = 0, nil
		}
		if err != nil {
			return fmt.Errorf("the image runs as user %q: give its number as runAsUser", name)
		}
		uid = &n
	}
	out.UID, out.GIDs = *uid, []int64{0}
	if gid := either(cs.RunAsGroup, ps.RunAsGroup); gid != nil {
		out.GIDs = []int64{*gid}
	} else if n, err := strconv.ParseInt(group, 10, 32); fromImage && err == nil {
		out.GIDs = []int64{n}
	} else if *uid != 0 {
		// The primary group of the image's own list of users, if it has the user:
		// by custom the one with the user's number.
		out.GIDs = []int64{0, *uid}
	}
	out.Groups = slices.Concat(out.GIDs, ps.SupplementalGroups)
	if ps.FSGroup != nil {
		out.Groups = append(out.Groups, *ps.FSGroup)
	}
	return nil
}

func either(a, b *int64) *int64 {
	if a != nil {
		return a
	}
	return b
}

// usualRights are those that container engines give without being asked.
var usualRights = []string{
	"CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP",
	"NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE",
}

func rights(c capabilities) ([]string, error) {
	short := func(s string) string { return strings.TrimPrefix(strings.ToUpper(s), "CAP_") }
	have := slices.Clone(usualRights)
	for _, d := range c.Drop {
		have = slices.DeleteFunc(have, func(h string) bool { return short(d) == "ALL" || h == short(d) })
	}
	for _, a := range c.Add {
		if short(a) == "ALL" {
			return nil, errors.New("it asks for all capabilities")
		}
		have = append(have, short(a))
	}
	for i, h := range have {
		have[i] = "CAP_" + h
	}
	slices.Sort(have)
	return slices.Compact(have), nil
}

var volumeName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)

func (p *pod) mounts(out *containerData, c container) error {
	token := p.AutomountToken == nil || *p.AutomountToken
	for _, m := range c.VolumeMounts {
		i := slices.IndexFunc(p.Volumes, func(v volume) bool { return v.Name == m.Name })
		if i < 0 || !volumeName.MatchString(m.Name) || !path.IsAbs(m.MountPath) {
			return fmt.Errorf("there is no volume %q, or its mount path is not absolute", m.Name)
		}
		item := mount{Destination: path.Clean(m.MountPath), Kind: "copied", Readonly: m.ReadOnly}
		switch v := p.Volumes[i]; {
		case v.EmptyDir != nil && m.SubPath != "":
			return fmt.Errorf("volume %s: subPath of an emptyDir is not supported", m.Name)
		case v.EmptyDir != nil && v.EmptyDir.Medium == "Memory":
			item.Kind, item.Volume = "memory", m.Name
		case v.EmptyDir != nil && v.EmptyDir.Medium == "":
			item.Kind, item.Volume = "disk", m.Name
		case v.EmptyDir != nil:
			return fmt.Errorf("volume %s: medium %q is not supported", m.Name, v.EmptyDir.Medium)
		case v.ConfigMap == nil && v.Secret == nil && v.Projected == nil && v.DownwardAPI == nil:
			return fmt.Errorf("volume %s: its kind is not known", m.Name)
		}
		token = token && item.Destination != tokenPath
		out.Mounts = append(out.Mounts, item)
	}
	if token {
		out.Files = append(out.Files, tokenPath)
	}
	return nil
}
