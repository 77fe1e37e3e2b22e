package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/nvidia"
)

// nvidiaFlags are those that only NVIDIA's GPUs have.
type nvidiaFlags struct {
	manifests         []string
	devices           []int
	chain, arch       string
	anyDevices, noRIM bool
}

func (c *cli) nvidiaRoom() room {
	f := new(nvidiaFlags)
	return room{
		platform: measure.NVIDIA,
		device:   true,
		flags: func(cmd *cobra.Command) {
			s := cmd.Flags()
			s.StringArrayVar(&f.manifests, "rim", nil, "nvidia: `FILE` with the reference measurements of a driver or VBIOS, NVIDIA's XML or JSON; its signature is not checked (repeatable)")
			s.IntSliceVar(&f.devices, "devices", nil, "nvidia: `NUMBER` of GPUs that there must be (repeatable, any of them)")
			s.BoolVar(&f.anyDevices, "allow-any-devices", false, "nvidia: waive the number of GPUs")
			s.BoolVar(&f.noRIM, "allow-no-rim", false, "nvidia: waive reference measurements of releases without --rim")
			s.StringVar(&f.chain, "gpu-certs", "", "nvidia: `FILE` with the certificate chain of a raw report, in PEM, the signing certificate first")
			s.StringVar(&f.arch, "gpu-arch", string(nvidia.Hopper), "nvidia: `KIND` of the GPU of a raw report, HOPPER or BLACKWELL")
		},
		recognises: func(raw []byte) bool { return isGPUReport(raw) || hasMembers(raw, "device_evidence_list") },
		read:       func(raw []byte) (measure.Evidence, error) { return c.readNVIDIA(raw, f) },
		verifier:   func(_ context.Context, s settings) (measure.Verifier, error) { return c.nvidiaVerifier(f, s) },
		inspect:    inspectNVIDIA,
	}
}

func (c *cli) nvidiaVerifier(f *nvidiaFlags, s settings) (measure.Verifier, error) {
	cfg := nvidia.VerifierConfig{
		Devices: f.devices, UnsafeAnyDevices: f.anyDevices, UnsafeNoManifest: f.noRIM || s.noCollateral, UnsafeNoRevocation: s.noCollateral, Now: s.now,
	}
	for _, path := range f.manifests {
		raw, err := c.readFile(path)
		if err != nil {
			return nil, err
		}
		cfg.Manifests = append(cfg.Manifests, raw)
	}
	for _, r := range s.roots {
		cfg.UnsafeSimulatedRoots = append(cfg.UnsafeSimulatedRoots, nvidia.SimulatedRoot{Name: r.name, Certificate: r.data})
	}
	return nvidia.NewVerifier(cfg)
}

// isGPUReport tells a report by its first bytes, raw or in hex.
func isGPUReport(raw []byte) bool {
	return bytes.HasPrefix(raw, []byte{0x11, 0xe0}) || bytes.HasPrefix(bytes.ToLower(raw), []byte("11e0"))
}

// readNVIDIA reads evidence in its wire form, or the raw report of one GPU, to
// which the chain of the given file belongs.
func (c *cli) readNVIDIA(raw []byte, f *nvidiaFlags) (measure.Evidence, error) {
	ev := measure.Evidence{Platform: measure.NVIDIA, Data: raw}
	if !isGPUReport(raw) {
		if f.chain != "" {
			return ev, errors.New("--gpu-certs goes with a raw report; evidence in JSON has its own certificates")
		}
		_, err := nvidia.ParseEvidence(ev)
		return ev, err
	}
	if raw[0] != 0x11 {
		report, err := hex.DecodeString(string(bytes.TrimSpace(raw)))
		if err != nil {
			return ev, err
		}
		raw = report
	}
	d := nvidia.Device{Arch: nvidia.Arch(f.arch), Report: raw}
	if f.chain != "" {
		var err error
		if d.Certificate, err = c.readFile(f.chain); err != nil {
			return ev, err
		}
	}
	return nvidia.Wire(d)
}

func inspectNVIDIA(ev measure.Evidence) (inspection, error) {
	devices, err := nvidia.ParseEvidence(ev)
	if err != nil {
		return inspection{}, err
	}
	claims := measure.Claims{}
	for i, d := range devices {
		r, err := nvidia.ParseReport(d.Report)
		if err != nil {
			return inspection{}, err
		}
		of := r.Claims()
		of["arch"], of["uuid"] = string(d.Arch), d.UUID
		claims["device "+strconv.Itoa(i)] = of
	}
	return inspection{claims: claims}, nil
}
