package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client/admin"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
	"github.com/vouchsafe-cc/vouchsafe/secret"
	"github.com/vouchsafe-cc/vouchsafe/tests/internal/world"
)

const (
	chips            = 16
	releasedResource = "load/secret/1" // the resource that guests fetch
)

// attestationPolicy demands the measurement and names the one simulated root.
const attestationPolicy = `package policy

import rego.v1

default executables := 33

executables := 3 if input.snp.measurement in query_reference_value("snp_launch_measurement")

default hardware := 97

hardware := 2 if input.snp.simulated_root == "load"

default configuration := 36

configuration := 2 if {
	input.snp.policy_debug_allowed == false
	input.snp.policy_migrate_ma == false
}

trust_claims := {"executables": executables, "hardware": hardware, "configuration": configuration}
`

const resourcePolicy = `package policy

import rego.v1

default allow := false

allow if {
	data.plugin == "resource"
	data["resource-path"][0] == "load"
	input.submods.cpu0["ear.status"] == "affirming"
}
`

// stage is a broker with what the guests need.
type stage struct {
	world  *world.World
	admin  *admin.Client
	roots  *x509.CertPool
	guests []*snp.Simulator
	opts   options
}

func onStage(ctx context.Context, o options, out io.Writer, act func(context.Context, *stage, io.Writer) error) (err error) {
	bin, err := filepath.Abs(o.bin)
	if err != nil {
		return err
	}
	dir := o.dir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "vouchsafe-load-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	w, err := world.New(dir, bin)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	s := &stage{world: w, opts: o}
	if err := s.set(ctx); err != nil {
		return err
	}
	return act(ctx, s, out)
}

func (s *stage) set(ctx context.Context) error {
	vendor, err := s.world.Vendor(ctx, "load")
	if err != nil {
		return err
	}
	if err := s.world.StartBroker(ctx, map[string]string{"load": filepath.Join(vendor, "root.pem")}); err != nil {
		return err
	}
	b := s.world.Broker
	pem, err := os.ReadFile(b.CA)
	if err != nil {
		return err
	}
	s.roots = x509.NewCertPool()
	s.roots.AppendCertsFromPEM(pem)
	if s.admin, err = admin.New(admin.Config{URL: b.AdminURL, TokenFile: b.TokenFile(), RootCAs: s.roots}); err != nil {
		return err
	}
	if _, err := s.world.RegisterMeasurement(ctx, world.CommandLine); err != nil {
		return err
	}
	for _, p := range []api.Policy{
		{Kind: "attestation", ID: "default_cpu", Rego: attestationPolicy, Version: -1},
		{Kind: "resource", ID: "resource-policy", Rego: resourcePolicy, Version: -1},
	} {
		if _, err := s.admin.PutPolicy(ctx, p); err != nil {
			return err
		}
	}
	if _, err := s.admin.PutResource(ctx, releasedResource, secret.Random(32)); err != nil {
		return err
	}
	return s.launch(ctx, vendor)
}

// launch makes the chips.
func (s *stage) launch(ctx context.Context, vendor string) error {
	agent, err := os.ReadFile(filepath.Join(s.world.Bin, "guest-agent"))
	if err != nil {
		return err
	}
	for i := range chips {
		if err := ctx.Err(); err != nil {
			return err
		}
		dir := s.world.Path(fmt.Sprintf("chip-%d", i))
		if err := snp.CreateGuest(vendor, dir, snp.Launch{Image: agent, CommandLine: world.CommandLine}); err != nil {
			return err
		}
		guest, err := snp.OpenSimulator(dir)
		if err != nil {
			return err
		}
		s.guests = append(s.guests, guest)
	}
	return nil
}
