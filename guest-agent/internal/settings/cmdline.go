package settings

import (
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/cmdline"
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
	configFile        string // agent.config_file
	policyFile        string
	credentials       []Credential
	warnings          []string
}

func newCommandLine() commandLine {
	return commandLine{agent: Agent{
		ServerAddr:       "vsock://-1:1024",
		DataHubTimeout:   50 * time.Second,
		HotplugTimeout:   3 * time.Second,
		ImagePullTimeout: 1200 * time.Second,
		RESTFeatures:     FeaturesResource,
		Components:       REST,
	}}
}

// parseCommandLine reads the kernel command line, the configuration file that it
// or the program's own flag names, and the environment, each over the one before.
// Words are those that the kernel sees; the last of equal keys wins, as there.
func parseCommandLine(src Sources) (commandLine, error) {
	c := newCommandLine()
	if len(src.CommandLine) > maxCommandLine {
		return c, fmt.Errorf("kernel command line: %d bytes long, at most %d are read", len(src.CommandLine), maxCommandLine)
	}
	words := cmdline.Words(src.CommandLine)
	for _, word := range words {
		if key, value, _ := strings.Cut(word, "="); key == "agent.config_file" {
			c.configFile = value
		}
	}
	if src.ConfigFile != "" {
		c.configFile = src.ConfigFile
	}
	if c.configFile != "" {
		raw, err := src.image(c.configFile)
		if err == nil {
			err = c.readConfigFile(raw)
		}
		if err != nil {
			return c, fmt.Errorf("configuration file %.200q: %w", c.configFile, err)
		}
	}
	file := c.configFile
	for _, word := range words {
		key, value, _ := strings.Cut(word, "=")
		if err := c.word(key, value, file != ""); err != nil {
			return c, fmt.Errorf("kernel command line: %w", err)
		}
	}
	c.configFile = file
	if err := c.environment(src.Getenv); err != nil {
		return c, err
	}
	return c, nil
}

// word takes one word of the command line. Beside a file, those that the file
// could have said do not count.
func (c *commandLine) word(key, value string, file bool) error {
	p, known := byName(key)
	switch {
	case known && file && !p.both && len(p.inFile()) > 0:
		c.warnings = append(c.warnings, "kernel command line: "+key+": the configuration file is read in its place")
	case known:
		return p.apply(c, "kernel command line", key, value)
	case strings.HasPrefix(key, "agent.") || strings.HasPrefix(key, "cdh.") || strings.HasPrefix(key, "vouchsafe."):
		c.warnings = append(c.warnings, "kernel command line: "+key)
	}
	return nil
}

// environment is that of the process: of a unit in the image, or of the words of
// the kernel command line that the kernel gives an init.
func (c *commandLine) environment(getenv func(string) string) error {
	if getenv == nil {
		return nil
	}
	for _, v := range []struct {
		name string
		set  func(c *commandLine, value string) error
	}{
		{"KATA_AGENT_SERVER_ADDR", text(func(c *commandLine) *string { return &c.agent.ServerAddr })},
		{"KATA_AGENT_LOG_LEVEL", setLevel},
		{"KATA_AGENT_POLICY_FILE", text(func(c *commandLine) *string { return &c.policyFile })},
		{"KATA_AGENT_TRACING", func(c *commandLine, value string) error {
			if !off(value) {
				c.warnings = append(c.warnings, "environment: KATA_AGENT_TRACING: no traces are made")
			}
			return nil
		}},
	} {
		if value := getenv(v.name); value != "" {
			if err := v.set(c, value); err != nil {
				return fmt.Errorf("environment: %s: %w", v.name, err)
			}
		}
	}
	return nil
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
