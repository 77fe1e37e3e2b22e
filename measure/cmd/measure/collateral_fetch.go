package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/measure/collateral"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
)

const fetchHelp = `Fetch asks for collateral and puts what is good into a directory.

NAME is the name of an item, as 'measure collateral show' prints it. Instead, say
what it is for: --fmspc for Intel's platforms of a kind, --amd for a generation of
AMD's, --evidence for whatever a piece of evidence needs. Without any of these,
all that the directory holds is fetched anew, but for certificates of chips.

Asked are, in this order: the directories of --files, Intel's service, AMD's.
"none" as an address asks nobody.`

const fetchExample = `  # for all TDX and SGX machines of a kind, and all Genoa machines
  measure collateral fetch --dir ./collateral --fmspc 00806f050000 --amd Genoa

  # for one guest, from a caching service nearby
  measure collateral fetch --dir ./collateral --evidence quote.bin \
      --intel-service https://pccs.example:8081 --ca-file pccs.pem`

type fetchFlags struct {
	collateralFlags
	fmspc, amd, evidence, files []string
	intel, rootCRL, kds, caFile string
	early, insecureHTTP         bool
}

func (c *cli) collateralFetchCommand() *cobra.Command {
	var f fetchFlags
	cmd := &cobra.Command{
		Use:     "fetch --dir DIR [NAME...]",
		Short:   "Fetch collateral from the vendors' services, caches or files",
		Long:    fetchHelp,
		Example: fetchExample,
		RunE:    func(cmd *cobra.Command, args []string) error { return c.fetch(cmd.Context(), f, args) },
	}
	f.add(cmd)
	s := cmd.Flags()
	s.StringArrayVar(&f.fmspc, "fmspc", nil, "all for TDX and SGX on platforms of this `FMSPC`, six bytes in hex (repeatable)")
	s.StringArrayVar(&f.amd, "amd", nil, "lists and chains of this `GENERATION`: Milan, Genoa or Turin (repeatable)")
	s.StringArrayVar(&f.evidence, "evidence", nil, "all that evidence in this `FILE` needs (repeatable)")
	s.StringArrayVar(&f.files, "files", nil, "`DIR` with files as vendors serve them (repeatable)")
	s.StringVar(&f.intel, "intel-service", collateral.IntelPCS, "`URL` of Intel's PCS or of a PCCS, or none")
	s.StringVar(&f.rootCRL, "intel-root-crl", "", "`URL` of the revocation list of Intel's root, where the service does not have it")
	s.StringVar(&f.kds, "amd-service", collateral.AMDKDS, "`URL` of AMD's KDS or a cache with its paths, or none")
	s.StringVar(&f.caFile, "ca-file", "", "`FILE` (PEM) with authorities of the services' own certificates, beside the system's")
	s.BoolVar(&f.early, "early", false, "ask Intel for evaluations that vendors get before all others")
	s.BoolVar(&f.insecureHTTP, "insecure-http", false, "allow services without TLS: who is on the way can hold back news of a revocation")
	return cmd
}

func (c *cli) fetch(ctx context.Context, f fetchFlags, args []string) (err error) {
	trusted, err := c.trusted(f.collateralFlags)
	if err != nil {
		return err
	}
	from, err := c.fetchers(f, trusted)
	if err != nil {
		return err
	}
	names, err := c.wanted(f, args)
	if err != nil {
		return err
	}
	s, err := c.store(f.collateralFlags, trusted, from...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if len(names) == 0 {
		for _, st := range s.Status() {
			names = append(names, st.Name)
		}
	}
	if len(names) == 0 {
		return errors.New("say what to fetch: NAME, --fmspc, --amd or --evidence")
	}
	var errs []error
	for _, n := range names {
		_, err := s.Renew(ctx, n)
		errs = append(errs, err)
	}
	var have []collateral.Status
	for _, st := range s.Status() {
		if slices.Contains(names, st.Name) {
			have = append(have, st)
		}
	}
	c.printStatus(have)
	if err := errors.Join(errs...); err != nil {
		return unavailable{err}
	}
	return nil
}

// unavailable is what could not be had now, and perhaps later.
type unavailable struct{ error }

// Unwrap returns the reason.
func (e unavailable) Unwrap() error { return e.error }

func (c *cli) fetchers(f fetchFlags, trusted []*x509.Certificate) ([]collateral.Fetcher, error) {
	var out []collateral.Fetcher
	for _, dir := range f.files {
		from, err := collateral.NewFiles(dir, trusted)
		if err != nil {
			return nil, err
		}
		out = append(out, from)
	}
	web := collateral.WebConfig{InsecureHTTP: f.insecureHTTP}
	if f.caFile != "" {
		raw, err := c.readFile(f.caFile)
		if err != nil {
			return nil, err
		}
		if web.CA, err = x509.SystemCertPool(); err != nil {
			return nil, err
		}
		if !web.CA.AppendCertsFromPEM(raw) {
			return nil, fmt.Errorf("%s has no certificates", f.caFile)
		}
	}
	if f.intel != "none" {
		from, err := collateral.Intel(collateral.IntelConfig{Base: f.intel, RootCRL: f.rootCRL, Early: f.early, Web: web})
		if err != nil {
			return nil, err
		}
		out = append(out, from)
	}
	if f.kds != "none" {
		from, err := collateral.AMD(f.kds, web)
		if err != nil {
			return nil, err
		}
		out = append(out, from)
	}
	return out, nil
}

// wanted lists what the flags and arguments name, each once.
func (c *cli) wanted(f fetchFlags, args []string) ([]collateral.Name, error) {
	var out []collateral.Name
	for _, a := range args {
		out = append(out, collateral.Name(a))
	}
	for _, text := range f.fmspc {
		fmspc, err := collateral.FMSPC(text)
		if err != nil {
			return nil, err
		}
		for _, r := range collateral.Requests(fmspc) {
			out = append(out, collateral.Names(r)...)
		}
	}
	for _, text := range f.amd {
		g, err := snp.ParseGeneration(text)
		if err != nil {
			return nil, err
		}
		for _, k := range []snp.SigningKey{snp.VCEK, snp.VLEK} {
			out = append(out, collateral.AMDList(g, k), collateral.AMDChain(g, k))
		}
	}
	for _, path := range f.evidence {
		names, err := c.needed(path)
		if err != nil {
			return nil, err
		}
		out = append(out, names...)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// needed lists what the evidence in a file needs.
func (c *cli) needed(path string) ([]collateral.Name, error) {
	raw, err := c.readFile(path)
	if err != nil {
		return nil, err
	}
	r, err := roomOf(c.rooms(), "", raw)
	if err != nil {
		return nil, unreadable(path, err)
	}
	if r.needs == nil {
		return nil, fmt.Errorf("%s: evidence of %s needs no collateral that can be fetched", path, r.platform)
	}
	ev, err := r.read(raw)
	if err != nil {
		return nil, unreadable(path, err)
	}
	names, err := r.needs(ev)
	if err != nil {
		return nil, unreadable(path, err)
	}
	return names, nil
}
