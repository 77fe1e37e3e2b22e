package config

import (
	"fmt"
	"net"
	"net/url"
	"regexp"
	"time"
)

// Plugin is one [[plugins]] block (kbs-protocol 8).
type Plugin struct {
	// Name is resource, which is built in, external or pkcs11.
	Name string `toml:"name"`
	// StorageBackendType is kvstorage, the broker's own store; other places are
	// mounted by resource_backends. It is for the plugin resource.
	StorageBackendType string `toml:"storage_backend_type,omitempty"`
	// Backends are for the plugin external.
	Backends []PluginBackend `toml:"backends,omitempty"`
	// Socket is for the plugin pkcs11: where the process kbs-pkcs11 serves the
	// objects and the key pair of a token.
	Socket string `toml:"socket,omitempty" kind:"path"`
}

// PluginBackend is a program that answers for the broker.
type PluginBackend struct {
	Name string `toml:"name"`
	// Endpoint is https://HOST:PORT, or http to a loopback address.
	Endpoint   string `toml:"endpoint"`
	CACertPath string `toml:"ca_cert_path,omitempty" kind:"path"` // PEM; "" means the system's roots
	// CertPath and KeyPath (PEM) prove the broker to the back end.
	CertPath  string `toml:"cert_path,omitempty" kind:"path"`
	KeyPath   string `toml:"key_path,omitempty" kind:"path"`
	TimeoutMS int    `toml:"timeout_ms,omitempty"` // of one call; 0 is 10 s
}

// Timeout of one call; 0 is the usual one.
func (b PluginBackend) Timeout() time.Duration { return time.Duration(b.TimeoutMS) * time.Millisecond }

// Names of plugins.
const (
	PluginResource = "resource"
	PluginExternal = "external"
	PluginPKCS11   = "pkcs11"
)

var pluginBackendName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

func validatePlugins(all []Plugin, p *problems) {
	seen := map[string]bool{}
	for i, x := range all {
		at := fmt.Sprintf("plugins[%d]", i)
		switch {
		case x.Name == PluginExternal && len(x.Backends) == 0:
			p.bad(at+".backends", "at least one is needed")
		case x.Name == PluginPKCS11 && x.Socket == "":
			p.bad(at+".socket", "the socket of kbs-pkcs11 is needed")
		case x.Name != PluginResource && x.Name != PluginExternal && x.Name != PluginPKCS11:
			p.bad(at+".name", "there is no plugin %q; resource is built in, pkcs11 asks a token, and external asks programs of yours", x.Name)
		case x.Name == PluginResource && x.StorageBackendType != "" && x.StorageBackendType != "kvstorage" && x.StorageBackendType != "KvStorage":
			p.bad(at+".storage_backend_type", "there is no back end %q here; kvstorage is the broker's own store, and [[resource_backends]] mounts others", x.StorageBackendType)
		case x.Name != PluginResource && x.StorageBackendType != "" || x.Name != PluginExternal && len(x.Backends) > 0 || x.Name != PluginPKCS11 && x.Socket != "":
			p.bad(at, "these keys are another plugin's")
		case seen[x.Name]:
			p.bad(at+".name", "%s is given twice", x.Name)
		}
		seen[x.Name] = true
		names := map[string]bool{}
		for j, b := range x.Backends {
			b.validate(fmt.Sprintf("%s.backends[%d]", at, j), p)
			if names[b.Name] {
				p.bad(at+".backends", "%s is given twice", b.Name)
			}
			names[b.Name] = true
		}
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
