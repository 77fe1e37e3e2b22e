package settings

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxCommandLine bounds the text in bytes; Linux itself takes 2048 on amd64.
const maxCommandLine = 64 << 10

// REST feature sets (guest-protocol 16).
const (
	FeaturesResource    = "resource"
	FeaturesAttestation = "attestation"
	FeaturesAll         = "all"
)

// commandLine is what the parameters say, validated one by one.
type commandLine struct {
	agent             Agent
	kbcParams         string // agent.aa_kbc_params: "<kbc-name>::<uri>"
	image             Image  // counts without an [image] table
	insecurePlainHTTP bool
	insecureNoPolicy  bool
	levelSet          bool
	credentials       []Credential
	warnings          []string
}

// parseCommandLine reads the agent.* parameters of kata-agent 3.2 that this
// agent has a use for, and our own vouchsafe.* ones. Words are split at
// white space; the last of equal keys wins, as in the kernel.
func parseCommandLine(text string) (commandLine, error) {
	c := commandLine{agent: Agent{
		ServerAddr:       "vsock://-1:1024",
		DataHubTimeout:   50 * time.Second,
		HotplugTimeout:   3 * time.Second,
		ImagePullTimeout: 1200 * time.Second,
		RESTFeatures:     FeaturesResource,
		Components:       REST,
	}}
	if len(text) > maxCommandLine {
		return c, fmt.Errorf("%d bytes long, at most %d are read", len(text), maxCommandLine)
	}
	for _, word := range strings.Fields(text) {
		key, value, _ := strings.Cut(word, "=")
		if err := c.set(key, value); err != nil {
			return c, fmt.Errorf("%s: %w", key, err)
		}
	}
	return c, nil
}

func (c *commandLine) set(key, value string) (err error) {
	switch key {
	case "agent.log":
		c.levelSet = true
		c.agent.LogLevel, err = parseLevel(value)
	case "cdh.kbs_resources":
		c.credentials, err = parseCredentials(value)
	case "agent.server_addr":
		c.agent.ServerAddr = value
	case "agent.cdh_api_timeout":
		c.agent.DataHubTimeout, err = parseSeconds(value)
	case "agent.hotplug_timeout":
		c.agent.HotplugTimeout, err = parseSeconds(value)
	case "agent.image_pull_timeout":
		c.agent.ImagePullTimeout, err = parseSeconds(value)
	case "agent.guest_components_rest_api":
		c.agent.RESTFeatures, err = parseFeatures(value)
	case "agent.aa_kbc_params":
		c.kbcParams = value
	case "agent.image_policy_file":
		c.image.PolicyURI = value
	case "agent.image_registry_auth":
		c.image.AuthURI = value
	case "agent.https_proxy":
		c.image.Proxy.HTTPS = value
	case "agent.http_proxy":
		c.image.Proxy.HTTP = value
	case "agent.no_proxy":
		c.image.Proxy.No = value
	case "agent.guest_components_procs":
		c.agent.Components, err = parseProcs(value)
	case "agent.enable_signature_verification", "agent.launch_process_timeout":
		// Upstream honours image_policy_file only when the first is true. Here
		// signatures are always verified, and there are no processes to wait for.
	case "agent.secure_storage_integrity":
		var integrity bool
		integrity, err = strconv.ParseBool(value)
		c.agent.InsecureNoStorageIntegrity = !integrity
	case "vouchsafe.image_disk":
		c.agent.ImageDisk = value
	case "vouchsafe.insecure_plain_http":
		c.insecurePlainHTTP, err = strconv.ParseBool(value)
	case "vouchsafe.guest_hooks":
		if c.agent.GuestHooks = value; !filepath.IsAbs(value) {
			err = fmt.Errorf("%q is no absolute path", value)
		}
	case "vouchsafe.insecure_no_agent_policy":
		c.insecureNoPolicy, err = strconv.ParseBool(value)
	default:
		if strings.HasPrefix(key, "agent.") || strings.HasPrefix(key, "cdh.") || strings.HasPrefix(key, "vouchsafe.") {
			c.warnings = append(c.warnings, "kernel command line: "+key)
		}
	}
	return err
}

func parseLevel(s string) (slog.Level, error) {
	switch s {
	case "trace", "debug":
		return slog.LevelDebug, nil
	case "info", "":
		return slog.LevelInfo, nil
	case "warn", "warning":
		return slog.LevelWarn, nil
	case "error", "critical":
		return slog.LevelError, nil
	}
	return 0, fmt.Errorf("%q is no log level", s)
}

func parseSeconds(s string) (time.Duration, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is no positive number of seconds", s)
	}
	return time.Duration(n) * time.Second, nil
}

// Components says which of upstream's daemons the agent stands in for beside its
// own service; each includes those before it (kata-agent 3.2).
type Components int

// The components, in the order of agent.guest_components_procs.
const (
	NoComponents Components = iota
	Attestation             // attestation-agent
	DataHub                 // confidential-data-hub
	REST                    // api-server-rest
)

func parseProcs(s string) (Components, error) {
	c := slices.Index([]string{"none", "attestation-agent", "confidential-data-hub", "api-server-rest"}, s)
	if c < 0 {
		return 0, fmt.Errorf("%q is no guest component", s)
	}
	return Components(c), nil
}

func parseFeatures(s string) (string, error) {
	switch s {
	case FeaturesResource, FeaturesAttestation, FeaturesAll:
		return s, nil
	}
	return "", fmt.Errorf("%q is no feature set: want resource, attestation or all", s)
}
