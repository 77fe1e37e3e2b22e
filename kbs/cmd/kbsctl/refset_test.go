package main

import (
	"encoding/json"
	"os"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/vouchsafe-cc/vouchsafe/measure/refvalue"
)

// cmdCoRIM writes a document without a signature: corim FILE ID NAME VALUE.
func cmdCoRIM(ts *testscript.TestScript, _ bool, args []string) {
	value, err := json.Marshal([]string{args[3]})
	ts.Check(err)
	raw, err := refvalue.Document{ID: args[1], Values: []refvalue.Value{{Name: args[2], Value: value}}}.CoRIM()
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), raw, 0o600))
}

// cmdFlip changes the last bit of a file: flip FILE.
func cmdFlip(ts *testscript.TestScript, _ bool, args []string) {
	raw, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	raw[len(raw)-1] ^= 1
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), raw, 0o600))
}
