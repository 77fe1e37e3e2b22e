package kata

import (
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

// confine refuses what would lead a container out of its sandbox, with a policy
// or without one. An OCI runtime refuses some of it too; which, depends on the
// runtime and its version.
func confine(in *agent.Spec) error {
	if err := confineAnnotations(in.GetAnnotations()); err != nil {
		return err
	}
	if err := confineProcess(in.GetProcess()); err != nil {
		return err
	}
	for _, m := range in.GetMounts() {
		if !path.IsAbs(m.GetDestination()) {
			return invalidf("the mount destination %.64q is not absolute", m.GetDestination())
		}
		if slices.ContainsFunc(m.GetOptions(), spreads) {
			return invalidf("mounts that spread out of the container are not supported")
		}
	}
	if spreads(in.GetLinux().GetRootfsPropagation()) {
		return invalidf("mounts that spread out of the container are not supported")
	}
	for _, n := range in.GetLinux().GetNamespaces() {
		if n.GetType() == string(specs.NetworkNamespace) && n.GetPath() != "" && !namedNetwork(n.GetPath()) {
			return invalidf("a network namespace is joined below /run/netns only, not %.64q", n.GetPath())
		}
	}
	for _, d := range in.GetLinux().GetDevices() {
		if !path.IsAbs(d.GetPath()) || path.Clean(d.GetPath()) != d.GetPath() {
			return invalidf("the device path %.64q is not absolute and clean", d.GetPath())
		}
	}
	for name := range in.GetLinux().GetSysctl() {
		if !ofNamespace.MatchString(name) {
			return invalidf("the kernel parameter %.64q is not of a container's own namespaces", name)
		}
	}
	return nil
}

// runtimeAnnotations begin the annotations that OCI runtimes take for settings
// of their own: crun loads another handler or a seccomp program from a file,
// runc hands properties to systemd.
var runtimeAnnotations = []string{"run.oci.", "org.systemd.", "org.criu.", "krun."}

// cdiAnnotation begins those that name devices of the Container Device Interface.
const cdiAnnotation = "cdi.k8s.io/"

func confineAnnotations(in map[string]string) error {
	for name := range in {
		if strings.HasPrefix(name, cdiAnnotation) {
			return invalidf("devices by CDI are not supported: the annotation %.64q would be without effect", name)
		}
		if slices.ContainsFunc(runtimeAnnotations, func(p string) bool { return strings.HasPrefix(name, p) }) {
			return invalidf("the annotation %.64q would configure the OCI runtime", name)
		}
	}
	return nil
}

// confineProcess refuses a working directory in /proc: through a descriptor that
// a runtime has left open, the process would start outside of its root
// (CVE-2024-21626).
func confineProcess(in *agent.Process) error {
	if dir := path.Clean(in.GetCwd()); strings.HasPrefix(dir, "/proc/") || strings.HasPrefix(dir, "/dev/fd") {
		return invalidf("the working directory %.64q is not supported", in.GetCwd())
	}
	return nil
}

// spreads tells propagation by which a mount in the container would appear in
// the guest.
func spreads(option string) bool { return option == "shared" || option == "rshared" }

// namedNetwork accepts what `ip netns` makes, which is where peer pods keep the
// pod's network (kata-agent 6). A path like /proc/PID/ns/net could name any
// process's.
func namedNetwork(p string) bool {
	dir, name := filepath.Split(p)
	return (dir == "/run/netns/" || dir == "/var/run/netns/") && name != "" && filepath.IsLocal(name)
}

// ofNamespace are the kernel parameters that belong to the IPC and the network
// namespace. All others are the guest's.
var ofNamespace = regexp.MustCompile(`^(kernel\.(shm[a-z_]+|msg[a-z_]+|sem)|fs\.mqueue\.[a-z_]+|net\.[a-z0-9_.-]+)$`)
