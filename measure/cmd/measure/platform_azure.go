package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/azure"
	"github.com/vouchsafe-cc/vouchsafe/measure/collateral"
)

// azureRooms are those of Azure's platforms on SNP and on TDX, whose own rooms
// are given.
func azureRooms(snp, tdx room) []room {
	return []room{azureRoom(measure.AzSNPvTPM, snp, isAzureSNP), azureRoom(measure.AzTDXvTPM, tdx, isAzureTDX)}
}

// azureRoom is the room of Azure's platform on some hardware. The hardware's
// report is judged by what the hardware's own flags say.
func azureRoom(p measure.Platform, hardware room, recognises func(raw []byte) bool) room {
	r := room{
		platform:   p,
		recognises: recognises,
		read: func(raw []byte) (measure.Evidence, error) {
			ev := measure.Evidence{Platform: p, Data: raw}
			_, err := azure.ParseEvidence(ev)
			return ev, err
		},
		verifier: func(ctx context.Context, s settings) (measure.Verifier, error) {
			below, err := hardware.verifier(ctx, s)
			if err != nil {
				return nil, err
			}
			return azure.NewVerifier(below)
		},
		inspect: func(ev measure.Evidence) (inspection, error) {
			e, err := azure.ParseEvidence(ev)
			if err != nil {
				return inspection{}, err
			}
			claims, err := e.Claims()
			if err != nil {
				return inspection{}, err
			}
			found := inspection{claims: claims, more: map[string]any{}}
			return found, found.addLog(e.EventLog)
		},
	}
	if hardware.needs != nil {
		r.needs = func(ev measure.Evidence) ([]collateral.Name, error) {
			e, err := azure.ParseEvidence(ev)
			if err != nil {
				return nil, err
			}
			below, err := e.Hardware()
			if err != nil {
				return nil, err
			}
			return hardware.needs(below)
		}
	}
	return r
}

// isAzureSNP and isAzureTDX look for the members of the old and of the newer
// versions (kbs-protocol 16.5).
func isAzureSNP(raw []byte) bool {
	return hasMembers(raw, "hcl_report", "tpm_quote", "vcek") || hasMembers(raw, "report", "quote", "vcek")
}

func isAzureTDX(raw []byte) bool { return hasMembers(raw, "hcl_report", "tpm_quote", "td_quote") }

// hclInspector shows an HCL report by itself, as the vTPM keeps it.
func hclInspector() inspector {
	return inspector{
		kind:       "HCL report",
		recognises: func(raw []byte) bool { return bytes.HasPrefix(raw, []byte("HCLA")) },
		inspect: func(raw []byte) (inspection, error) {
			h, err := azure.ParseHCL(raw)
			if err != nil {
				return inspection{}, err
			}
			r, err := azure.ParseRuntimeData(h.RuntimeData)
			if err != nil {
				return inspection{}, err
			}
			claims := measure.Claims{
				"hcl_version": fmt.Sprint(h.Version), "report_type": h.Type.String(), "hash": h.Hash.String(), "binding": fmt.Sprintf("%x", h.Binding()),
			}
			r.AddClaims(claims)
			return inspection{claims: claims, more: map[string]any{"runtime_data": json.RawMessage(h.RuntimeData)}}, nil
		},
	}
}
