package config

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"time"
)

// Types of audit sinks.
const (
	SinkFile    = "file"
	SinkSyslog  = "syslog"
	SinkWebhook = "webhook"
	SinkOTLP    = "otlp"
)

// Forms in which sinks write entries.
const (
	FormOCSF  = "ocsf"
	FormEntry = "entry"
	FormCEF   = "cef"
)

// Audit settings.
type Audit struct {
	// CheckpointIntervalSec is how often a log that grew is signed. It is signed
	// on request too.
	CheckpointIntervalSec int         `toml:"checkpoint_interval_sec"`
	Sinks                 []AuditSink `toml:"sinks"`
}

// AuditSink is a place to which every entry of the audit log is delivered, at
// least once and in order. The members that are left out have the defaults
// that they tell.
type AuditSink struct {
	// Name is unique, and stays: what was delivered is remembered under it.
	Name string `toml:"name"`
	// Type is "file", "syslog", "webhook" or "otlp".
	Type string `toml:"type"`
	// Format is "ocsf" (by default), "entry" (as it was hashed), or for syslog
	// "cef".
	Format string `toml:"format,omitempty"`
	// Required makes the broker fail closed: releases and changes by
	// administrators are refused while the sink is too far behind.
	Required bool `toml:"required,omitempty"`
	// MaxLagSec is how old the oldest entry that a required sink has not
	// confirmed may be, by default 60.
	MaxLagSec int `toml:"max_lag_sec,omitempty"`
	// MaxLagEntries is how many entries a required sink may not have confirmed,
	// by default any number.
	MaxLagEntries int `toml:"max_lag_entries,omitempty"`

	// Path of a file sink's file, one event a line.
	Path string `toml:"path,omitempty" kind:"path"`
	// MaxSizeMiB is the size at which a file is renamed and a new one begun, by
	// default 100.
	MaxSizeMiB int `toml:"max_size_mib,omitempty"`
	// Keep is how many renamed files remain, by default all.
	Keep int `toml:"keep,omitempty"`
	// Fsync is "batch" (by default: what is confirmed is on disk) or "none".
	Fsync string `toml:"fsync,omitempty"`

	// URL of a webhook, or of an OTLP receiver without its /v1/logs.
	URL string `toml:"url,omitempty"`
	// Address of a syslog receiver: unix:///dev/log, udp://HOST:PORT,
	// tcp://HOST:PORT or tls://HOST:PORT.
	Address string `toml:"address,omitempty"`
	// CAFile (PEM) verifies the receiver's certificate; "" means the system's
	// roots.
	CAFile string `toml:"ca_file,omitempty" kind:"path" file:"certificates"`
	// Certificate and PrivateKey (PEM) are shown to a receiver that asks.
	Certificate string `toml:"certificate,omitempty" kind:"path" file:"chain=private_key"`
	PrivateKey  string `toml:"private_key,omitempty" kind:"path" file:"some"`
	// SecretFile has the key of a webhook's signature header. It is read for
	// every batch.
	SecretFile string `toml:"secret_file,omitempty" kind:"path" file:"some"`
	// AuthorizationFile has the value of the Authorization header. It is read
	// for every batch.
	AuthorizationFile string `toml:"authorization_file,omitempty" kind:"path" file:"some"`
	// InsecureHTTP allows an http URL, over which everybody can read the log.
	InsecureHTTP bool `toml:"insecure_http,omitempty"`
	// TimeoutSec limits one delivery, by default 10.
	TimeoutSec int `toml:"timeout_sec,omitempty"`
}

func defaultAudit() Audit { return Audit{CheckpointIntervalSec: 10, Sinks: []AuditSink{}} }

// CheckpointInterval is how often a log that grew is signed.
func (a Audit) CheckpointInterval() time.Duration {
	return time.Duration(a.CheckpointIntervalSec) * time.Second
}

// Form is the format in force.
func (s AuditSink) Form() string { return cmp.Or(s.Format, FormOCSF) }

// MaxLag is the age in force.
func (s AuditSink) MaxLag() time.Duration {
	return time.Duration(cmp.Or(s.MaxLagSec, 60)) * time.Second
}

// MaxSize is the size in force, in bytes.
func (s AuditSink) MaxSize() int64 { return int64(cmp.Or(s.MaxSizeMiB, 100)) << 20 }

// Timeout is that of one delivery.
func (s AuditSink) Timeout() time.Duration {
	return time.Duration(cmp.Or(s.TimeoutSec, 10)) * time.Second
}

func (a Audit) insecure() []string {
	var out []string
	for _, s := range a.Sinks {
		if s.InsecureHTTP {
			out = append(out, "audit.sinks.insecure_http: "+s.Name)
		}
	}
	return out
}

var sinkName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,31}$`)

func (a Audit) validate(p *problems) {
	p.between("audit.checkpoint_interval_sec", a.CheckpointIntervalSec, 1, 3600)
	seen := map[string]bool{}
	for i, s := range a.Sinks {
		at := index("audit.sinks", i)
		if !sinkName.MatchString(s.Name) || seen[s.Name] {
			p.bad(at+".name", "%q is not a unique name of [a-z0-9_-]", s.Name)
		}
		seen[s.Name] = true
		s.validate(at, p)
	}
}

// sinkMembers are those of one type of sink: the ones that it needs, and the ones
// that it may have.
var sinkMembers = map[string]struct{ needs, takes []string }{
	SinkFile:    {[]string{"path"}, []string{"max_size_mib", "keep", "fsync"}},
	SinkSyslog:  {[]string{"address"}, []string{"ca_file", "certificate", "private_key", "timeout_sec"}},
	SinkWebhook: {[]string{"url", "secret_file"}, []string{"ca_file", "certificate", "private_key", "authorization_file", "insecure_http", "timeout_sec"}},
	SinkOTLP:    {[]string{"url"}, []string{"ca_file", "certificate", "private_key", "authorization_file", "insecure_http", "timeout_sec"}},
}

// given lists the members that only some types have, and whether they are set.
func (s AuditSink) given() map[string]bool {
	return map[string]bool{
		"path": s.Path != "", "max_size_mib": s.MaxSizeMiB != 0, "keep": s.Keep != 0, "fsync": s.Fsync != "", "url": s.URL != "",
		"address": s.Address != "", "ca_file": s.CAFile != "", "certificate": s.Certificate != "", "private_key": s.PrivateKey != "",
		"secret_file": s.SecretFile != "", "authorization_file": s.AuthorizationFile != "", "insecure_http": s.InsecureHTTP, "timeout_sec": s.TimeoutSec != 0,
	}
}

func (s AuditSink) validate(at string, p *problems) {
	of, ok := sinkMembers[s.Type]
	if !ok {
		p.oneOf(at+".type", s.Type, SinkFile, SinkSyslog, SinkWebhook, SinkOTLP)
		return
	}
	for name, set := range s.given() {
		switch needed := slices.Contains(of.needs, name); {
		case needed && !set:
			p.bad(at+"."+name, "a sink of the type %q needs it", s.Type)
		case set && !needed && !slices.Contains(of.takes, name):
			p.bad(at+"."+name, "a sink of the type %q has no such setting", s.Type)
		}
	}
	forms := []string{FormOCSF, FormEntry}
	if s.Type == SinkSyslog {
		forms = append(forms, FormCEF)
	}
	p.oneOf(at+".format", s.Form(), forms...)
	p.oneOf(at+".fsync", cmp.Or(s.Fsync, "batch"), "batch", "none")
	p.between(at+".max_lag_sec", cmp.Or(s.MaxLagSec, 60), 1, 86400)
	p.between(at+".max_lag_entries", s.MaxLagEntries, 0, 1<<30)
	p.between(at+".max_size_mib", cmp.Or(s.MaxSizeMiB, 100), 1, 1<<20)
	p.between(at+".keep", s.Keep, 0, 1<<20)
	p.between(at+".timeout_sec", cmp.Or(s.TimeoutSec, 10), 1, 20)
	if !s.Required && (s.MaxLagSec != 0 || s.MaxLagEntries != 0) {
		p.bad(at, "max_lag_sec and max_lag_entries belong to a required sink")
	}
	if (s.Certificate == "") != (s.PrivateKey == "") {
		p.bad(at, "certificate and private_key must be given together")
	}
	if s.URL != "" {
		if err := s.checkURL(); err != nil {
			p.bad(at+".url", "%v", err)
		}
	}
	if s.Address != "" {
		if err := s.checkAddress(); err != nil {
			p.bad(at+".address", "%v", err)
		}
	}
}

func (s AuditSink) checkURL() error {
	u, err := url.Parse(s.URL)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.Fragment != "" || (u.Scheme != "https" && u.Scheme != "http"):
		return errors.New("must be https://HOST[:PORT][/PATH]")
	case u.Scheme == "http" && !s.InsecureHTTP:
		return errors.New("plain http would show the log to the network; insecure_http allows it")
	}
	return nil
}

func (s AuditSink) checkAddress() error {
	u, err := url.Parse(s.Address)
	if err != nil || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return errors.New("must be unix:///PATH, or udp, tcp or tls and ://HOST:PORT")
	}
	switch u.Scheme {
	case "unix":
		if u.Host != "" || u.Path == "" {
			return errors.New("must be unix:///PATH")
		}
	case "udp", "tcp", "tls":
		if u.Hostname() == "" || u.Port() == "" || u.Path != "" {
			return fmt.Errorf("must be %s://HOST:PORT", u.Scheme)
		}
	default:
		return errors.New("must begin with unix, udp, tcp or tls")
	}
	if s.Required && u.Scheme == "udp" {
		return errors.New("udp confirms nothing, so such a sink cannot be required")
	}
	if u.Scheme != "tls" && (s.CAFile != "" || s.Certificate != "") {
		return errors.New("ca_file and certificate belong to tls")
	}
	return nil
}
