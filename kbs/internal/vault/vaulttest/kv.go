package vaulttest

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// kvVersion is one version of a secret in the KV engine, version 2, which is
// mounted at "secret".
type kvVersion struct {
	data      map[string]any
	created   time.Time
	destroyed bool
}

// PutKV stores a secret as another author would: any members.
func (s *Server) PutKV(path string, data map[string]any) {
	s.Lock()
	defer s.Unlock()
	s.kv[path] = append(s.kv[path], &kvVersion{data: data, created: s.Now().UTC()})
}

func (s *Server) serveKV(w http.ResponseWriter, r *http.Request, path string, body map[string]any) {
	what, path, _ := strings.Cut(path, "/")
	all := s.kv[path]
	switch r.Method + " " + what {
	case "GET data":
		s.readKV(w, r, all)
	case "POST data", "PUT data":
		s.writeKV(w, path, all, body)
	case "PUT destroy", "POST destroy":
		list, _ := body["versions"].([]any)
		for _, n := range list {
			if v, ok := n.(float64); ok && v >= 1 && int(v) <= len(all) {
				all[int(v)-1].destroyed, all[int(v)-1].data = true, nil
			}
		}
		w.WriteHeader(http.StatusNoContent)
	case "GET metadata":
		if len(all) == 0 {
			Refuse(w, http.StatusNotFound, "")
			return
		}
		versions := map[string]any{}
		for i, v := range all {
			versions[strconv.Itoa(i+1)] = map[string]any{"created_time": v.created, "destroyed": v.destroyed, "deletion_time": ""}
		}
		Answer(w, map[string]any{"current_version": len(all), "versions": versions})
	case "DELETE metadata":
		delete(s.kv, path)
		w.WriteHeader(http.StatusNoContent)
	case "LIST metadata":
		s.listKV(w, path)
	default:
		Refuse(w, http.StatusMethodNotAllowed, "unsupported operation")
	}
}

func (s *Server) readKV(w http.ResponseWriter, r *http.Request, all []*kvVersion) {
	n := len(all)
	if text := r.URL.Query().Get("version"); text != "" {
		n, _ = strconv.Atoi(text)
	}
	if n < 1 || n > len(all) {
		Refuse(w, http.StatusNotFound, "")
		return
	}
	v := all[n-1]
	status := http.StatusOK
	if v.destroyed {
		status = http.StatusNotFound
	}
	write(w, status, map[string]any{"data": map[string]any{
		"data": v.data, "metadata": map[string]any{"version": n, "created_time": v.created, "destroyed": v.destroyed, "deletion_time": ""},
	}})
}

func (s *Server) writeKV(w http.ResponseWriter, path string, all []*kvVersion, body map[string]any) {
	options, _ := body["options"].(map[string]any)
	if cas, ok := options["cas"].(float64); ok && int(cas) != len(all) {
		Refuse(w, http.StatusBadRequest, "check-and-set parameter did not match the current version")
		return
	}
	data, ok := body["data"].(map[string]any)
	if !ok {
		Refuse(w, http.StatusBadRequest, "no data provided")
		return
	}
	v := &kvVersion{data: data, created: s.Now().UTC()}
	s.kv[path] = append(all, v)
	Answer(w, map[string]any{"version": len(all) + 1, "created_time": v.created, "destroyed": false, "deletion_time": ""})
}

func (s *Server) listKV(w http.ResponseWriter, folder string) {
	if folder != "" && !strings.HasSuffix(folder, "/") {
		folder += "/"
	}
	seen := map[string]bool{}
	for path := range s.kv {
		if rest, ok := strings.CutPrefix(path, folder); ok {
			name, _, deeper := strings.Cut(rest, "/")
			if deeper {
				name += "/"
			}
			seen[name] = true
		}
	}
	if len(seen) == 0 {
		Refuse(w, http.StatusNotFound, "")
		return
	}
	keys := []string{}
	for name := range seen {
		keys = append(keys, name)
	}
	slices.Sort(keys)
	Answer(w, map[string]any{"keys": keys, "note": fmt.Sprint(len(keys))})
}
