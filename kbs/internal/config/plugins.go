package config

import (
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/plugin/nebulaca"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/plugin/provisioner"
)

// Plugin is one [[plugins]] block (kbs-protocol 8).
type Plugin struct {
	// Name is resource, which is built in, external, pkcs11, nebula-ca or
	// provisioner.
	Name string `toml:"name"`
	// StorageBackendType is kvstorage, the broker's own store; other places are
	// mounted by resource_backends. It is for the plugin resource.
	StorageBackendType string `toml:"storage_backend_type,omitempty"`
	// Backends are for the plugin external.
	Backends []PluginBackend `toml:"backends,omitempty"`
	// Socket is for the plugin pkcs11: where the process kbs-pkcs11 serves the
	// objects and the key pair of a token.
	Socket string `toml:"socket,omitempty" kind:"path"`
	// CAConfig is for the plugin nebula-ca: what each tenant's certificate
	// authority is made with, and what it may sign at most.
	CAConfig *NebulaCA `toml:"ca_config,omitempty"`
	// KeyLength is for the plugin provisioner: characters of a new key, 22 to
	// 512; 0 is 32.
	KeyLength int `toml:"key_length,omitempty"`
}

// NebulaCA is a certificate authority for Nebula networks. Lists are separated by
// commas. What stands here when an authority is made is in its certificate; what
// stands here later holds beside that, so that it can be narrowed.
type NebulaCA struct {
	// Name of the authority.
	Name string `toml:"name,omitempty"`
	// Curve is 25519, which is meant by "", or P256.
	Curve string `toml:"curve,omitempty"`
	// Duration is how long an authority lasts, such as 8760h0m0s, which is meant
	// by "".
	Duration string `toml:"duration,omitempty"`
	// Groups are those that certificates may name; "" allows all.
	Groups string `toml:"groups,omitempty"`
	// IPs are IPv4 networks in which the addresses of certificates must be; ""
	// allows all.
	IPs string `toml:"ips,omitempty"`
	// Subnets are IPv4 networks in which the subnets of certificates must be; ""
	// allows all.
	Subnets string `toml:"subnets,omitempty"`
}

// Settings are those of the plugin.
func (c *NebulaCA) Settings() nebulaca.Settings {
	if c == nil {
		return nebulaca.Settings{}
	}
	return nebulaca.Settings{Name: c.Name, Curve: c.Curve, Duration: c.Duration, Groups: c.Groups, IPs: c.IPs, Subnets: c.Subnets}
}

// PluginBackend is a program that answers for the broker.
type PluginBackend struct {
	Name string `toml:"name"`
	// Endpoint is https://HOST:PORT, or http to a loopback address.
	Endpoint   string `toml:"endpoint"`
	CACertPath string `toml:"ca_cert_path,omitempty" kind:"path" file:"certificates"` // PEM; "" means the system's roots
	// CertPath and KeyPath (PEM) prove the broker to the back end.
	CertPath  string `toml:"cert_path,omitempty" kind:"path" file:"chain=key_path"`
	KeyPath   string `toml:"key_path,omitempty" kind:"path" file:"some"`
	TimeoutMS int    `toml:"timeout_ms,omitempty"` // of one call; 0 is 10 s
}

// Timeout of one call; 0 is the usual one.
func (b PluginBackend) Timeout() time.Duration { return time.Duration(b.TimeoutMS) * time.Millisecond }

// Names of plugins.
const (
	PluginResource    = "resource"
	PluginExternal    = "external"
	PluginPKCS11      = "pkcs11"
	PluginNebulaCA    = nebulaca.Name
	PluginProvisioner = provisioner.Name
)

var pluginBackendName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

func validatePlugins(all []Plugin, p *problems) {
	seen := map[string]bool{}
	for i, x := range all {
		at := fmt.Sprintf("plugins[%d]", i)
		switch {
		case !slices.Contains([]string{PluginResource, PluginExternal, PluginPKCS11, PluginNebulaCA, PluginProvisioner}, x.Name):
			p.bad(at+".name", "there is no plugin %q; resource, nebula-ca and provisioner are built in, pkcs11 asks a token, and external asks programs of yours", x.Name)
		case x.others():
			p.bad(at, "these keys are another plugin's")
		case seen[x.Name]:
			p.bad(at+".name", "%s is given twice", x.Name)
		default:
			x.validate(at, p)
		}
		seen[x.Name] = true
	}
}

// others reports whether keys are given that belong to another plugin.
func (x Plugin) others() bool {
	for name, given := range map[string]bool{
		PluginResource: x.StorageBackendType != "", PluginExternal: len(x.Backends) > 0, PluginPKCS11: x.Socket != "",
		PluginNebulaCA: x.CAConfig != nil, PluginProvisioner: x.KeyLength != 0,
	} {
		if given && name != x.Name {
			return true
		}
	}
	return false
}

func (x Plugin) validate(at string, p *problems) {
	switch x.Name {
	case PluginResource:
		if x.StorageBackendType != "" && x.StorageBackendType != "kvstorage" && x.StorageBackendType != "KvStorage" {
			p.bad(at+".storage_backend_type", "there is no back end %q here; kvstorage is the broker's own store, and [[resource_backends]] mounts others", x.StorageBackendType)
		}
	case PluginPKCS11:
		if x.Socket == "" {
			p.bad(at+".socket", "the socket of kbs-pkcs11 is needed")
		}
	case PluginNebulaCA:
		for _, bad := range x.CAConfig.Settings().Check() {
			p.bad(at+".ca_config."+bad.Key, "%s", bad.What)
		}
	case PluginProvisioner:
		if x.KeyLength != 0 {
			p.between(at+".key_length", x.KeyLength, provisioner.MinLength, provisioner.MaxLength)
		}
	case PluginExternal:
		if len(x.Backends) == 0 {
			p.bad(at+".backends", "at least one is needed")
		}
	}
	names := map[string]bool{}
	for j, b := range x.Backends {
		b.validate(fmt.Sprintf("%s.backends[%d]", at, j), p)
		if names[b.Name] {
			p.bad(at+".backends", "%s is given twice", b.Name)
		}
		names[b.Name] = true
	}
}

func (b PluginBackend) validate(at string, p *problems) {
	if !pluginBackendName.MatchString(b.Name) {
		p.bad(at+".name", "%q must be 1 to 64 of letters, digits, - and _", b.Name)
	}
	u, err := url.Parse(b.Endpoint)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		p.bad(at+".endpoint", "must be https://HOST:PORT, is %q", b.Endpoint)
	case u.Scheme == "http" && !loopbackHost(u.Hostname()):
		p.bad(at+".endpoint", "plain http would show what guests get to the network: use https")
	}
	if (b.CertPath == "") != (b.KeyPath == "") {
		p.bad(at, "cert_path and key_path must be given together")
	}
	if b.TimeoutMS < 0 || b.TimeoutMS > 60_000 {
		p.bad(at+".timeout_ms", "must be from 0 to 60000, is %d", b.TimeoutMS)
	}
}

func loopbackHost(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
