package config

import (
	"net"
)

// HTTPServer says where and how the broker listens.
type HTTPServer struct {
	// Sockets are the addresses for guests: /kbs/v0 and /v1/guest.
	Sockets []string `toml:"sockets"`
	// AdminSockets are the addresses for administrators: /v1 and /kbs/v0.
	AdminSockets []string `toml:"admin_sockets"`
	// MetricsSockets are the addresses for probes and metrics, in clear: /livez,
	// /readyz, /startupz, /healthz and /metrics. Empty means none.
	MetricsSockets []string `toml:"metrics_sockets"`
	// InsecureGuestMetrics serves /metrics on the guests' sockets too, as the
	// field's broker does, to anybody.
	InsecureGuestMetrics bool `toml:"insecure_guest_metrics"`
	// InsecureHTTP turns TLS off.
	InsecureHTTP bool `toml:"insecure_http"`
	// Compat401 answers refusals under /kbs/v0 with status 401 as the field's
	// broker does, for clients that look for it. Such clients attest again
	// after each refusal.
	Compat401 bool `toml:"compat_401"`
	// PrivateKey is a PEM file. It and certificate come together or not at all;
	// without them the broker makes a certificate for loopback names.
	PrivateKey string `toml:"private_key" kind:"path" file:"private key"`
	// Certificate is a PEM file with the chain, the leaf first.
	Certificate string `toml:"certificate" kind:"path" file:"chain=private_key"`
	// TLSProfile is intermediate (TLS 1.2 and 1.3), modern (TLS 1.3 only) or
	// custom, which differs from intermediate in nothing but its name.
	TLSProfile string `toml:"tls_profile"`
	// TLSMinVersion is 1.2 or 1.3; empty means that of the profile.
	TLSMinVersion string `toml:"tls_min_version"`
	// TLSMaxVersion is 1.2 or 1.3; empty means 1.3.
	TLSMaxVersion string `toml:"tls_max_version"`
	// TLSCiphers are the suites of TLS 1.2 by their OpenSSL names, separated by
	// colons. Those of TLS 1.3 are not a choice.
	TLSCiphers string `toml:"tls_ciphers"`
	// TLSGroups are the key agreements by their OpenSSL names, separated by
	// colons. Empty means the usual ones, with X25519MLKEM768 first.
	TLSGroups string `toml:"tls_groups"`
	// PayloadRequestSize limits a request body, in MiB.
	PayloadRequestSize int `toml:"payload_request_size"`
	// WorkerCount is the number of CPUs that the broker uses at once; 0 means
	// all of them.
	WorkerCount int `toml:"worker_count"`
}

func defaultHTTPServer() HTTPServer {
	return HTTPServer{
		Sockets:            []string{"127.0.0.1:8080"},
		AdminSockets:       []string{"127.0.0.1:8081"},
		MetricsSockets:     []string{"127.0.0.1:8082"},
		TLSProfile:         profileIntermediate,
		PayloadRequestSize: 2,
	}
}

func (h HTTPServer) insecure() []string {
	var out []string
	if h.InsecureHTTP {
		out = append(out, "http_server.insecure_http")
	}
	if h.InsecureGuestMetrics {
		out = append(out, "http_server.insecure_guest_metrics")
	}
	return out
}

func (h HTTPServer) validate(p *problems) {
	if len(h.Sockets) == 0 {
		p.bad("http_server.sockets", "at least one is needed")
	}
	for _, list := range []struct {
		key   string
		addrs []string
	}{{"sockets", h.Sockets}, {"admin_sockets", h.AdminSockets}, {"metrics_sockets", h.MetricsSockets}} {
		for _, s := range list.addrs {
			if _, _, err := net.SplitHostPort(s); err != nil {
				p.bad("http_server."+list.key, "%q is not host:port", s)
			}
		}
	}
	if (h.PrivateKey == "") != (h.Certificate == "") {
		p.bad("http_server", "private_key and certificate must be given together")
	}
	if h.InsecureHTTP && h.PrivateKey != "" {
		p.bad("http_server", "insecure_http and private_key exclude each other")
	}
	p.between("http_server.payload_request_size", h.PayloadRequestSize, 1, 64)
	p.between("http_server.worker_count", h.WorkerCount, 0, 4096)
	_ = h.tls(p)
}
