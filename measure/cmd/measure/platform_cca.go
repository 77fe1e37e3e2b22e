package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/cca"
)

// ccaFlags are those that only Arm CCA has.
type ccaFlags struct {
	stores       []string
	anyLifecycle bool
}

func (c *cli) ccaRoom() room {
	f := new(ccaFlags)
	return room{
		platform: measure.CCA,
		flags: func(cmd *cobra.Command) {
			s := cmd.Flags()
			s.StringArrayVar(&f.stores, "trust-store", nil, "cca: machines that are trusted, `NAME=FILE` with a trust store in JSON (repeatable)")
			s.BoolVar(&f.anyLifecycle, "allow-any-lifecycle", false, "cca: waive that the machine is secured: its debugger may be open")
		},
		recognises: func(raw []byte) bool { return isCCAToken(raw) || hasMembers(raw, "token") },
		read:       readCCA,
		verifier: func(_ context.Context, s settings) (measure.Verifier, error) {
			cfg := cca.VerifierConfig{UnsafeAnyLifecycle: f.anyLifecycle}
			stores, err := c.namedFiles("trust-store", f.stores)
			if err != nil {
				return nil, err
			}
			for _, t := range stores {
				cfg.TrustStores = append(cfg.TrustStores, cca.TrustStore{Name: t.name, Anchors: t.data})
			}
			for _, r := range s.roots {
				cfg.UnsafeSimulatedRoots = append(cfg.UnsafeSimulatedRoots, cca.TrustStore{Name: r.name, Anchors: r.data})
			}
			return cca.NewVerifier(cfg)
		},
		inspect: inspectCCA,
	}
}

// isCCAToken tells a token by its tag, 399 or 907.
func isCCAToken(raw []byte) bool {
	return bytes.HasPrefix(raw, []byte{0xd9, 0x01, 0x8f}) || bytes.HasPrefix(raw, []byte{0xd9, 0x03, 0x8b})
}

// readCCA reads evidence in its wire form, or a raw token.
func readCCA(raw []byte) (measure.Evidence, error) {
	ev := measure.Evidence{Platform: measure.CCA, Data: raw}
	var err error
	if !isJSON(raw) {
		if ev, err = cca.Wire(raw); err != nil {
			return ev, err
		}
	}
	_, err = cca.ParseEvidence(ev)
	return ev, err
}

func inspectCCA(ev measure.Evidence) (inspection, error) {
	token, err := cca.ParseEvidence(ev)
	if err != nil {
		return inspection{}, err
	}
	components := table{head: []string{"COMPONENT", "VERSION", "HASH", "MEASUREMENT"}}
	for i, p := range token.Platform.Components {
		name := p.Type
		if name == "" {
			name = strconv.Itoa(i)
		}
		components.rows = append(components.rows, []string{name, p.Version, p.HashAlgorithm, hex.EncodeToString(p.Measurement)})
	}
	return inspection{claims: token.Claims(), tables: []table{components}}, nil
}
