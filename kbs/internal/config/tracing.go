package config

import "net/url"

// Tracing settings: OpenTelemetry traces over OTLP/HTTP.
type Tracing struct {
	// Endpoint is the address of a collector, for example
	// http://127.0.0.1:4318; empty turns tracing off.
	Endpoint string `toml:"endpoint"`
	// SampleRatio is the share of requests that are traced, from 0 to 1. What a
	// guest says about sampling is not asked.
	SampleRatio float64 `toml:"sample_ratio"`
	// InsecureEndpoint allows a collector without TLS that is not on this
	// machine: traces tell who attested and what was decided.
	InsecureEndpoint bool `toml:"insecure_endpoint"`
}

func defaultTracing() Tracing { return Tracing{SampleRatio: 0.01} }

func (t Tracing) insecure() []string {
	if t.InsecureEndpoint {
		return []string{"tracing.insecure_endpoint"}
	}
	return nil
}

func (t Tracing) validate(p *problems) {
	if t.SampleRatio < 0 || t.SampleRatio > 1 {
		p.bad("tracing.sample_ratio", "must be from 0 to 1, is %v", t.SampleRatio)
	}
	if t.Endpoint == "" {
		return
	}
	u, err := url.Parse(t.Endpoint)
	switch {
	case err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https"):
		p.bad("tracing.endpoint", "%q is not an http or https address", t.Endpoint)
	case u.Scheme == "http" && !isLoopback(u.Hostname()) && !t.InsecureEndpoint:
		p.bad("tracing.endpoint", "a collector elsewhere must have TLS (or set tracing.insecure_endpoint)")
	}
}
