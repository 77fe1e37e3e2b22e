package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"

	"github.com/rogpeppe/go-internal/testscript"
)

// packet ANSWER QUESTION makes of the answer to a wrap the question to unwrap it.
func cmdPacket(ts *testscript.TestScript, _ bool, args []string) {
	var answer struct {
		Results struct {
			Annotation json.RawMessage `json:"annotation"`
		} `json:"keywrapresults"`
	}
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &answer))
	question, err := json.Marshal(map[string]any{"op": "keyunwrap", "keyunwrapparams": map[string]any{"annotation": answer.Results.Annotation}})
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), question, 0o600))
}

// agent VAR PATH FILE starts a guest agent that has the resource PATH, and sets
// VAR to its address.
func cmdAgent(ts *testscript.TestScript, _ bool, args []string) {
	value := ts.ReadFile(args[2])
	mux := http.NewServeMux()
	mux.HandleFunc("GET /cdh/resource/"+args[1], func(w http.ResponseWriter, _ *http.Request) { write(w, value) })
	s := httptest.NewServer(mux)
	ts.Defer(s.Close)
	ts.Setenv(args[0], s.URL)
}
