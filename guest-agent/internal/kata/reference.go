package kata

import (
	"fmt"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/device"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/sandbox"
)

// methods says of each method of the service what this agent makes of it.
var methods = map[string]string{
	"CreateContainer":                "makes a container with its storages and devices, and parks its first process",
	"StartContainer":                 "lets the first process execute its program",
	"RemoveContainer":                "kills what is left of a container and undoes its storages",
	"ExecProcess":                    "starts a further process",
	"SignalProcess":                  "sends a signal; SIGKILL to the first process means all",
	"WaitProcess":                    "waits for the exit, also when it was asked before",
	"UpdateContainer":                "changes limits; rules for devices are ignored",
	"StatsContainer":                 "tells what a container uses, by the OCI runtime; no network counters",
	"PauseContainer":                 "freezes a container",
	"ResumeContainer":                "thaws it",
	"WriteStdin":                     "writes to the input; nothing to write is its end",
	"ReadStdout":                     "waits for output; what a policy denies is read and dropped",
	"ReadStderr":                     "is like ReadStdout",
	"CloseStdin":                     "ends the input",
	"TtyWinResize":                   "sets the size of a terminal",
	"CreateSandbox":                  "makes what containers share; modules by the image's modprobe, hooks of the measured directory alone",
	"DestroySandbox":                 "ends everything; afterwards the agent ends",
	"GetGuestDetails":                "describes the guest and the agent",
	"CopyFile":                       "takes a file, a directory or a link into the shared directory, and nowhere else",
	"SetPolicy":                      "replaces the policy, if the one in force allows it",
	"GetMetrics":                     "returns what the agent counts, in the Prometheus text format",
	"UpdateInterface":                "sets an interface up by its hardware address; never the loopback",
	"UpdateRoutes":                   "adds routes and returns all",
	"AddARPNeighbors":                "adds neighbours that are never asked for",
	"ListInterfaces":                 "lists interfaces",
	"ListRoutes":                     "lists routes",
	"GetIPTables":                    "returns the packet filter's rules, where the guest's image has `iptables-save`",
	"SetIPTables":                    "replaces them, where it has `iptables-restore`",
	"GetOOMEvent":                    "waits for the next container that runs out of memory (cgroup v1 and v2); denied, it waits for the end",
	"OnlineCPUMem":                   "takes plugged processors and memory into use",
	"MemHotplugByProbe":              "tells the kernel where memory was plugged in",
	"SetGuestDateTime":               "puts the clock forward, never back",
	"ReseedRandomDev":                "mixes bytes into the entropy pool; they are not counted as entropy",
	"AddSwap":                        "swaps to a disk by its PCI path, under a random key and with a tag for each sector",
	"AddSwapPath":                    "is the same by a disk's node",
	"UpdateEphemeralMounts":          "gives volumes in memory another size; what their mounts forbid stays forbidden",
	"GetVolumeStats":                 "tells how full a volume is",
	"ResizeVolume":                   "lets a filesystem, ext4 or XFS, have the disk that has become larger",
	"GetDiagnosticData":              "returns the end of a container's termination log, if that was empty when the container was made",
	"MemAgentMemcgSet":               "accepts that the memory agent stays off; it cannot be turned on: a confidential guest gives no memory back to its host",
	"MemAgentCompactSet":             "is like MemAgentMemcgSet",
	"RemoveStaleVirtiofsShareMounts": "has nothing to do",
}

// Reference is the page of the agent's methods, storages and devices.
func Reference() string {
	var b strings.Builder
	b.WriteString("# What a runtime can ask of the agent\n\n" +
		"The methods of `grpc.AgentService`. The rule that an agent policy needs for a method has the name of its request. The last column\n" +
		"says what happens without a policy: *answered*; *refused*, unless `insecure_no_agent_policy` waives it; *never*, for what changes the\n" +
		"machine below the pod.\n\n" +
		"| method | rule | what it does | without a policy |\n|---|---|---|---|\n")
	list := agent.File_agent_agent_proto.Services().ByName("AgentService").Methods()
	for i := range list.Len() {
		m := list.Get(i)
		without := "answered"
		switch request := string(m.Input().Name()); {
		case needsPolicy[request]:
			without = "never"
		case needsWaiver[request]:
			without = "refused"
		}
		fmt.Fprintf(&b, "| `%s` | `%s` | %s | %s |\n", m.Name(), m.Input().Name(), methods[string(m.Name())], without)
	}
	b.WriteString("\nA sandbox with kernel modules is *never* made without a policy, one with disks or shares of the host's is *refused*.\n\n" +
		"Drivers of storages: `" + strings.Join(sandbox.Drivers(), "`, `") + "`.\n\n" +
		"Kinds of devices for containers: `" + strings.Join(append(device.Kinds(), device.Passed), "`, `") + "`.\n")
	return b.String()
}
