package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"
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

// asks SOCKET METHOD QUESTION ANSWER asks a key provider over gRPC, once it is
// there. What it refuses with is the command's standard error.
func cmdAsks(ts *testscript.TestScript, neg bool, args []string) {
	conn, err := grpc.NewClient("unix://"+args[0], grpc.WithTransportCredentials(insecure.NewCredentials()))
	ts.Check(err)
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	answer := new(wrapperspb.BytesValue)
	err = conn.Invoke(ctx, "/keyprovider.KeyProviderService/"+args[1], wrapperspb.Bytes([]byte(ts.ReadFile(args[2]))), answer, grpc.WaitForReady(true))
	if (err != nil) != neg {
		ts.Fatalf("%v", err)
	}
	if err != nil {
		_, _ = io.WriteString(ts.Stderr(), err.Error())
		return
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[3]), answer.GetValue(), 0o600))
}
