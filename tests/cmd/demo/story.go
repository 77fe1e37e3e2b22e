package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vouchsafe-cc/vouchsafe/tests/internal/debimage"
	"github.com/vouchsafe-cc/vouchsafe/tests/internal/world"
)

// act is one step. do returns lines that tell what was shown.
type act struct {
	title string
	do    func(context.Context) ([]string, error)
}

type played struct {
	title string
	took  time.Duration
}

// billboard tells of acts as they are played.
type billboard struct {
	out     io.Writer
	tickets []string
	history []played
}

// story holds what later acts need of earlier ones.
type story struct {
	*world.World
	options
	*billboard
	cache string

	vendor, stranger    string // simulated vendors: the trusted, and another
	source, ref, signer string
	measurement         string
	greeting            string
	guest               *world.Guest
}

func (s *story) acts() []act {
	return []act{
		{"1 broker", s.startBroker},
		{"2 registry", s.startRegistry},
		{"3 image from Debian packages", s.assemble},
		{"4 encrypt, sign, push", s.ship},
		{"5 reference value and policies", s.decide},
		{"6 a guest proves itself and runs it", s.runIt},
		{"7a refused: another measurement", s.otherMeasurement},
		{"7b refused: image signed by another key", s.otherSigner},
		{"7c refused: one flipped bit", s.flippedBit},
		{"7d refused: replayed evidence", s.replay},
		{"7e refused: a root nobody named", s.unknownRoot},
		{"7f refused: a host that asks for more", s.otherRequests},
		{"8 the audit log proves itself", s.audit},
	}
}

func (s *billboard) act(ctx context.Context, a act) error {
	begin := time.Now()
	lines, err := a.do(ctx)
	took := time.Since(begin)
	fmt.Fprintf(s.out, "\n%-44s %6.2f s\n", a.title, took.Seconds())
	for _, l := range lines {
		fmt.Fprintf(s.out, "    %s\n", l)
	}
	s.history = append(s.history, played{a.title, took})
	return err
}

func (s *billboard) table() error {
	fmt.Fprintln(s.out)
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	var total time.Duration
	fmt.Fprintln(w, "step\tseconds\t")
	for _, h := range s.history {
		total += h.took
		fmt.Fprintf(w, "%s\t%.2f\t\n", h.title, h.took.Seconds())
	}
	fmt.Fprintf(w, "all of it held\t%.2f\t\n", total.Seconds())
	return w.Flush()
}

// startBroker also makes the simulated vendors, whose RSA keys take a moment:
// the broker's configuration must name the root that it trusts.
func (s *story) startBroker(ctx context.Context) ([]string, error) {
	var g errgroup.Group
	g.Go(func() (err error) { s.vendor, err = s.Vendor(ctx, "demo"); return err })
	g.Go(func() (err error) { s.stranger, err = s.Vendor(ctx, "stranger"); return err })
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if err := s.StartBroker(ctx, map[string]string{"demo": s.vendor + "/root.pem"}); err != nil {
		return nil, err
	}
	info, err := os.Stat(s.Broker.TokenFile())
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode != 0o600 {
		return nil, fmt.Errorf("the admin credential has mode %v", mode)
	}
	return []string{
		"kbs serve: SQLite store in a fresh state directory, TLS with its own keys on " + s.Broker.URL,
		"the admin credential is in a file only its owner can read, and expires",
		"a simulated AMD made its root for this run; the broker trusts it by name: demo",
	}, nil
}

func (s *story) startRegistry(context.Context) ([]string, error) {
	if err := s.StartRegistry(); err != nil {
		return nil, err
	}
	return []string{"OCI registry (distribution) on https://" + s.Registry.Addr}, nil
}

func (s *story) assemble(ctx context.Context) (lines []string, err error) {
	if s.image != "" {
		s.source = s.image
		return []string{"taking " + s.image}, nil
	}
	if s.source, err = s.Image(ctx, s.cache); err != nil {
		return nil, err
	}
	return []string{"nginx, a shell and tools in 5 layers (gzip and zstd), with setuid bits, hard links, a file capability, whiteouts"}, nil
}

func (s *story) ship(ctx context.Context) (lines []string, err error) {
	if s.ref, err = s.Encrypt(ctx, s.source, "demo/nginx:1"); err != nil {
		return nil, err
	}
	if s.signer, err = s.Keygen(ctx, "shipper"); err != nil {
		return nil, err
	}
	if err := s.Sign(ctx, s.ref, s.signer); err != nil {
		return nil, err
	}
	return []string{
		"kbsctl image encrypt: a fresh key for each layer, wrapped by " + world.KeyResource + " at the broker",
		"kbsctl image sign: cosign signature beside " + s.ref,
	}, nil
}

func (s *story) decide(ctx context.Context) (lines []string, err error) {
	if s.measurement, err = s.RegisterMeasurement(ctx, world.CommandLine); err != nil {
		return nil, err
	}
	s.greeting = "the secret word is " + rand.Text()
	if err := s.Policies(ctx, s.signer, s.greeting); err != nil {
		return nil, err
	}
	return []string{
		"snp_launch_measurement = " + s.measurement[:16] + "..., predicted from the agent's binary and command line",
		"attestation policy: that measurement, no debugging, AMD's root or the one named demo",
		"resource policy: what this pod needs to an affirmed guest, nothing else",
	}, nil
}

func (s *story) runIt(ctx context.Context) ([]string, error) {
	g, err := s.Launch(ctx, "good", s.vendor, world.CommandLine, world.Pod{Image: s.ref})
	if err != nil {
		return nil, err
	}
	s.guest = g
	if err := g.Kata().Pod(ctx); err != nil {
		return nil, err
	}
	config, err := s.ImageConfig(ctx, s.ref)
	if err != nil {
		return nil, err
	}
	if err := g.Kata().Container(ctx, "app", s.ref, config); err != nil {
		return nil, err
	}
	lines := []string{
		"Kata protocol: CreateSandbox, pause, CreateContainer with image_guest_pull, StartContainer, ReadStdout",
		"guest-agent genpolicy wrote what the host may ask for: this pod and no other; init-data, which is measured, brings it",
	}
	if s.image != "" {
		return append(lines, "the container of "+s.image+" was started"), nil
	}
	if _, err := g.Kata().Output(ctx, "app", "page ready"); err != nil {
		return lines, fmt.Errorf("%w; its standard error: %s", err, g.Kata().Errors(ctx, "app"))
	}
	page, err := s.page(ctx)
	if err != nil {
		brief, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		return lines, fmt.Errorf("%w; the container's standard error: %s", err, g.Kata().Errors(brief, "app"))
	}
	if !strings.Contains(page, s.greeting) {
		return lines, fmt.Errorf("the page lacks the secret: %q", page)
	}
	n, err := attestations(ctx, s.Broker)
	if err != nil {
		return lines, err
	}
	if n != 1 {
		return lines, fmt.Errorf("the guest attested %d times, not once", n)
	}
	return append(lines, "attested once for policy, signer's key, layer key and the page's secret",
		"nginx in the guest answers: "+strings.Join(strings.Fields(page), " ")), nil
}

// page asks the service from inside the sandbox, until it listens.
func (s *story) page(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		page, err := s.guest.Net.Get(ctx, "http://127.0.0.1:"+strconv.Itoa(debimage.Port)+"/")
		if err == nil {
			return page, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return "", err
		}
	}
}

func attestations(ctx context.Context, b *world.Broker) (int, error) {
	entries, err := b.AuditEntries(ctx)
	n := 0
	for _, e := range entries {
		if e.Kind == "attest" && e.Decision == "allow" {
			n++
		}
	}
	return n, err
}

// told renders a refusal: the untrusted side's view, then the administrator's.
func (s *billboard) told(r world.Refusal, err error) ([]string, error) {
	if err != nil {
		return nil, err
	}
	s.tickets = append(s.tickets, r.Ticket)
	lines := []string{
		fmt.Sprintf("guest's side: %s (ticket %s)", r.Code, r.Ticket),
		"kbsctl explain ticket/" + r.Ticket + ":",
	}
	for _, f := range r.Explanation.Findings {
		lines = append(lines, "    claim "+f.Claim, "    seen  "+short(f.Seen))
		if len(f.Wanted) > 0 {
			lines = append(lines, "    want  "+short(strings.Join(f.Wanted, ", ")))
		}
	}
	if r.Explanation.Rule != "" {
		lines = append(lines, strings.TrimRight(fmt.Sprintf("    rule  %s  %s", r.Explanation.Rule, r.Explanation.Policy), " "))
	}
	if len(r.Explanation.Findings) == 0 {
		lines = append(lines, "    cause "+short(r.Explanation.Cause))
	}
	return lines, nil
}

func short(s string) string {
	const most = 90
	if len(s) <= most {
		return s
	}
	return s[:most] + "..."
}

func (s *story) otherMeasurement(ctx context.Context) ([]string, error) {
	return s.told(s.OtherMeasurement(ctx, s.vendor, s.ref, s.measurement))
}

func (s *story) otherSigner(ctx context.Context) ([]string, error) {
	return s.told(s.OtherSigner(ctx, s.vendor, s.ref))
}

func (s *story) flippedBit(ctx context.Context) ([]string, error) {
	return s.told(s.FlippedBit(ctx, s.vendor, s.ref))
}

func (s *story) replay(ctx context.Context) ([]string, error) {
	stale, rewritten, err := s.Replay(ctx, s.vendor)
	first, err := s.told(stale, err)
	if err != nil {
		return first, err
	}
	second, err := s.told(rewritten, nil)
	return append(append(append([]string{"sent again as it was:"}, first...), "sent again with the new nonce written in:"), second...), err
}

func (s *story) unknownRoot(ctx context.Context) ([]string, error) {
	return s.told(s.UnknownRoot(ctx, s.stranger, s.ref))
}

func (s *story) otherRequests(ctx context.Context) ([]string, error) {
	if s.image != "" {
		return []string{"needs the assembled image, whose container still runs"}, nil
	}
	shell, second, err := s.OtherRequests(ctx, s.guest, "app", s.ref)
	first, err := s.told(shell, err)
	if err != nil {
		return first, err
	}
	more, err := s.told(second, nil)
	return append(append(append([]string{"a shell in the container:"}, first...), "a second container, with arguments of the host's:"), more...), err
}

func (s *story) audit(ctx context.Context) ([]string, error) {
	out, err := s.Broker.Ctl(ctx, "audit", "verify", "--log-key", s.Broker.State+"/audit.pub")
	if err != nil {
		return nil, err
	}
	entries, err := s.Broker.AuditEntries(ctx)
	if err != nil {
		return nil, err
	}
	count := map[string]int{}
	released := map[string]bool{}
	for _, e := range entries {
		count[e.Ticket]++
		if e.Kind == "release" && e.Decision == "allow" {
			released[strings.TrimPrefix(e.Object, "resource/")] = true
		}
	}
	for _, t := range s.tickets {
		if count[t] != 1 {
			return nil, fmt.Errorf("ticket %s has %d entries in the log, not one", t, count[t])
		}
	}
	if err := releasedAll(released, s.image == ""); err != nil {
		return nil, err
	}
	return append(strings.Split(strings.TrimSpace(out), "\n"),
		fmt.Sprintf("one entry for each of the %d refusals, and for each release before it was answered", len(s.tickets))), nil
}

func releasedAll(released map[string]bool, page bool) error {
	want := []string{world.KeyResource, world.PolicyResource, world.SignerResource}
	if page {
		want = append(want, world.SecretResource)
	}
	var errs []error
	for _, path := range want {
		if !released[path] {
			errs = append(errs, fmt.Errorf("the log has no entry for the release of %s", path))
		}
	}
	return errors.Join(errs...)
}

func (s *story) howToPlay() {
	ctl := fmt.Sprintf("%s/kbsctl --server %s --ca %s --token-file %s", s.Bin, s.Broker.AdminURL, s.Broker.CA, s.Broker.TokenFile())
	fmt.Fprintf(s.out, `
Everything is still running. In another terminal:

  alias k='%s'
  k list tickets                  what was refused
  k explain ticket/%s      why
  k list events                   the audit log
  k audit verify                  prove it
  nsenter --net=/proc/%d/ns/net curl http://127.0.0.1:%d/     the service, from inside the sandbox

Ctrl-C ends it and removes everything.
`, ctl, lastOf(s.tickets), s.guest.PID(), debimage.Port)
}

func lastOf(list []string) string {
	if len(list) == 0 {
		return "ID"
	}
	return list[len(list)-1]
}
