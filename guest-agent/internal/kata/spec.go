package kata

import (
	"io/fs"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/sandbox"
)

// place is what the sandbox decides about a container's spec, whatever the host
// says (kata-agent 2.9).
type place struct {
	root     string // absolute
	process  *specs.Process
	ipc, uts string                       // paths of the sandbox's namespaces
	pid      string                       // empty for a pid namespace of its own
	hooks    *specs.Hooks                 // of the guest's image
	hostname bool                         // the sandbox's uts namespace has the pod's host name
	source   func(string) (string, error) // where the source of a bind mount really lies
}

// ociVersion is written into the runtime's config.json. The fields used are all
// of that version.
const ociVersion = "1.0.2"

// runtimeSpec converts the protocol's form of the OCI specification, which has
// every field, into the runtime's. What cannot be honoured is refused, never
// dropped: a hook, a Windows section, a namespace by path other than network.
func runtimeSpec(in *agent.Spec, p place) (*specs.Spec, error) {
	switch {
	case in == nil || in.Process == nil || in.Root == nil || in.Linux == nil:
		return nil, invalidf("the OCI spec lacks its process, root or linux section")
	case hasHooks(in.Hooks):
		return nil, invalidf("OCI hooks are not supported")
	case in.Solaris != nil || in.Windows != nil:
		return nil, invalidf("the OCI spec is for another system")
	}
	mounted, err := mounts(in.Mounts, p.source)
	if err != nil {
		return nil, err
	}
	out := &specs.Spec{
		Version:     ociVersion,
		Process:     p.process,
		Root:        &specs.Root{Path: p.root, Readonly: in.Root.Readonly},
		Mounts:      mounted,
		Annotations: in.Annotations,
		Hooks:       p.hooks,
	}
	if out.Process == nil {
		out.Process = process(in.Process)
	}
	if !p.hostname {
		out.Hostname = in.Hostname
	}
	out.Linux, err = linux(in.Linux, p)
	return out, err
}

func hasHooks(h *agent.Hooks) bool {
	return len(h.GetPrestart())+len(h.GetPoststart())+len(h.GetPoststop())+
		len(h.GetCreateRuntime())+len(h.GetCreateContainer())+len(h.GetStartContainer()) > 0
}

func process(in *agent.Process) *specs.Process {
	out := &specs.Process{
		Terminal:        in.Terminal,
		User:            specs.User{UID: in.User.GetUID(), GID: in.User.GetGID(), AdditionalGids: in.User.GetAdditionalGids(), Username: in.User.GetUsername()},
		Args:            in.Args,
		Env:             in.Env,
		Cwd:             in.Cwd,
		NoNewPrivileges: in.NoNewPrivileges,
		ApparmorProfile: in.ApparmorProfile,
		SelinuxLabel:    in.SelinuxLabel,
	}
	if out.Cwd == "" {
		out.Cwd = "/"
	}
	if b := in.ConsoleSize; b != nil {
		out.ConsoleSize = &specs.Box{Height: uint(b.Height), Width: uint(b.Width)}
	}
	if c := in.Capabilities; c != nil {
		out.Capabilities = &specs.LinuxCapabilities{
			Bounding: c.Bounding, Effective: c.Effective, Inheritable: c.Inheritable, Permitted: c.Permitted, Ambient: c.Ambient,
		}
	}
	for _, r := range in.Rlimits {
		out.Rlimits = append(out.Rlimits, specs.POSIXRlimit{Type: r.Type, Hard: r.Hard, Soft: r.Soft})
	}
	if in.OOMScoreAdj != 0 {
		adj := int(in.OOMScoreAdj)
		out.OOMScoreAdj = &adj
	}
	return out
}

// kernelFilesystems are what a container may mount beside directories: they
// show the kernel's view of its own namespaces, or are empty.
var kernelFilesystems = []string{"proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2"}

// mounts finds the sources of bind mounts, which must lie where the host may
// put things: a directory of the agent, of another container or of the guest
// itself is not for containers. A mount of type "local" is a directory that the
// storage of that name has made.
func mounts(in []*agent.Mount, source func(string) (string, error)) ([]specs.Mount, error) {
	var out []specs.Mount
	for _, m := range in {
		o := specs.Mount{Destination: m.Destination, Type: m.Type, Source: m.Source, Options: m.Options}
		if o.Type == "local" {
			o.Type = "bind"
			o.Options = append([]string{"rbind"}, o.Options...)
		}
		switch bind := slices.Contains(o.Options, "bind") || slices.Contains(o.Options, "rbind"); {
		case bind || o.Type == "bind":
			var err error
			if o.Source, err = source(m.Source); err != nil {
				return nil, err
			}
		case !slices.Contains(kernelFilesystems, o.Type):
			return nil, invalidf("mounts of type %.64q are not supported", m.Type)
		}
		out = append(out, o)
	}
	return out, nil
}

// tame has mounts of volumes keep what those are mounted with: OCI runtimes drop it
// where a mount has options of its own, such as "ro", and then a program on a disk of
// the host's could be privileged.
func tame(list []specs.Mount) error {
	for i, m := range list {
		if m.Type != "bind" && !slices.Contains(m.Options, "bind") && !slices.Contains(m.Options, "rbind") {
			continue
		}
		lasting, err := sandbox.Lasting(m.Source)
		if err != nil {
			return invalidf("the source of the mount at %.128q cannot be used: %v", m.Destination, err)
		}
		list[i].Options = append(slices.Clone(m.Options), lasting...)
	}
	return nil
}

func linux(in *agent.Linux, p place) (*specs.Linux, error) {
	out := &specs.Linux{
		UIDMappings:       idMappings(in.UIDMappings),
		GIDMappings:       idMappings(in.GIDMappings),
		Sysctl:            in.Sysctl,
		Resources:         resources(in.Resources),
		CgroupsPath:       cgroupsPath(in.CgroupsPath),
		Devices:           devices(in.Devices),
		Seccomp:           seccomp(in.Seccomp),
		RootfsPropagation: in.RootfsPropagation,
		MaskedPaths:       in.MaskedPaths,
		ReadonlyPaths:     in.ReadonlyPaths,
		MountLabel:        in.MountLabel,
	}
	if s := in.GetIntelRdt().GetL3CacheSchema(); s != "" {
		out.IntelRdt = &specs.LinuxIntelRdt{L3CacheSchema: s}
	}
	confineDevices(out)
	if out.CgroupsPath == "/" {
		// Killing such a container would kill whatever is in the root cgroup.
		return nil, invalidf("the cgroup path %q leads to the root", in.CgroupsPath)
	}
	var err error
	out.Namespaces, err = namespaces(in.Namespaces, p)
	return out, err
}

// namespaces gives the container the sandbox's ipc and uts namespaces, its own
// mount namespace, and its own pid namespace or the sandbox's. Without a network
// namespace in the host's list it shares the agent's; a path is honoured
// (kata-agent 2.8, 6).
func namespaces(in []*agent.LinuxNamespace, p place) ([]specs.LinuxNamespace, error) {
	out := []specs.LinuxNamespace{
		{Type: specs.MountNamespace},
		{Type: specs.IPCNamespace, Path: p.ipc},
		{Type: specs.UTSNamespace, Path: p.uts},
		{Type: specs.PIDNamespace, Path: p.pid},
	}
	seen := map[string]bool{}
	for _, n := range in {
		if seen[n.Type] {
			return nil, invalidf("namespace %q is given twice", n.Type)
		}
		seen[n.Type] = true
		switch kind := specs.LinuxNamespaceType(n.Type); kind {
		case specs.IPCNamespace, specs.UTSNamespace, specs.PIDNamespace, specs.MountNamespace:
			// decided above
		case specs.NetworkNamespace:
			out = append(out, specs.LinuxNamespace{Type: kind, Path: n.Path})
		case specs.UserNamespace, specs.CgroupNamespace:
			if n.Path != "" {
				return nil, invalidf("a %s namespace cannot be joined", n.Type)
			}
			out = append(out, specs.LinuxNamespace{Type: kind})
		default:
			return nil, invalidf("namespace %q is not supported", n.Type)
		}
	}
	return out, nil
}

// cgroupsPath turns the systemd form, slice:prefix:name, into directories: there
// is no systemd in the guest. The result never leaves the cgroup root.
func cgroupsPath(p string) string {
	if p == "" {
		return ""
	}
	if parts := strings.Split(p, ":"); len(parts) == 3 {
		p = parts[0] + "/" + parts[1] + "-" + parts[2]
	}
	return path.Clean("/" + p)
}

func idMappings(in []*agent.LinuxIDMapping) []specs.LinuxIDMapping {
	var out []specs.LinuxIDMapping
	for _, m := range in {
		out = append(out, specs.LinuxIDMapping{ContainerID: m.ContainerID, HostID: m.HostID, Size: m.Size})
	}
	return out
}

func devices(in []*agent.LinuxDevice) []specs.LinuxDevice {
	var out []specs.LinuxDevice
	for _, d := range in {
		mode, uid, gid := fs.FileMode(d.FileMode), d.UID, d.GID
		out = append(out, specs.LinuxDevice{Path: d.Path, Type: d.Type, Major: d.Major, Minor: d.Minor, FileMode: &mode, UID: &uid, GID: &gid})
	}
	return out
}

// confineDevices denies every device but those of the spec: the host drops the
// rules that the container engine has written (kata-agent 2.9). Without them a
// container that may make device nodes could open the guest's disks. The
// runtime itself adds the harmless ones, such as /dev/null.
func confineDevices(l *specs.Linux) {
	if l.Resources == nil {
		l.Resources = &specs.LinuxResources{}
	}
	rules := []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
	for _, d := range l.Devices {
		major, minor := d.Major, d.Minor
		rules = append(rules, specs.LinuxDeviceCgroup{Allow: true, Type: d.Type, Major: &major, Minor: &minor, Access: "rwm"})
	}
	l.Resources.Devices = append(rules, l.Resources.Devices...)
}

func seccomp(in *agent.LinuxSeccomp) *specs.LinuxSeccomp {
	if in == nil {
		return nil
	}
	out := &specs.LinuxSeccomp{DefaultAction: specs.LinuxSeccompAction(in.DefaultAction)}
	for _, a := range in.Architectures {
		out.Architectures = append(out.Architectures, specs.Arch(a))
	}
	for _, f := range in.Flags {
		out.Flags = append(out.Flags, specs.LinuxSeccompFlag(f))
	}
	for _, s := range in.Syscalls {
		rule := specs.LinuxSyscall{Names: s.Names, Action: specs.LinuxSeccompAction(s.Action)}
		if s.Errnoret != nil {
			n := uint(*s.Errnoret)
			rule.ErrnoRet = &n
		}
		for _, a := range s.Args {
			rule.Args = append(rule.Args, specs.LinuxSeccompArg{
				Index: uint(a.Index), Value: a.Value, ValueTwo: a.ValueTwo, Op: specs.LinuxSeccompOperator(a.Op),
			})
		}
		out.Syscalls = append(out.Syscalls, rule)
	}
	return out
}
