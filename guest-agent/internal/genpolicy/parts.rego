
# Volumes of which some container mounts a part. Runtimes have the host resolve the
# part, where the volume is not; so the agent makes these volumes itself, and mounts
# them in place of whatever the request names.
empty_dirs[v.destination] := object.filter(v, {"volume", "kind", "path", "group"}) if {
	some c in containers
	data.pstate[input.container_id] == c.name
	some v in c.mounts
	object.get(v, "own", false)
}

has_mount(c, m) if {
	m.type_ in {"bind", "local", "ext4", "xfs"}
	some v in c.mounts
	object.get(v, "own", false)
	m.destination == v.destination
	v.readonly in {false, {"ro"} == {o | some o in m.options; o in {"ro", "rw"}}}
}
