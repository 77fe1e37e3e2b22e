package agent_policy

# A policy of the shape that the field's generator writes, by our own hand: the
# older language, defaults for all requests, data of the pod behind the rules, an
# object with operations on pstate as the answer, and prints on the way.

import future.keywords.every
import future.keywords.in
import input

default AddARPNeighborsRequest := false
default CloseStdinRequest := false
default CopyFileRequest := false
default CreateContainerRequest := false
default CreateSandboxRequest := false
default DestroySandboxRequest := true
default ExecProcessRequest := false
default GetDiagnosticDataRequest := true
default GetOOMEventRequest := true
default GuestDetailsRequest := true
default ReadStreamRequest := false
default RemoveContainerRequest := true
default RemoveStaleVirtiofsShareMountsRequest := true
default SetPolicyRequest := false
default SignalProcessRequest := true
default StartContainerRequest := true
default StatsContainerRequest := true
default UpdateContainerRequest := false
default WaitProcessRequest := true
default WriteStreamRequest := false
default AllowRequestsFailingPolicy := false

NAME = "io.kubernetes.cri.sandbox-name"

CreateContainerRequest := {"ops": ops, "allowed": true} {
    name := input.OCI.Annotations[NAME]
    name_op := remember("sandbox_name", name)
    ops := with_op([], name_op)

    some wanted in policy_data.containers
    print("trying", wanted.process.Args)
    wanted.sandbox_pidns == input.sandbox_pidns
    same_process(wanted.process, input.OCI.Process)
    every given in input.OCI.Mounts {
        some m in array.concat(wanted.mounts, policy_data.common.mounts)
        m.destination == given.destination
        m.type_ == given.type_
        source := replace(m.source, "$(cid)", input.container_id)
        regex.match(source, given.source)
    }
    every storage in input.storages {
        some s in policy_data.common.storages
        s.driver == storage.driver
        regex.match(s.source, storage.source)
    }
    print("fits", wanted.process.Args)
}

remember(key, value) = op {
    not data["pstate"][key]
    op := {"op": "add", "path": concat("/", ["/pstate", key]), "value": value}
}

remember(key, value) = op {
    data["pstate"][key] == value
    op := null
}

with_op(ops, op) = out { op == null; out := ops }
with_op(ops, op) = out { op != null; out := array.concat(ops, [op]) }

same_process(wanted, given) {
    wanted.Args == given.Args
    wanted.User.UID == given.User.UID
    every e in given.Env { allowed_variable(wanted, e) }
}

allowed_variable(wanted, e) { some w in wanted.Env; w == e }
allowed_variable(_, e) { startswith(e, "HOSTNAME="); endswith(e, data["pstate"]["sandbox_name"]) }

CreateSandboxRequest { input.guest_hook_path == ""; count(input.kernel_modules) == 0 }

CopyFileRequest {
    regex.match(policy_data.request_defaults.CopyFileRequest[_], input.path)
}

ExecProcessRequest {
    some command in policy_data.request_defaults.ExecProcessRequest.commands
    command == concat(" ", input.process.Args)
}

ReadStreamRequest { policy_data.request_defaults.ReadStreamRequest == true }
UpdateContainerRequest { policy_data.request_defaults.UpdateContainerRequest == true }

policy_data := {
  "containers": [
    {
      "sandbox_pidns": false,
      "process": {"Args": ["/pause"], "Env": [], "User": {"UID": 0}},
      "mounts": []
    },
    {
      "sandbox_pidns": false,
      "process": {"Args": ["/bin/sh", "-c", "sleep 1000"], "Env": ["PATH=/bin", "FOO=bar"], "User": {"UID": 1000}},
      "mounts": [
        {"destination": "/cfg", "type_": "bind", "source": "^/run/kata-containers/shared/containers/$(cid)-[a-z0-9]{16}-cfg$"},
        {"destination": "/scratch", "type_": "local", "source": "/rootfs/local/scratch$"},
        {"destination": "/mem", "type_": "bind", "source": "^/run/kata-containers/sandbox/ephemeral/mem$"},
        {"destination": "/dev/termination-log", "type_": "bind", "source": "-termination-log$"},
        {"destination": "/var/run/secrets/kubernetes.io/serviceaccount", "type_": "bind", "source": "-serviceaccount$"}
      ]
    }
  ],
  "common": {
    "mounts": [
      {"destination": "/proc", "type_": "proc", "source": "^proc$"},
      {"destination": "/dev", "type_": "tmpfs", "source": "^tmpfs$"},
      {"destination": "/dev/pts", "type_": "devpts", "source": "^devpts$"},
      {"destination": "/dev/shm", "type_": "bind", "source": "^/run/kata-containers/sandbox/shm$"},
      {"destination": "/dev/mqueue", "type_": "mqueue", "source": "^mqueue$"},
      {"destination": "/sys", "type_": "sysfs", "source": "^sysfs$"},
      {"destination": "/sys/fs/cgroup", "type_": "cgroup", "source": "^cgroup$"},
      {"destination": "/etc/hosts", "type_": "bind", "source": "-hosts$"},
      {"destination": "/etc/hostname", "type_": "bind", "source": "-hostname$"},
      {"destination": "/etc/resolv.conf", "type_": "bind", "source": "-resolv.conf$"}
    ],
    "storages": [
      {"driver": "image_guest_pull", "source": "^(pause|localhost/busybox:1)$"},
      {"driver": "ephemeral", "source": "^tmpfs$"},
      {"driver": "local", "source": "^local$"}
    ]
  },
  "request_defaults": {
    "CopyFileRequest": ["^/run/kata-containers/shared/containers/[a-f0-9]{64}-[a-f0-9]{16}-[^/]+(/.*)?$"],
    "ExecProcessRequest": {"commands": ["/bin/ls /"]},
    "ReadStreamRequest": true,
    "UpdateContainerRequest": true
  }
}
