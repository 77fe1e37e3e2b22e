package genpolicy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// containerData is one container as the rules read it.
type containerData struct {
	Name            string   `json:"name"`
	Images          []string `json:"images"`
	Args            []string `json:"args"`
	Cwd             string   `json:"cwd"`
	Env             []string `json:"env"`      // must be there
	EnvAlso         []string `json:"env_also"` // may be there
	EnvAny          []string `json:"env_any"`  // names whose value only the cluster knows
	UID             int64    `json:"uid"`
	GIDs            []int64  `json:"gids"`
	Groups          []int64  `json:"groups"`
	TTY             bool     `json:"tty"`
	Stdin           bool     `json:"stdin"`
	ReadonlyRoot    bool     `json:"readonly_root"`
	NoNewPrivileges bool     `json:"no_new_privileges"`
	Capabilities    []string `json:"capabilities"`
	Mounts          []mount  `json:"mounts"`            // must be there
	Files           []string `json:"files"`             // may be copied in by the host
	Devices         []string `json:"devices,omitempty"` // paths of disks that must be there
	// DeviceKeys are the keys of those disks that hold encrypted volumes, by path.
	DeviceKeys map[string]Key `json:"device_keys,omitempty"`
	Passed     int            `json:"passed,omitempty"` // how many devices may be passed through
	Exec       [][]string     `json:"exec"`
}

// defaultPath is what container engines add where an image has no PATH.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

const tokenPath = "/var/run/secrets/kubernetes.io/serviceaccount"

// container is one container of the pod as the rules read it.
func (p *pod) container(ctx context.Context, c container, image Image, o Options) (*containerData, error) {
	out := &containerData{
		Name: c.Name, Images: image.References, Cwd: first(c.WorkingDir, image.WorkingDir, "/"),
		EnvAlso: []string{}, EnvAny: []string{}, Exec: [][]string{}, Mounts: []mount{},
		TTY: c.TTY, Stdin: c.Stdin,
		ReadonlyRoot:    c.SecurityContext.ReadOnlyRootFilesystem,
		NoNewPrivileges: c.SecurityContext.AllowPrivilegeEscalation != nil && !*c.SecurityContext.AllowPrivilegeEscalation,
		Files:           []string{"/etc/hosts", "/etc/hostname", "/etc/resolv.conf", first(c.TerminationMessagePath, "/dev/termination-log")},
	}
	values, err := p.environment(out, c, image)
	if err != nil {
		return nil, err
	}
	if out.Args, err = arguments(c, image, values); err != nil {
		return nil, err
	}
	for _, h := range []*handler{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe, c.Lifecycle.PostStart, c.Lifecycle.PreStop} {
		if h != nil && h.Exec != nil {
			out.Exec = append(out.Exec, h.Exec.Command)
		}
	}
	if err := p.user(ctx, out, c, image); err != nil {
		return nil, err
	}
	if out.Capabilities, err = rights(c, o); err != nil {
		return nil, err
	}
	if err := p.mounts(out, c, values, o); err != nil {
		return nil, err
	}
	if err := p.disks(out, c, o); err != nil {
		return nil, err
	}
	out.Passed, err = passed(c, o)
	return out, err
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
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

// usualRights are those that container engines give without being asked.
var usualRights = []string{
	"CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP",
	"NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE",
}

// allRights stands for every capability.
const allRights = "ALL"

// rights are the capabilities that a container may have. With all of them it
// can do to the guest what the guest's kernel can.
func rights(c container, o Options) ([]string, error) {
	short := func(s string) string { return strings.TrimPrefix(strings.ToUpper(s), "CAP_") }
	wanted := c.SecurityContext.Capabilities
	all := c.SecurityContext.Privileged || slices.ContainsFunc(wanted.Add, func(a string) bool { return short(a) == allRights })
	switch {
	case all && !slices.Contains(o.InsecurePrivileged, c.Name):
		return nil, fmt.Errorf("it is privileged, or asks for all capabilities: it could do anything to the guest and to the pod's other containers "+
			"(--insecure-privileged %s allows that; devices of the host it does not get)", c.Name)
	case all:
		return []string{allRights}, nil
	}
	have := slices.Clone(usualRights)
	for _, d := range wanted.Drop {
		have = slices.DeleteFunc(have, func(h string) bool { return short(d) == allRights || h == short(d) })
	}
	for _, a := range wanted.Add {
		have = append(have, short(a))
	}
	for i, h := range have {
		have[i] = "CAP_" + h
	}
	slices.Sort(have)
	return slices.Compact(have), nil
}
