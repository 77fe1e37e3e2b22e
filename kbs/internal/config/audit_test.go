package config

import (
	"strings"
	"testing"
)

func TestAuditSinks(t *testing.T) {
	good := map[string]string{
		"file":    `name = 'disk'` + "\n" + `type = 'file'` + "\n" + `path = 'audit.jsonl'`,
		"webhook": `name = 'siem'` + "\n" + `type = 'webhook'` + "\n" + `url = 'https://siem.example/in'` + "\n" + `secret_file = 's'` + "\n" + `required = true` + "\n" + `max_lag_sec = 5`,
		"otlp":    `name = 'otel'` + "\n" + `type = 'otlp'` + "\n" + `url = 'https://otel.example'`,
		"syslog":  `name = 'sys'` + "\n" + `type = 'syslog'` + "\n" + `address = 'tls://log.example:6514'` + "\n" + `format = 'cef'` + "\n" + `ca_file = 'ca.pem'`,
	}
	parse := func(blocks ...string) error {
		c := Default(env(nil))
		text := ""
		for _, b := range blocks {
			text += "[[audit.sinks]]\n" + b + "\n"
		}
		if err := Parse([]byte(text), &c); err != nil {
			return err
		}
		return c.Validate()
	}
	for name, text := range good {
		if err := parse(text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := parse(good["file"], good["webhook"], good["otlp"], good["syslog"]); err != nil {
		t.Error(err)
	}
	for name, c := range map[string]struct{ text, want string }{
		"no type":              {`name = 'x'`, "audit.sinks[0].type"},
		"no name":              {`type = 'file'` + "\n" + `path = 'x'`, "unique name"},
		"no path":              {"name = 'x'\ntype = 'file'", "path: a sink of the type"},
		"another's setting":    {good["file"] + "\nurl = 'https://x'", "has no such setting"},
		"another's format":     {good["file"] + "\nformat = 'cef'", "format"},
		"plain http":           {"name = 'x'\ntype = 'otlp'\nurl = 'http://x'", "insecure_http allows it"},
		"user in the URL":      {"name = 'x'\ntype = 'otlp'\nurl = 'https://a:b@x'", "must be https"},
		"no secret":            {"name = 'x'\ntype = 'webhook'\nurl = 'https://x'", "secret_file"},
		"lag without required": {good["file"] + "\nmax_lag_sec = 5", "belong to a required sink"},
		"udp required":         {"name = 'x'\ntype = 'syslog'\naddress = 'udp://x:514'\nrequired = true", "udp confirms nothing"},
		"no port":              {"name = 'x'\ntype = 'syslog'\naddress = 'tcp://x'", "HOST:PORT"},
		"unknown transport":    {"name = 'x'\ntype = 'syslog'\naddress = 'relp://x:1'", "must begin with"},
		"CA without TLS":       {"name = 'x'\ntype = 'syslog'\naddress = 'tcp://x:1'\nca_file = 'x'", "belong to tls"},
		"half a pair":          {good["otlp"] + "\ncertificate = 'x'", "must be given together"},
		"fsync":                {good["file"] + "\nfsync = 'sometimes'", "fsync"},
		"unknown key":          {good["file"] + "\npaht = 'x'", "unknown key"},
	} {
		if err := parse(c.text); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if err := parse(good["file"], good["file"]); err == nil || !strings.Contains(err.Error(), "audit.sinks[1].name") {
		t.Errorf("one name twice: %v", err)
	}
	c := Default(env(nil))
	if err := Parse([]byte("[[audit.sinks]]\nname = 'x'\ntype = 'otlp'\nurl = 'http://x'\ninsecure_http = true\n"), &c); err != nil || len(c.Insecure()) != 1 {
		t.Errorf("%v, %v", c.Insecure(), err)
	}
}
