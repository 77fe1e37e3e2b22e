package registry

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// HostTLS is what one registry needs. It holds for that host alone: its CA
// vouches for no other, and its client certificate is shown to no other.
type HostTLS struct {
	RootCAs     *x509.CertPool   // nil: [Config.RootCAs]
	Certificate *tls.Certificate // nil: none is shown
}

// A Proxy says through which proxies registries are reached. The zero value
// is: directly.
type Proxy struct {
	HTTP  string // URL of the proxy for plain HTTP, or host:port
	HTTPS string // URL of the proxy for HTTPS
	// No lists what is reached directly, separated by commas: a host with all
	// below it ("example.com" or ".example.com" for those below alone), an
	// address, a network ("10.0.0.0/8"), each but the last with an optional port,
	// or "*".
	No string
}

// rule returns the function that a transport asks; nil: no proxy.
func (p Proxy) rule() (func(*http.Request) (*url.URL, error), error) {
	proxies := map[string]*url.URL{}
	for scheme, s := range map[string]string{"http": p.HTTP, "https": p.HTTPS} {
		if s == "" {
			continue
		}
		if !strings.Contains(s, "://") {
			s = "http://" + s
		}
		u, err := url.Parse(s)
		if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			return nil, fmt.Errorf("registry: the proxy for %s is no URL of a proxy", scheme) // it may hold a password
		}
		proxies[scheme] = u
	}
	if len(proxies) == 0 {
		return nil, nil
	}
	return func(r *http.Request) (*url.URL, error) {
		if p.direct(r.URL) {
			return nil, nil
		}
		return proxies[r.URL.Scheme], nil
	}, nil
}

// direct reports whether the list names the host.
func (p Proxy) direct(u *url.URL) bool {
	host := strings.ToLower(u.Hostname())
	_, port, _ := net.SplitHostPort(withPort(u.Host, u.Scheme))
	addr, addrErr := netip.ParseAddr(host)
	for entry := range strings.SplitSeq(strings.ToLower(p.No), ",") {
		entry = strings.TrimSpace(entry)
		if network, err := netip.ParsePrefix(entry); err == nil {
			if addrErr == nil && network.Contains(addr.Unmap()) {
				return true
			}
			continue
		}
		if h, wanted, err := net.SplitHostPort(entry); err == nil {
			if wanted != port {
				continue
			}
			entry = h
		}
		switch {
		case entry == "":
		case entry == "*", entry == host, strings.Trim(entry, "[]") == host:
			return true
		case addrErr != nil && strings.HasSuffix(host, "."+strings.TrimPrefix(entry, ".")):
			return true
		}
	}
	return false
}

// wires makes the connections: one wire for the hosts that need something of
// their own each, and one for all the others.
type wires struct {
	own  map[string]wire // by host:port
	rest wire
}

func (w *wires) RoundTrip(req *http.Request) (*http.Response, error) {
	to, ok := w.own[withPort(req.URL.Host, req.URL.Scheme)]
	if !ok {
		to = w.rest
	}
	if isLane(req.Context()) {
		return to.lanes.RoundTrip(req)
	}
	return to.shared.RoundTrip(req)
}

// A wire leads to a host. Requests at the same time may share a connection of
// HTTP/2; those for the pieces of one blob have one each.
type wire struct{ shared, lanes http.RoundTripper }

func newWires(c Config) (*wires, error) {
	proxy, err := c.Proxy.rule()
	if err != nil {
		return nil, err
	}
	if proxy == nil && c.ProxyFromEnvironment {
		proxy = http.ProxyFromEnvironment
	}
	w := &wires{own: map[string]wire{}, rest: newWire(HostTLS{RootCAs: c.RootCAs}, proxy)}
	for host, t := range c.TLS {
		if t.RootCAs == nil {
			t.RootCAs = c.RootCAs
		}
		if host == dockerHub {
			host = "index." + dockerHub
		}
		if !hostForm.MatchString(host) {
			return nil, fmt.Errorf("registry: TLS settings for %.80q, which is no host", host)
		}
		w.own[withPort(host, "https")] = newWire(t, proxy)
	}
	return w, nil
}

func newWire(t HostTLS, proxy func(*http.Request) (*url.URL, error)) wire {
	lanes := newTransport(t, proxy)
	lanes.ForceAttemptHTTP2, lanes.Protocols = false, new(http.Protocols)
	lanes.Protocols.SetHTTP1(true)
	return wire{shared: newTransport(t, proxy), lanes: lanes}
}

func newTransport(t HostTLS, proxy func(*http.Request) (*url.URL, error)) *http.Transport {
	dialer := &net.Dialer{Timeout: 15 * time.Second, KeepAlive: 30 * time.Second}
	config := &tls.Config{RootCAs: t.RootCAs, MinVersion: tls.VersionTLS12}
	if t.Certificate != nil {
		config.Certificates = []tls.Certificate{*t.Certificate}
	}
	return &http.Transport{
		Proxy:                  proxy,
		DialContext:            dialer.DialContext,
		TLSClientConfig:        config,
		TLSHandshakeTimeout:    15 * time.Second,
		ResponseHeaderTimeout:  60 * time.Second,
		IdleConnTimeout:        90 * time.Second,
		MaxIdleConnsPerHost:    8,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // digests are over the bytes as sent
		MaxResponseHeaderBytes: 1 << 20,
	}
}
