package settings

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// use is what becomes of a parameter.
type use string

const (
	honoured use = "honoured"
	// accepted parameters ask for what is so anyway, or for nothing.
	accepted use = "accepted"
	// ignored ones ask for what this agent does not have; the log names them.
	ignored use = "ignored"
)

// parameter is one of the field's agent (kata-agent 3.2) or of ours.
type parameter struct {
	name string // on the kernel command line
	// keys are its names in the configuration file; none: it is not for the file.
	keys string
	// both counts on the command line beside a file too: the field's components
	// read these by themselves (guest-protocol 19).
	both bool
	use  use
	says string // for the reference page
	set  func(c *commandLine, value string) error
}

// parameters is the whole of what is known; anything else is named in the log.
var parameters = []parameter{
	{"agent.log", "log log_level", false, honoured, "level of the log: trace, debug, info (the default), warn, error or critical", setLevel},
	{"agent.log_vport", "log_vport", false, honoured, "vsock port where the log is had instead of on the console, as JSON lines; the Rust runtime asks for 1025", setLogPort},
	{"agent.server_addr", "server_addr", false, honoured, "where the runtime finds the agent; vsock://-1:1024 by default", text(func(c *commandLine) *string { return &c.agent.ServerAddr })},
	{"agent.cdh_api_timeout", "cdh_api_timeout", false, honoured, "seconds that a question to the broker may take (50)", seconds(func(c *commandLine) *time.Duration { return &c.agent.DataHubTimeout })},
	{"agent.hotplug_timeout", "hotplug_timeout", false, honoured, "seconds to wait for a device that the host plugs in (3)", seconds(func(c *commandLine) *time.Duration { return &c.agent.HotplugTimeout })},
	{"agent.image_pull_timeout", "image_pull_timeout", false, honoured, "seconds that a pull may take (1200)", seconds(func(c *commandLine) *time.Duration { return &c.agent.ImagePullTimeout })},
	{"agent.container_pipe_size", "container_pipe_size", false, honoured, "bytes that a container's output may be ahead of its reader, at most 1048576; 0 for the usual 262144", setPipeSize},
	{"agent.guest_components_rest_api", "guest_components_rest_api", false, honoured, "what workloads may ask on loopback: resource (the default), attestation or all", setFeatures},
	{"agent.guest_components_procs", "guest_components_procs", false, honoured, "which of the field's daemons the agent stands in for, each with those before it: none, attestation-agent, confidential-data-hub or api-server-rest (the default)", setProcs},
	{"agent.secure_storage_integrity", "secure_storage_integrity", false, honoured, "whether encrypted volumes notice that the host alters them (true)", setIntegrity},
	{"agent.https_proxy", "https_proxy", true, honoured, "proxy for registries", text(func(c *commandLine) *string { return &c.image.Proxy.HTTPS })},
	{"agent.http_proxy", "http_proxy", true, honoured, "the same for registries over plain HTTP", text(func(c *commandLine) *string { return &c.image.Proxy.HTTP })},
	{"agent.no_proxy", "no_proxy", true, honoured, "hosts that are reached without", text(func(c *commandLine) *string { return &c.image.Proxy.No })},
	{"agent.image_policy_file", "image_policy_file", true, honoured, "where the image policy lies: kbs://, file:// or a path. Counts without an [image] table in cdh.toml", text(func(c *commandLine) *string { return &c.image.PolicyURI })},
	{"agent.image_registry_auth", "image_registry_auth", true, honoured, "where the registries' passwords lie; the same", text(func(c *commandLine) *string { return &c.image.AuthURI })},
	{"agent.aa_kbc_params", "", true, honoured, "cc_kbc::URL of the broker, if neither aa.toml nor cdh.toml is there", text(func(c *commandLine) *string { return &c.kbcParams })},
	{"cdh.kbs_resources", "", true, honoured, "resources that are written to files before anything is served: URI::PATH,...", setCredentials},
	{"agent.config_file", "", false, honoured, "file of the image with the keys of this table, in place of the words above it on the command line", text(func(c *commandLine) *string { return &c.configFile })},
	{"", "policy_file", false, honoured, "file of the image with the agent policy that is in force where init-data brings none", text(func(c *commandLine) *string { return &c.policyFile })},
	{"", "endpoints", false, honoured, "table with `allowed`: the requests that are answered at all, before any policy is asked", nil},
	{"agent.enable_signature_verification", "enable_signature_verification", true, accepted, "signatures are always judged, by the image policy", nil},
	{"agent.launch_process_timeout", "launch_process_timeout", false, accepted, "there are no processes to wait for", nil},
	{"agent.unified_cgroup_hierarchy", "unified_cgroup_hierarchy", false, accepted, "the hierarchy that is mounted is taken", nil},
	{"agent.devmode", "devmode dev_mode", false, accepted, "has no effect in the field either", nil},
	{"", "supports_seccomp", false, accepted, "the OCI runtime is asked", nil},
	{"agent.debug_console", "debug_console", false, ignored, "there is no shell in the guest; see below", nil},
	{"agent.debug_console_vport", "debug_console_vport", false, ignored, "as above", nil},
	{"agent.trace", "trace tracing", false, ignored, "no traces are made; the log has how long each call took, at level debug", nil},
	{"agent.passfd_listener_port", "passfd_listener_port", false, ignored, "streams of containers go over the protocol alone", nil},
	{"agent.cdi_timeout", "cdi_timeout", false, ignored, "CDI devices are refused", nil},
	{"agent.visible_cdi_devices", "visible_cdi_devices", false, ignored, "as above", nil},
	{"agent.mem_agent_enable", "mem_agent_enable", false, ignored, "there is no memory agent: see MemAgentMemcgSet above", nil},
	{"vouchsafe.image_disk", "", true, honoured, "disk of the host's that images are kept on, encrypted", text(func(c *commandLine) *string { return &c.agent.ImageDisk })},
	{"vouchsafe.guest_hooks", "", true, honoured, "directory of the image with programs that a runtime may have run around containers", setHooks},
	{"ip", "", true, honoured, "the network of a machine whose init the agent is, as the kernel's nfsroot.rst has it: CLIENT::GATEWAY:NETMASK::DEVICE:none:DNS0:DNS1, or :::::DEVICE:dhcp, or dhcp", nil},
	{"vouchsafe.dhcp_dns", "", true, honoured, "true: a DHCP server also says who resolves names, where ip= does not", nil},
	{"vouchsafe.insecure_module_loading", "", true, honoured, "true: kernel modules can be loaded after the start of such a machine", nil},
	{"vouchsafe.insecure_plain_http", "", true, honoured, "true: the broker may be asked over HTTP", boolean(func(c *commandLine) *bool { return &c.insecurePlainHTTP })},
	{"vouchsafe.insecure_no_agent_policy", "", true, honoured, "true: containers run although no agent policy is in force", boolean(func(c *commandLine) *bool { return &c.insecureNoPolicy })},
}

func (p parameter) inFile() []string { return strings.Fields(p.keys) }

// apply gives the parameter a value, from either source.
func (p parameter) apply(c *commandLine, source, key, value string) error {
	if p.use == ignored && !off(value) {
		c.warnings = append(c.warnings, source+": "+key+": "+p.says)
	}
	if p.set == nil {
		return nil
	}
	if err := p.set(c, value); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

// off is a value that asks for nothing.
func off(value string) bool { return value == "0" || value == "false" }

// byName finds a parameter of the command line, byKey one of the file.
func byName(name string) (parameter, bool) {
	for _, p := range parameters {
		if p.name == name && name != "" {
			return p, true
		}
	}
	if strings.HasPrefix(name, "agent.mem_agent_") {
		return byName("agent.mem_agent_enable")
	}
	return parameter{}, false
}

func byKey(key string) (parameter, bool) {
	for _, p := range parameters {
		for _, k := range p.inFile() {
			if k == key {
				return p, true
			}
		}
	}
	if strings.HasPrefix(key, "mem_agent_") && key != "mem_agent_enable" {
		return byKey("mem_agent_enable")
	}
	return parameter{}, false
}

func text(field func(*commandLine) *string) func(*commandLine, string) error {
	return func(c *commandLine, value string) error {
		*field(c) = value
		return nil
	}
}

func seconds(field func(*commandLine) *time.Duration) func(*commandLine, string) error {
	return func(c *commandLine, value string) (err error) {
		*field(c), err = parseSeconds(value)
		return err
	}
}

func boolean(field func(*commandLine) *bool) func(*commandLine, string) error {
	return func(c *commandLine, value string) (err error) {
		*field(c), err = strconv.ParseBool(value)
		return err
	}
}

func setLevel(c *commandLine, value string) (err error) {
	c.levelSet = true
	c.agent.LogLevel, err = parseLevel(value)
	return err
}

func setFeatures(c *commandLine, value string) (err error) {
	c.agent.RESTFeatures, err = parseFeatures(value)
	return err
}

func setProcs(c *commandLine, value string) (err error) {
	c.agent.Components, err = parseProcs(value)
	return err
}

func setCredentials(c *commandLine, value string) (err error) {
	c.credentials, err = parseCredentials(value)
	return err
}

func setIntegrity(c *commandLine, value string) error {
	integrity, err := strconv.ParseBool(value)
	c.agent.InsecureNoStorageIntegrity = !integrity
	return err
}

func setHooks(c *commandLine, value string) error {
	if c.agent.GuestHooks = value; !filepath.IsAbs(value) {
		return fmt.Errorf("%q is no absolute path", value)
	}
	return nil
}

// setLogPort takes 0 for none, as the field does.
func setLogPort(c *commandLine, value string) error {
	n, err := strconv.ParseUint(value, 10, 32)
	if err != nil || n == 1<<32-1 { // the kernel's word for any port
		return fmt.Errorf("%.20q is no vsock port", value)
	}
	c.agent.LogPort = uint32(n)
	return nil
}

// maxPipe is what a pipe may hold in bytes: the kernel's own limit for programs
// that are not root (fs.pipe-max-size).
const maxPipe = 1 << 20

func setPipeSize(c *commandLine, value string) error {
	n, err := strconv.ParseUint(value, 10, 32)
	if err != nil || n > maxPipe {
		return fmt.Errorf("%.20q is no size of a pipe: want 0 to %d bytes", value, maxPipe)
	}
	c.agent.PipeSize = int(n)
	return nil
}

// Reference is the page's part about parameters.
func Reference() string {
	var b strings.Builder
	b.WriteString("\n# Parameters\n\n" +
		"What the measured kernel command line, and the configuration file that it may name, say to the agent. What is *ignored*, and what nobody\n" +
		"knows, is named in the agent's log.\n\n" +
		"| on the command line | in the file | | meaning |\n|---|---|---|---|\n")
	for _, p := range parameters {
		name := "—"
		if p.name != "" {
			name = "`" + p.name + "`"
		}
		keys := "—"
		if k := p.inFile(); len(k) > 0 {
			keys = "`" + strings.Join(k, "`, `") + "`"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", name, keys, p.use, p.says)
	}
	b.WriteString(`
The file is TOML, and must lie on the root file system, which is measured; ` + "`--config`" + ` of ` + "`guest-agent serve`" + ` names it too. With a file, those words of the
command line that have a key in it count no more, as in the field, but for what the field's components read by themselves (proxies, image policy,
passwords). Times in the file are seconds, or tables of ` + "`secs` and `nanos`" + `. In the environment, ` + "`KATA_AGENT_SERVER_ADDR`, `KATA_AGENT_LOG_LEVEL` and\n`KATA_AGENT_POLICY_FILE`" + ` win over
both, and ` + "`KATA_AGENT_TRACING`" + ` is ignored.

There is no debug console: nothing in the guest could serve as a shell, and none may be asked for by a host. What helps instead: ` + "`crictl exec`" + `
in a container, if the pod's policy allows it; the agent's log, on the console or at its port, at level debug; the causes of refusals, for the owner,
by ` + "`kbsctl explain TICKET`" + ` or in the journal in the guest; and ` + "`guest-agent genpolicy --learn`" + ` for what a policy refuses.
`)
	return b.String()
}
