package server

import "net/http"

// healthRoutes are the probes. The field's healthz says that the process
// answers and nothing else, so it costs nothing to have it everywhere; what
// runs checks is for the operator.
func healthRoutes() []Route {
	const all, inner = OnGuest | OnAdmin | OnMetrics, OnAdmin | OnMetrics
	alive := func(_ *Server, w http.ResponseWriter, _ *http.Request) error {
		w.WriteHeader(http.StatusOK)
		return nil
	}
	text := rawBody("text/plain; charset=utf-8")
	report := []Answer{{http.StatusOK, text}, {http.StatusServiceUnavailable, text}}
	verbose := []Query{{"verbose", "name each check and its outcome", ""}}
	return append(metricsRoutes(), []Route{
		{Pattern: "GET /healthz", ID: "healthz", Summary: "The process answers (the field's probe)",
			Access: Public, On: all, Answers: ok(Body{}), open: alive},
		{Pattern: "GET /livez", ID: "livez", Summary: "The process answers",
			Access: Public, On: inner, Answers: ok(Body{}), open: alive},
		{Pattern: "GET /startupz", ID: "startupz", Summary: "The broker has begun to serve",
			Access: Public, On: inner, Answers: report, open: (*Server).started},
		{Pattern: "GET /readyz", ID: "readyz", Summary: "The broker can serve", Query: verbose,
			Access: Public, On: inner, Answers: report, open: (*Server).ready},
	}...)
}

func metricsRoutes() []Route {
	return []Route{{Pattern: "GET /metrics", ID: "metrics", Summary: "Metrics for Prometheus (with http_server.insecure_guest_metrics for guests too)",
		Access: Public, On: OnMetrics, Answers: ok(rawBody(metricsType)), open: (*Server).scrape}}
}
