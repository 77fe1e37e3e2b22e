package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/collateral"
	"github.com/vouchsafe-cc/vouchsafe/measure/dcap"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/measure/sgx"
	"github.com/vouchsafe-cc/vouchsafe/measure/tdx"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// intelFlags are those of the platforms whose quotes Intel's quoting enclaves
// sign.
type intelFlags struct {
	accepted      []string
	minEvaluation uint32
}

func (f *intelFlags) add(cmd *cobra.Command) {
	s := cmd.Flags()
	s.StringArrayVar(&f.accepted, "accept-tcb", nil, "tdx, sgx: accept a platform of this `STATUS` too, for example SWHardeningNeeded (repeatable)")
	s.Uint32Var(&f.minEvaluation, "min-tcb-eval", 0, "tdx, sgx: least `NUMBER` of the TCB evaluation that Intel's judgement rests on")
}

// config is what the flags say about platform and collateral.
func (f *intelFlags) config(s settings) (dcap.Config, error) {
	c := dcap.Config{Now: s.now, UnsafeNoCollateral: s.noCollateral, MinEvaluation: f.minEvaluation, Accepted: []dcap.Status{dcap.UpToDate}}
	for _, name := range f.accepted {
		status, err := dcap.ParseStatus(name)
		if err != nil {
			return c, fmt.Errorf("--accept-tcb: %w", err)
		}
		c.Accepted = append(c.Accepted, status)
	}
	for _, r := range s.roots {
		c.UnsafeSimulatedRoots = append(c.UnsafeSimulatedRoots, dcap.SimulatedRoot{Name: r.name, Bundle: r.data})
	}
	shelf, err := s.shelf(nil, c.UnsafeSimulatedRoots)
	if err == nil && shelf != nil {
		c.Source = shelf
	}
	return c, err
}

// intelRooms are those of TDX and SGX.
func (c *cli) intelRooms() []room {
	f := new(intelFlags)
	return []room{tdxRoom(f), sgxRoom(f)}
}

func tdxRoom(f *intelFlags) room {
	return room{
		platform:   measure.TDX,
		flags:      f.add,
		recognises: func(raw []byte) bool { return tdx.Recognise(quoteIn(raw)) },
		read:       readTDX,
		verifier: func(_ context.Context, s settings) (measure.Verifier, error) {
			cfg, err := f.config(s)
			if err != nil {
				return nil, err
			}
			return tdx.NewVerifier(tdx.VerifierConfig{Config: cfg, UnsafeDebug: s.debug, UnsafeMigratable: s.migratable})
		},
		needs: func(ev measure.Evidence) ([]collateral.Name, error) {
			e, err := tdx.ParseEvidence(ev)
			if err != nil {
				return nil, err
			}
			return needsIntel(e.Quote)
		},
		inspect: inspectTDX,
	}
}

func sgxRoom(f *intelFlags) room {
	return room{
		platform:   measure.SGX,
		recognises: func(raw []byte) bool { return sgx.Recognise(quoteIn(raw)) },
		read:       readSGX,
		verifier: func(_ context.Context, s settings) (measure.Verifier, error) {
			cfg, err := f.config(s)
			if err != nil {
				return nil, err
			}
			return sgx.NewVerifier(sgx.VerifierConfig{Config: cfg, UnsafeDebug: s.debug})
		},
		needs: func(ev measure.Evidence) ([]collateral.Name, error) {
			e, err := sgx.ParseEvidence(ev)
			if err != nil {
				return nil, err
			}
			return needsIntel(e.Quote)
		},
		inspect: inspectSGX,
	}
}

// needsIntel lists what is needed about the platform that signed a quote.
func needsIntel(raw []byte) ([]collateral.Name, error) {
	q, err := dcap.ParseQuote(raw)
	if err != nil {
		return nil, err
	}
	r, err := q.Request()
	if err != nil {
		return nil, err
	}
	return collateral.Names(r), nil
}

// readTDX reads evidence in its wire form, or a raw quote.
func readTDX(raw []byte) (measure.Evidence, error) {
	if !isJSON(raw) {
		e := tdx.Evidence{Quote: raw}
		if _, err := e.Claims(); err != nil {
			return measure.Evidence{}, err
		}
		return e.Wire()
	}
	ev := measure.Evidence{Platform: measure.TDX, Data: raw}
	_, err := tdx.ParseEvidence(ev)
	return ev, err
}

func inspectTDX(ev measure.Evidence) (inspection, error) {
	e, err := tdx.ParseEvidence(ev)
	if err != nil {
		return inspection{}, err
	}
	claims, err := e.Claims()
	if err != nil {
		return inspection{}, err
	}
	delete(claims, eventlog.ClaimEvents) // shown by itself
	found, err := inspectQuote(claims, e.Quote)
	if err != nil {
		return inspection{}, err
	}
	return found, found.addLog(e.EventLog)
}

// quoteIn returns the quote of evidence in its wire form, which is the same for
// both TEEs but for the log, or the file as it is. Other platforms have a
// member of this name too, with something else in it.
func quoteIn(raw []byte) []byte {
	if !isJSON(raw) {
		return raw
	}
	members, err := strictjson.Members(raw)
	if err != nil {
		return nil
	}
	var quote []byte
	if err := json.Unmarshal(members["quote"], &quote); err != nil {
		return nil
	}
	return quote
}

// readSGX reads evidence in its wire form, or a raw quote.
func readSGX(raw []byte) (measure.Evidence, error) {
	if !isJSON(raw) {
		e := sgx.Evidence{Quote: raw}
		if _, err := e.Claims(); err != nil {
			return measure.Evidence{}, err
		}
		return e.Wire()
	}
	ev := measure.Evidence{Platform: measure.SGX, Data: raw}
	_, err := sgx.ParseEvidence(ev)
	return ev, err
}

func inspectSGX(ev measure.Evidence) (inspection, error) {
	e, err := sgx.ParseEvidence(ev)
	if err != nil {
		return inspection{}, err
	}
	claims, err := e.Claims()
	if err != nil {
		return inspection{}, err
	}
	return inspectQuote(claims, e.Quote)
}

// inspectQuote adds the certificates of a quote to what it claims.
func inspectQuote(claims measure.Claims, raw []byte) (inspection, error) {
	q, err := dcap.ParseQuote(raw)
	if err != nil {
		return inspection{}, err
	}
	found, err := certificateInspector().inspect(q.Chain)
	found.claims = claims
	found.more["quoting_enclave"] = q.QEReport.Claims()
	return found, err
}
