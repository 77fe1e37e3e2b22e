package settings

import (
	"errors"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// image is one file of the image.
func image(path, text string) func(string) ([]byte, error) {
	return func(p string) ([]byte, error) {
		if p != path {
			return nil, os.ErrNotExist
		}
		return []byte(text), nil
	}
}

func from(t *testing.T, src Sources) *Settings {
	t.Helper()
	s, err := Load(src)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// What each parameter does, from both sources. A parameter without a row fails.
func TestEveryParameter(t *testing.T) {
	const warned = "a warning that names it"
	type row struct {
		value string // on the command line
		toml  string // in the file; empty: the value, quoted
		got   func(*Settings) any
		want  any
	}
	rows := map[string]row{
		"agent.log":                          {"debug", "", func(s *Settings) any { return s.Agent.LogLevel }, slog.LevelDebug},
		"agent.log_vport":                    {"1025", "1025", func(s *Settings) any { return s.Agent.LogPort }, uint32(1025)},
		"agent.server_addr":                  {"unix:///a", "", func(s *Settings) any { return s.Agent.ServerAddr }, "unix:///a"},
		"agent.cdh_api_timeout":              {"7", "{secs = 7, nanos = 0}", func(s *Settings) any { return s.Agent.DataHubTimeout }, 7 * time.Second},
		"agent.hotplug_timeout":              {"8", "8", func(s *Settings) any { return s.Agent.HotplugTimeout }, 8 * time.Second},
		"agent.image_pull_timeout":           {"9", "{secs = 9}", func(s *Settings) any { return s.Agent.ImagePullTimeout }, 9 * time.Second},
		"agent.container_pipe_size":          {"4096", "4096", func(s *Settings) any { return s.Agent.PipeSize }, 4096},
		"agent.guest_components_rest_api":    {"all", "", func(s *Settings) any { return s.Agent.RESTFeatures }, FeaturesAll},
		"agent.guest_components_procs":       {"none", "", func(s *Settings) any { return s.Agent.Components }, NoComponents},
		"agent.secure_storage_integrity":     {"false", "false", func(s *Settings) any { return s.Agent.InsecureNoStorageIntegrity }, true},
		"agent.https_proxy":                  {"http://p:1", "", func(s *Settings) any { return s.Image.Proxy.HTTPS }, "http://p:1"},
		"agent.http_proxy":                   {"http://p:2", "", func(s *Settings) any { return s.Image.Proxy.HTTP }, "http://p:2"},
		"agent.no_proxy":                     {"a,b", "", func(s *Settings) any { return s.Image.Proxy.No }, "a,b"},
		"agent.image_policy_file":            {"kbs:///a/b/c", "", func(s *Settings) any { return s.Image.PolicyURI }, "kbs:///a/b/c"},
		"agent.image_registry_auth":          {"kbs:///a/b/d", "", func(s *Settings) any { return s.Image.AuthURI }, "kbs:///a/b/d"},
		"agent.aa_kbc_params":                {"cc_kbc::https://kbs", "", func(s *Settings) any { return s.Broker.URL }, "https://kbs"},
		"cdh.kbs_resources":                  {"kbs:///a/b/c::" + CredentialDir + "/x", "", func(s *Settings) any { return len(s.Credentials) }, 1},
		"agent.config_file":                  {"/etc/agent.toml", "", func(s *Settings) any { return s.Agent.ServerAddr }, "unix:///of-the-file"},
		"policy_file":                        {"", "'/etc/policy.rego'", func(s *Settings) any { return s.Agent.Policy }, "package agent_policy"},
		"endpoints":                          {"", "{allowed = ['ListRoutes']}", func(s *Settings) any { return strings.Join(s.Agent.Endpoints, " ") }, "ListRoutes"},
		"vouchsafe.image_disk":               {"/dev/vdb", "", func(s *Settings) any { return s.Agent.ImageDisk }, "/dev/vdb"},
		"vouchsafe.guest_hooks":              {"/usr/hooks", "", func(s *Settings) any { return s.Agent.GuestHooks }, "/usr/hooks"},
		"vouchsafe.insecure_plain_http":      {"true", "", func(s *Settings) any { return s.Broker.InsecurePlainHTTP }, true},
		"vouchsafe.insecure_no_agent_policy": {"true", "", func(s *Settings) any { return s.Agent.InsecureNoPolicy }, true},
		// Read by the init: package boot has their tests.
		"ip": {value: "dhcp"}, "vouchsafe.dhcp_dns": {value: "1"}, "vouchsafe.insecure_module_loading": {value: "0"},
		"agent.enable_signature_verification": {"false", "false", nil, nil},
		"agent.launch_process_timeout":        {"1", "1", nil, nil},
		"agent.unified_cgroup_hierarchy":      {"1", "true", nil, nil},
		"agent.devmode":                       {"", "true", nil, nil},
		"supports_seccomp":                    {"", "true", nil, nil},
		"agent.debug_console":                 {"", "true", nil, warned},
		"agent.debug_console_vport":           {"1026", "1026", nil, warned},
		"agent.trace":                         {"true", "true", nil, warned},
		"agent.passfd_listener_port":          {"1027", "1027", nil, warned},
		"agent.cdi_timeout":                   {"5", "5", nil, warned},
		"agent.visible_cdi_devices":           {"all", "", nil, warned},
		"agent.mem_agent_enable":              {"1", "true", nil, warned},
	}
	check := func(t *testing.T, r row, key string, s *Settings) {
		t.Helper()
		names := func(w string) bool { return strings.Contains(w, ": "+key) }
		if r.want == warned {
			if !slices.ContainsFunc(s.Warnings, names) {
				t.Errorf("no warning: %q", s.Warnings)
			}
			return
		}
		if len(s.Warnings) > 0 {
			t.Errorf("warnings: %q", s.Warnings)
		}
		if r.got != nil && r.got(s) != r.want {
			t.Errorf("%v, want %v", r.got(s), r.want)
		}
	}
	for _, p := range parameters {
		name := p.name
		if name == "" {
			name = p.keys
		}
		r, ok := rows[name]
		if !ok {
			t.Errorf("%s: nothing shows what it does", name)
			continue
		}
		t.Run(name, func(t *testing.T) {
			files := func(path string) ([]byte, error) {
				if path == "/etc/policy.rego" {
					return []byte("package agent_policy"), nil
				}
				return image("/etc/agent.toml", "server_addr = 'unix:///of-the-file'")(path)
			}
			if p.name != "" {
				check(t, r, p.name, from(t, Sources{CommandLine: p.name + "=" + r.value, ReadImage: files}))
			}
			for _, key := range p.inFile() {
				value := r.toml
				if value == "" {
					value = "'" + r.value + "'"
				}
				read := func(path string) ([]byte, error) {
					if path == "/etc/own.toml" {
						return []byte(key + " = " + value), nil
					}
					return files(path)
				}
				check(t, r, key, from(t, Sources{ConfigFile: "/etc/own.toml", ReadImage: read}))
			}
			if want := "`" + p.name + "`"; p.name != "" && !strings.Contains(Reference(), want) {
				t.Errorf("%s is not in the reference", want)
			}
		})
	}
}

// What stands in quotes is somebody's value, as the kernel has it, and no parameter.
func TestQuotedWords(t *testing.T) {
	s := from(t, Sources{CommandLine: `dm-mod.create="root,,,ro, 0 8 verity vouchsafe.insecure_no_agent_policy=true " agent.no_proxy="a b" "agent.http_proxy=http://p:1"`})
	if s.Agent.InsecureNoPolicy {
		t.Error("a waiver was read out of another parameter's value")
	}
	if s.Image.Proxy.No != "a b" || s.Image.Proxy.HTTP != "http://p:1" {
		t.Errorf("%+v", s.Image.Proxy)
	}
}

// Beside a file, the words that the file could have said do not count, and are
// named; what the field's components read by themselves does.
func TestConfigFile(t *testing.T) {
	src := Sources{
		CommandLine: "agent.config_file=/etc/agent.toml agent.hotplug_timeout=9 agent.https_proxy=http://line agent.mem_agent_swap=1 agent.later=1",
		ReadImage:   image("/etc/agent.toml", "hotplug_timeout = 5\nhttps_proxy = 'http://file'\nno_proxy = 'x'\nmem_agent_period_secs = 3\nlater = 1\n"),
	}
	s := from(t, src)
	if s.Agent.HotplugTimeout != 5*time.Second || s.Image.Proxy.HTTPS != "http://line" || s.Image.Proxy.No != "x" {
		t.Errorf("%+v %+v", s.Agent, s.Image.Proxy)
	}
	for _, want := range []string{
		"kernel command line: agent.hotplug_timeout", "kernel command line: agent.mem_agent_swap", "kernel command line: agent.later",
		"configuration file: later", "configuration file: mem_agent_period_secs",
	} {
		if !slices.ContainsFunc(s.Warnings, func(w string) bool { return strings.HasPrefix(w, want) }) {
			t.Errorf("no warning of %q in %q", want, s.Warnings)
		}
	}
	src.ConfigFile, src.ReadImage = "/etc/other.toml", image("/etc/other.toml", "hotplug_timeout = 6")
	if s := from(t, src); s.Agent.HotplugTimeout != 6*time.Second {
		t.Errorf("the program's own flag does not win: %v", s.Agent.HotplugTimeout)
	}
}

func TestConfigFileRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"no TOML":            "= =",
		"a list":             "server_addr = ['a']",
		"part of a second":   "hotplug_timeout = {secs = 1, nanos = 5}",
		"no time":            "hotplug_timeout = {minutes = 1}",
		"a negative time":    "hotplug_timeout = -1",
		"a huge port":        "log_vport = 4294967295",
		"a negative port":    "log_vport = -1",
		"a huge pipe":        "container_pipe_size = 1048577",
		"endpoints, open":    "endpoints = true",
		"endpoints, more":    "[endpoints]\nallowed = []\nall = true",
		"endpoints, numbers": "[endpoints]\nallowed = [1]",
		"endpoints, no list": "[endpoints]\ndenied = []",
		"a policy of nobody": "policy_file = '/etc/nothing'",
		"too long":           "#" + strings.Repeat("x", maxDocument),
	} {
		if s, err := Load(Sources{ConfigFile: "/c", ReadImage: image("/c", text)}); err == nil {
			t.Errorf("%s is taken: %+v", name, s.Agent)
		} else if !strings.Contains(err.Error(), "file") {
			t.Errorf("%s: the error does not say where: %v", name, err)
		}
	}
	for name, src := range map[string]Sources{
		"no image":        {CommandLine: "agent.config_file=/c"},
		"not in it":       {CommandLine: "agent.config_file=/d", ReadImage: image("/c", "")},
		"empty policy":    {ReadImage: image("/p", " \n"), Getenv: func(string) string { return "/p" }},
		"a level of none": {Getenv: func(n string) string { return map[string]string{"KATA_AGENT_LOG_LEVEL": "loud"}[n] }},
	} {
		if _, err := Load(src); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

// The image's policy is in force where init-data brings none, and a waiver does
// not lift it.
func TestPolicyOfTheImage(t *testing.T) {
	env := func(n string) string { return map[string]string{"KATA_AGENT_POLICY_FILE": "/p"}[n] }
	src := Sources{Getenv: env, ReadImage: image("/p", "of the image"), CommandLine: "vouchsafe.insecure_no_agent_policy=true"}
	if s := from(t, src); s.Agent.Policy != "of the image" {
		t.Errorf("%q", s.Agent.Policy)
	}
	src.InitData = document(map[string]string{DocumentPolicy: "package of_the_owner"})
	if s := from(t, src); strings.TrimSpace(s.Agent.Policy) != "package of_the_owner" {
		t.Errorf("%q", s.Agent.Policy)
	}
}

func TestEnvironment(t *testing.T) {
	values := map[string]string{"KATA_AGENT_SERVER_ADDR": "unix:///e", "KATA_AGENT_LOG_LEVEL": "error", "KATA_AGENT_TRACING": "true"}
	s := from(t, Sources{CommandLine: "agent.server_addr=unix:///line agent.log=debug", Getenv: func(n string) string { return values[n] }})
	if s.Agent.ServerAddr != "unix:///e" || s.Agent.LogLevel != slog.LevelError || len(s.Warnings) != 1 {
		t.Errorf("%+v %q", s.Agent, s.Warnings)
	}
}

// Whatever a file says, it is taken or refused, and an endpoint that was closed
// is not opened by it.
func FuzzConfigFile(f *testing.F) {
	f.Add("hotplug_timeout = 5\n[endpoints]\nallowed = ['ListRoutes']\n")
	f.Add("log_vport = 255\ncontainer_pipe_size = 0")
	f.Add("[endpoints]")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Load(Sources{ConfigFile: "/c", ReadImage: func(p string) ([]byte, error) {
			if p != "/c" {
				return nil, errors.New("another file")
			}
			return []byte(text), nil
		}})
		if err != nil {
			return
		}
		if s.Agent.PipeSize < 0 || s.Agent.PipeSize > maxPipe || s.Agent.HotplugTimeout <= 0 {
			t.Errorf("%+v", s.Agent)
		}
	})
}
