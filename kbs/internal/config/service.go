package config

import (
	"net"
	"time"
)

// ServiceListener is a listener through which the broker's verifier serves
// other brokers (kbs-protocol 11 and 12.3). Whoever reaches it may have
// evidence judged; what changes or shows the broker's state needs an
// administrator's token.
type ServiceListener struct {
	// Sockets are the addresses; none means that the service is off.
	Sockets []string `toml:"sockets"`
	// InsecureHTTP turns TLS off. Callers of the field often know no other way.
	InsecureHTTP bool `toml:"insecure_http"`
	// ClientCA is a PEM file of authorities: only callers with a certificate of
	// theirs get through. It needs TLS.
	ClientCA string `toml:"client_ca" kind:"path" file:"certificates"`
	// AdminNames are names in such certificates (DNS, URI, e-mail or common
	// name) whose bearers may change policies and reference values.
	AdminNames []string `toml:"admin_names"`
	// InsecureOpenChanges lets every caller change policies and reference
	// values, and read the latter, as in the field's services.
	InsecureOpenChanges bool `toml:"insecure_open_changes"`
	// MessageSize limits one request, in MiB.
	MessageSize int `toml:"message_size"`
	// TimeoutSeconds limits one call.
	TimeoutSeconds int `toml:"timeout_seconds"`
	// Concurrency is how many calls run at once; more wait for their turn, no
	// more of them than limits.attest_queue.
	Concurrency int `toml:"concurrency"`
	// CallsPerSecond limits the calls of one address; 0 is no limit. Failures are
	// limited as those of guests.
	CallsPerSecond int `toml:"calls_per_second"`
}

func defaultServiceListener() ServiceListener {
	return ServiceListener{Sockets: []string{}, AdminNames: []string{}, MessageSize: 8, TimeoutSeconds: 30, Concurrency: 64, CallsPerSecond: 1000}
}

// Timeout limits one call.
func (l ServiceListener) Timeout() time.Duration {
	return time.Duration(l.TimeoutSeconds) * time.Second
}

// MaxMessage limits one request, in bytes.
func (l ServiceListener) MaxMessage() int64 { return int64(l.MessageSize) << 20 }

func (l ServiceListener) insecure(at string) []string {
	var out []string
	if len(l.Sockets) == 0 {
		return nil
	}
	if l.InsecureHTTP {
		out = append(out, at+".insecure_http")
	}
	if l.InsecureOpenChanges {
		out = append(out, at+".insecure_open_changes")
	}
	return out
}

func (l ServiceListener) validate(at string, p *problems) {
	for _, s := range l.Sockets {
		if _, _, err := net.SplitHostPort(s); err != nil {
			p.bad(at+".sockets", "%q is not host:port", s)
		}
	}
	if l.ClientCA != "" && l.InsecureHTTP {
		p.bad(at+".client_ca", "needs TLS, which insecure_http turns off")
	}
	if len(l.AdminNames) > 0 && l.ClientCA == "" {
		p.bad(at+".admin_names", "needs client_ca, whose certificates carry the names")
	}
	p.between(at+".message_size", l.MessageSize, 1, 64)
	p.between(at+".timeout_seconds", l.TimeoutSeconds, 1, 600)
	p.between(at+".concurrency", l.Concurrency, 1, 4096)
	p.between(at+".calls_per_second", l.CallsPerSecond, 0, 1_000_000)
}

// RVPS says where reference values are served to other verifiers.
type RVPS struct {
	// GRPC is the Reference Value Provider Service of the field.
	GRPC ServiceListener `toml:"grpc"`
}

func defaultRVPS() RVPS { return RVPS{GRPC: defaultServiceListener()} }

func (r RVPS) insecure() []string { return r.GRPC.insecure("rvps.grpc") }

func (r RVPS) validate(p *problems) { r.GRPC.validate("rvps.grpc", p) }
