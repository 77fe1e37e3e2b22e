package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
)

// evidence VAR FILE REFVALUES writes evidence of a simulated guest of SNP and its
// reference value, sets VAR to what it is bound to, and has the broker trust the
// simulated root. ! evidence: the broker does not.
func cmdEvidence(ts *testscript.TestScript, neg bool, args []string) {
	dir, err := os.MkdirTemp(ts.Getenv("WORK"), "lab-")
	ts.Check(err)
	vendor, guest := filepath.Join(dir, "vendor"), filepath.Join(dir, "guest")
	launch := snp.Launch{Image: []byte("agent 1"), CommandLine: "quiet"}
	ts.Check(snp.CreateVendor(vendor, "Milan"))
	ts.Check(snp.CreateGuest(vendor, guest, launch))
	sim, err := snp.OpenSimulator(guest)
	ts.Check(err)
	bound := []byte("a nonce and a key")
	ev, err := measure.EvidenceOver(context.Background(), sim, bound)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), ev.Data, 0o600))
	m, err := snp.Predict(launch)
	ts.Check(err)
	text := fmt.Sprintf("kind: RefValue\nmetadata: {name: snp_launch_measurement}\nspec: {value: [%q]}\n", hex.EncodeToString(m[:]))
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), []byte(text), 0o600))
	ts.Setenv(args[0], hex.EncodeToString(bound))
	if neg {
		return
	}
	b := brokerOf(ts)
	b.configure = func(c *config.Config) {
		c.Verifier.SNP.InsecureSimulatedRoots = []config.SimulatedRoot{{Name: "desk", Path: filepath.Join(vendor, "root.pem")}}
	}
	ts.Check(b.shut())
	ts.Check(b.open())
}
