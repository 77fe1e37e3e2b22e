# The rules. They are the same for every pod: what differs stands above.
#
# What the host may decide by itself is left to it: limits, cgroups, labels, the
# network, and the content of files that Kubernetes gives to a container. What a
# container runs, as whom, from which image and with what mounted over it is not.

DestroySandboxRequest := true

StartContainerRequest := true

SignalProcessRequest := true

WaitProcessRequest := true

StatsContainerRequest := true

PauseContainerRequest := true

ResumeContainerRequest := true

CloseStdinRequest := true

TtyWinResizeRequest := true

GuestDetailsRequest := true

GetOOMEventRequest := true

GetMetricsRequest := true

VolumeStatsRequest := true

OnlineCPUMemRequest := true

RemoveStaleVirtiofsShareMountsRequest := true

ListInterfacesRequest := true

ListRoutesRequest := true

AddARPNeighborsRequest := true

ReadStreamRequest := pod.logs

GetDiagnosticDataRequest if input.log_type == "termination_log"

# The loopback is the guest's own: secrets are served there.
UpdateInterfaceRequest if not "lo" in {input.interface.name, input.interface.device}

UpdateRoutesRequest if every r in input.routes.Routes { r.device != "lo" }

UpdateEphemeralMountsRequest if every s in input.storages {
	is_tmpfs(s)
	regex.match(`^/run/kata-containers/sandbox/(shm|ephemeral/[^/.]+)$`, s.mount_point)
}

UpdateContainerRequest if has_no_device(input.resources)

CreateSandboxRequest if {
	print("host name", input.hostname)
	regex.match(pod.hostname, input.hostname)
	print("guest hooks and kernel modules")
	input.guest_hook_path == ""
	input.kernel_modules == []
	print("shared process namespace")
	input.sandbox_pidns in {false, pod.share_pid}
	print("storages")
	every s in input.storages {
		is_tmpfs(s)
		s.mount_point == "/run/kata-containers/sandbox/shm"
	}
}

# Each container of the pod runs once at a time. Its name is noted under its id.
# So is which disk is which volume's.
CreateContainerRequest := {"allowed": true, "ops": array.concat([{"op": "add", "path": note, "value": name}], disks)} if {
	not data.pstate[input.container_id]
	ordinary
	name := min({c.name | some c in containers; idle(c); fits(c)})
	disks := [{"op": "add", "path": concat("/", ["/pstate", disk(v)]), "value": m.source} |
		some c in containers
		c.name == name
		some v in c.mounts
		v.kind == "disk"
		some m in input.OCI.Mounts
		m.destination == v.destination
		is_disk(m.source)
	]
}

RemoveContainerRequest := {"allowed": true, "ops": [op |
	data.pstate[input.container_id]
	op := {"op": "remove", "path": note}
]}

note := concat("/", ["/pstate", input.container_id])

idle(c) if {
	print(c.name, "once at a time")
	not running(c.name)
}

running(name) if {
	some id
	data.pstate[id] == name
}

# containers are those of the pod, and the one that holds its namespaces. Of the
# latter the agent takes neither process nor image from the host.
containers := array.concat([{"name": "", "pause": true, "mounts": [], "files": ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"]}], pod.containers)

fits(c) if {
	c.pause
	input.storages[0].driver == "image_guest_pull"
	input.storages[0].source == "pause"
	count(input.storages) == 1
	has_mounts(c)
}

fits(c) if {
	object.get(input.OCI.Annotations, "io.kubernetes.cri.container-name", c.name) == c.name
	print(c.name, "image")
	has_image(c)
	print(c.name, "arguments")
	input.OCI.Process.Args == c.args
	print(c.name, "terminal")
	input.OCI.Process.Terminal == c.tty
	print(c.name, "no new privileges")
	input.OCI.Process.NoNewPrivileges in {true, c.no_new_privileges}
	print(c.name, "read-only root")
	input.OCI.Root.Readonly in {true, c.readonly_root}
	has_process(c, input.OCI.Process)
	print(c.name, "capabilities that must be limited")
	input.OCI.Process.Capabilities != null
	print(c.name, "storages")
	every s in input.storages { has_storage(c, s) }
	print(c.name, "mounts")
	has_mounts(c)
}

# ordinary is what no container of the pod goes beyond.
ordinary if {
	print("devices, mounts between containers, users by name, hooks")
	input.devices == []
	input.shared_mounts == []
	every _, v in or_empty(input.string_user) { v in {"", []} }
	every _, list in or_empty(input.OCI.Hooks) { list == [] }
	input.OCI.Linux.Devices == []
	has_no_device(input.OCI.Linux.Resources)
	print("shared process namespace")
	input.sandbox_pidns == pod.share_pid
	print("namespaces and id mappings")
	every n in input.OCI.Linux.Namespaces { [n.Type, n.Path] in {[n.Type, ""], ["network", "/run/netns/podns"]} }
	input.OCI.Linux.UIDMappings == []
	input.OCI.Linux.GIDMappings == []
	print("sysctls")
	every name, value in input.OCI.Linux.Sysctl { pod.sysctls[name] == value }
	print("seccomp: a filter can feign success")
	input.OCI.Linux.Seccomp == null
	print("propagation of mounts")
	not contains(input.OCI.Linux.RootfsPropagation, "shared")
	print("annotations that an OCI runtime obeys")
	every name, _ in input.OCI.Annotations { not regex.match(`^(run\.oci\.|org\.systemd\.property\.|org\.criu\.)`, name) }
}

has_no_device(resources) if every d in object.get(or_empty(resources), "Devices", []) { d.Allow == false }

or_empty(x) := x if x != null

or_empty(null) := {}

has_image(c) if {
	pulls := [s | some s in input.storages; s.driver == "image_guest_pull"]
	count(pulls) == 1
	pulls[0].source in c.images
	pulls[0].mount_point == concat("", ["/run/kata-containers/", input.container_id, "/rootfs"])
}

has_process(c, p) if {
	print(c.name, "working directory")
	p.Cwd == c.cwd
	print(c.name, "user")
	p.User.UID == c.uid
	p.User.GID in c.gids
	every g in p.User.AdditionalGids { has_group(c, g) }
	print(c.name, "environment that must be there")
	every e in c.env { e in p.Env }
	print(c.name, "environment")
	count({split(e, "=")[0] | some e in p.Env}) == count(p.Env)
	every e in p.Env { has_variable(c, e) }
	print(c.name, "capabilities")
	every _, set in or_empty(p.Capabilities) { every name in set { name in c.capabilities } }
}

has_group(c, _) if c.uid == 0

has_group(c, g) if g in c.groups

has_variable(c, e) if e in c.env

has_variable(c, e) if e in c.env_also

has_variable(c, e) if split(e, "=")[0] in c.env_any

has_variable(_, e) if {
	startswith(e, "HOSTNAME=")
	regex.match(pod.hostname, trim_prefix(e, "HOSTNAME="))
}

# What Kubernetes adds for services.
has_variable(_, e) if regex.match(pod.service_variable, e)

is_tmpfs(s) if {
	s.driver == "ephemeral"
	s.fstype == "tmpfs"
}

has_storage(_, s) if s.driver == "image_guest_pull"

has_storage(c, s) if {
	is_tmpfs(s)
	some m in c.mounts
	m.kind == "memory"
	regex.match(place(m), s.mount_point)
}

has_storage(c, s) if {
	s.driver == "local"
	some m in c.mounts
	m.kind == "disk"
	regex.match(place(m), s.mount_point)
}

# An emptyDir on a disk of the host's, which the agent encrypts under a random
# key and makes anew.
has_storage(c, s) if {
	is_encrypted(s)
	some v in c.mounts
	v.kind == "disk"
	some m in input.OCI.Mounts
	m.source == s.mount_point
	m.destination == v.destination
}

is_encrypted(s) if {
	s.driver in {"blk", "scsi", "mmioblk"}
	"encryption_key=ephemeral" in s.driver_options
	not is_layer(s)
	regex.match(`^/run/kata-containers/sandbox/storage/[0-9a-zA-Z_=-]+$`, s.mount_point)
}

is_layer(s) if {
	some o in s.options
	startswith(o, "X-kata.")
}

is_disk(place) if {
	some s in input.storages
	is_encrypted(s)
	s.mount_point == place
}

# disk is the name of the note on a volume's disk. No container can be called so.
disk(v) := concat("", ["disk:", v.volume])

has_mounts(c) if {
	every m in input.OCI.Mounts { has_mount(c, m) }
	every v in c.mounts {
		some m in input.OCI.Mounts
		m.destination == v.destination
	}
}

# What shows the kernel's view, and is no directory of the host's making.
has_mount(_, m) if {
	kernel_mounts[m.destination][m.type_]
	not is_bind(m)
}

kernel_mounts := {
	"/proc": {"proc"},
	"/dev": {"tmpfs"},
	"/dev/pts": {"devpts"},
	"/dev/mqueue": {"mqueue"},
	"/dev/shm": {"tmpfs"},
	"/sys": {"sysfs"},
	"/sys/fs/cgroup": {"cgroup", "cgroup2"},
}

is_bind(m) if {
	some o in m.options
	o in {"bind", "rbind"}
}

has_mount(_, m) if {
	[m.destination, m.type_, m.source] == ["/dev/shm", "bind", "/run/kata-containers/sandbox/shm"]
}

has_mount(c, m) if {
	m.type_ == "bind"
	m.destination in c.files
	regex.match(place({"kind": "copied"}), m.source)
}

has_mount(c, m) if {
	m.type_ in {"bind", "local"}
	some v in c.mounts
	m.destination == v.destination
	regex.match(place(v), m.source)
	v.readonly in {false, {"ro"} == {o | some o in m.options; o in {"ro", "rw"}}}
}

# A volume has one disk, whichever container uses it, and a disk one volume:
# what a container keeps for itself is not shown to another.
has_mount(c, m) if {
	m.type_ == "bind"
	is_disk(m.source)
	some v in c.mounts
	v.kind == "disk"
	m.destination == v.destination
	not is_elsewhere(v, m.source)
	not is_anothers(v, m.source)
	not is_shown_as_another(c, v, m.source)
	v.readonly in {false, {"ro"} == {o | some o in m.options; o in {"ro", "rw"}}}
}

is_elsewhere(v, place) if data.pstate[disk(v)] != place

is_anothers(v, place) if {
	some note
	data.pstate[note] == place
	note != disk(v)
}

is_shown_as_another(c, v, place) if {
	some w in c.mounts
	object.get(w, "volume", "") != v.volume
	some m in input.OCI.Mounts
	m.destination == w.destination
	m.source == place
}

# place is where something must lie: what the host has copied in for this
# container, a tmpfs, or a directory that the agent has made.
place(v) := sprintf(`^/run/kata-containers/shared/containers/(passthrough/)?%s-[0-9a-f]{16}-[^/]+$`, [input.container_id]) if {
	v.kind == "copied"
	regex.match(`^[0-9a-zA-Z]+$`, input.container_id)
}

place(v) := sprintf(`^/run/kata-containers/sandbox/ephemeral/%s$`, [v.volume]) if v.kind == "memory"

place(v) := sprintf(`^/run/kata-containers/shared/containers/[0-9a-zA-Z]+/rootfs/local/%s$`, [v.volume]) if v.kind == "disk"

CopyFileRequest if {
	print("path", input.path)
	regex.match(`^/run/kata-containers/shared/containers/(passthrough/)?[0-9a-zA-Z]+-[0-9a-f]{16}-[^/]+(/[^/]+)*$`, input.path)
	not ".." in split(input.path, "/")
	print("kind and mode", input.file_type, input.file_mode)
	input.file_type in {"Regular", "Directory", "Symlink"}
	not is_privileged
	print("target", input.symlink_target)
	not is_foreign_link
	not startswith(input.symlink_target, "/")
	not ".." in split(input.symlink_target, "/")
}

# A link beside the copied trees could lead from one into another, or into an
# emptyDir. Within a tree, and without "..", it cannot.
is_foreign_link if {
	input.file_type == "Symlink"
	not regex.match(`-[0-9a-f]{16}-[^/]+/.`, input.path)
}

# A program that the host brings must not run as another than who starts it.
is_privileged if {
	input.file_type == "Regular"
	bits.and(input.file_mode, 3072) != 0 # setuid 2048, setgid 1024
}

ExecProcessRequest if {
	some c in pod.containers
	data.pstate[input.container_id] == c.name
	print(c.name, "command", input.process.Args)
	input.process.Args in c.exec
	not input.process.Terminal
	every _, v in or_empty(input.string_user) { v in {"", []} }
	has_process(c, input.process)
}

WriteStreamRequest if {
	some c in pod.containers
	c.stdin
	data.pstate[input.container_id] == c.name
	input.exec_id in {"", input.container_id}
}
