
# The keys of disks that a container has as devices, by their paths in it: the agent
# opens the volume on such a disk with this key, or not at all, and the container
# gets the device that shows it in the clear.
device_keys[path] := key if {
	some c in containers
	data.pstate[input.container_id] == c.name
	some path, key in object.get(c, "device_keys", {})
}
