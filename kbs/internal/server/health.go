package server

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/health"
)

// metricsType is what Prometheus gets unless it asks for something else.
const metricsType = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"

func isHealth(path string) bool {
	return path == "/healthz" || path == "/livez" || path == "/readyz" || path == "/startupz"
}

// ready answers the readiness probe. It says which check failed, never why:
// the reason is in the log.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) error {
	results, ok := s.Probes.Ready(r.Context())
	if !r.URL.Query().Has("verbose") {
		results = nil
	}
	s.report(w, ok, results...)
	return nil
}

// started answers the startup probe.
func (s *Server) started(w http.ResponseWriter, _ *http.Request) error {
	s.report(w, s.Probes.Started())
	return nil
}

func (s *Server) report(w http.ResponseWriter, ok bool, results ...health.Result) {
	status, text := http.StatusOK, &strings.Builder{}
	if !ok {
		status = http.StatusServiceUnavailable
	}
	for _, r := range results {
		switch {
		case r.OK:
			fmt.Fprintf(text, "[+] %s ok\n", r.Name)
		case r.Advisory:
			fmt.Fprintf(text, "[!] %s needs attention\n", r.Name)
		default:
			fmt.Fprintf(text, "[-] %s failed\n", r.Name)
		}
	}
	s.answer(w, status, "text/plain; charset=utf-8", []byte(text.String()))
}

func (s *Server) scrape(w http.ResponseWriter, r *http.Request) error {
	s.Metrics.ServeHTTP(w, r)
	return nil
}
