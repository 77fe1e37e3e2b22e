package server

import "net/http"

func healthRoutes() []Route {
	const all = OnGuest | OnAdmin | OnMetrics
	alive := func(_ *Server, w http.ResponseWriter, _ *http.Request) error {
		w.WriteHeader(http.StatusOK)
		return nil
	}
	report := []Answer{
		{http.StatusOK, rawBody("text/plain; charset=utf-8")},
		{http.StatusServiceUnavailable, rawBody("text/plain; charset=utf-8")},
	}
	verbose := []Query{{"verbose", "name each check and its outcome", ""}}
	return []Route{
		{Pattern: "GET /healthz", ID: "healthz", Summary: "The process answers (the field's probe)",
			Access: Public, On: all, Answers: ok(Body{}), open: alive},
		{Pattern: "GET /livez", ID: "livez", Summary: "The process answers",
			Access: Public, On: all, Answers: ok(Body{}), open: alive},
		{Pattern: "GET /readyz", ID: "readyz", Summary: "The broker can serve", Query: verbose,
			Access: Public, On: all, Answers: report, open: (*Server).ready},
	}
}
