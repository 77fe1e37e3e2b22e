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
	every s in input.storages { is_for_all(s) }
}

is_for_all(s) if {
	is_tmpfs(s)
	s.mount_point == "/run/kata-containers/sandbox/shm"
}

host_share := object.get(pod, "host_share", false)

# Everything that the host shares: only where the pod's owner trusts it with that.
is_for_all(s) if {
	host_share
	s.driver == "virtio-fs"
	trim_suffix(s.mount_point, "/") == "/run/kata-containers/shared/containers"
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
		some m in input.OCI.Mounts
		m.destination == v.destination
		is_disk(v, m.source)
	]
}

# The keys of volumes, by where their disks are mounted: the agent opens such a disk
# with this key, or not at all.
volume_keys[m.source] := v.key if {
	some c in containers
	data.pstate[input.container_id] == c.name
	some v in c.mounts
	v.kind == "encrypted"
	some m in input.OCI.Mounts
	m.destination == v.destination
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
	has_devices(c)
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
	print(c.name, "devices")
	has_devices(c)
}

# ordinary is what no container of the pod goes beyond.
ordinary if {
	print("mounts between containers, users by name, hooks")
	input.shared_mounts == []
	every _, v in or_empty(input.string_user) { v in {"", []} }
	every _, list in or_empty(input.OCI.Hooks) { list == [] }
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
	print("annotations that an OCI runtime or the agent obeys")
	every name, _ in input.OCI.Annotations { not regex.match(`^(run\.oci\.|org\.systemd\.property\.|org\.criu\.|cdi\.k8s\.io/)`, name) }
}

has_no_device(resources) if every d in rules_of(resources) { d.Allow == false }

rules_of(resources) := object.get(or_empty(resources), "Devices", [])

# Disks that the container has as devices, each where the pod has it, and no more
# devices passed through than it asks for. Those have no node of the host's.
has_devices(c) if {
	disks := [d.container_path | some d in input.devices; d.type_ in disk_drivers]
	sort(disks) == object.get(c, "devices", [])
	passed := [d | some d in input.devices; is_passed(d)]
	count(passed) <= object.get(c, "passed", 0)
	count(disks) + count(passed) == count(input.devices)
	every d in input.OCI.Linux.Devices {
		d.Type == "b"
		d.Path in disks
	}
	every r in rules_of(input.OCI.Linux.Resources) { is_ruled(r) }
}

disk_drivers := {"blk", "scsi", "mmioblk", "nvdimm"}

is_passed(d) if {
	d.type_ == "vfio-pci-gk"
	every o in d.options { regex.match(`^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]=[0-9a-f./]+$`, o) }
}

is_ruled(r) if r.Allow == false

is_ruled(r) if {
	some d in input.OCI.Linux.Devices
	[r.Type, r.Major, r.Minor] == ["b", d.Major, d.Minor]
}

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
	every _, set in or_empty(p.Capabilities) { every name in set { has_right(c, name) } }
}

has_right(c, name) if name in c.capabilities

has_right(c, _) if "ALL" in c.capabilities

has_group(c, _) if c.uid == 0

has_group(c, g) if g in c.groups

has_variable(c, e) if e in c.env

has_variable(c, e) if e in c.env_also

has_variable(c, e) if split(e, "=")[0] in c.env_any

has_variable(_, e) if {
	startswith(e, "HOSTNAME=")
	regex.match(pod.hostname, trim_prefix(e, "HOSTNAME="))
}

# Which devices were passed through. The agent writes the guest's addresses there.
has_variable(c, e) if {
	c.passed > 0
	regex.match(`^PCIDEVICE_[A-Z0-9_]+=[0-9a-f:.,]*$`, e)
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
	s.driver == "ephemeral"
	s.fstype == "hugetlbfs"
	some m in c.mounts
	m.kind == "huge"
	regex.match(place(m), s.mount_point)
}

has_storage(c, s) if {
	s.driver == "local"
	some m in c.mounts
	m.kind == "disk"
	regex.match(place(m), s.mount_point)
}

# A volume on a disk of the host's.
has_storage(c, s) if {
	some v in c.mounts
	is_for(v, s)
	some m in input.OCI.Mounts
	m.source == s.mount_point
	m.destination == v.destination
}

# An emptyDir, which the agent encrypts under a random key and makes anew.
is_for(v, s) if {
	v.kind == "disk"
	is_encrypted(s)
}

# One that the agent opens with a key of the pod's owner, see volume_keys; or one
# whose bytes are the host's.
is_for(v, s) if {
	v.kind in {"encrypted", "host"}
	s.driver in disk_drivers
	every o in s.driver_options { o == "create_filesystem" }
	not is_layer(s)
	regex.match(disk_place, s.mount_point)
	not is_in_share(s)
}

# The host could put another directory in its place.
is_in_share(s) if {
	host_share
	contains(s.mount_point, "/shared/")
}

disk_place := `^/run/kata-containers/(sandbox/storage/[0-9a-zA-Z_=-]+|shared/containers/(passthrough/)?[0-9a-zA-Z-]+-[0-9a-f]{16}-[^/]+)$`

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

is_disk(v, place) if {
	some s in input.storages
	is_for(v, s)
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

# A disk's mount may have the type of its filesystem.
is_of_disk(m) if m.type_ == "bind"

is_of_disk(m) if {
	m.type_ in {"ext4", "xfs", "erofs"}
	is_bind(m)
}

has_mount(_, m) if {
	[m.destination, m.type_, m.source] == ["/dev/shm", "bind", "/run/kata-containers/sandbox/shm"]
}

has_mount(c, m) if {
	m.type_ == "bind"
	m.destination in c.files
	regex.match(place({"kind": "copied"}), m.source)
	not is_of_volume(m.source)
}

# A disk may be mounted where copied files lie; what is in a volume is no file that
# Kubernetes gives.
is_of_volume(place) if {
	some s in input.storages
	s.driver in disk_drivers
	s.mount_point == place
}

is_of_volume(place) if {
	some note
	data.pstate[note] == place
}

has_mount(c, m) if {
	m.type_ in {"bind", "local"}
	some v in c.mounts
	m.destination == v.destination
	regex.match(place(v), m.source)
	not is_of_volume(m.source)
	v.readonly in {false, {"ro"} == {o | some o in m.options; o in {"ro", "rw"}}}
}

# A volume has one disk, whichever container uses it, and a disk one volume:
# what a container keeps for itself is not shown to another.
has_mount(c, m) if {
	is_of_disk(m)
	some v in c.mounts
	m.destination == v.destination
	is_disk(v, m.source)
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
	v.kind in {"copied", "host"}
	regex.match(`^[0-9a-zA-Z]+$`, input.container_id)
}

place(v) := sprintf(`^/run/kata-containers/sandbox/ephemeral/%s$`, [v.volume]) if v.kind in {"memory", "huge"}

place(v) := sprintf(`^/run/kata-containers/shared/containers/(passthrough/)?[0-9a-zA-Z]+/rootfs/local/%s$`, [v.volume]) if {
	v.kind == "disk"
	not host_share # it would be a directory of the host's
}

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
