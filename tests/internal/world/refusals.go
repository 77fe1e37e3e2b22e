package world

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// Refusal is what came of something that must be refused: what the untrusted
// side saw, and what the administrator finds behind the ticket.
type Refusal struct {
	Public      string // the whole text that the untrusted side got
	Code        fault.Code
	Ticket      string
	Explanation api.Explanation
}

var publicForm = regexp.MustCompile(`([a-z]+(?:_[a-z]+)+) \(ticket ([0-9A-Z]{4}-[0-9A-Z]{4})\)`)

// Refused expects an error to be a refusal with a code, and opens its ticket, which
// must compare what was seen with what was wanted.
func (w *World) Refused(ctx context.Context, err error, want fault.Code) (Refusal, error) {
	r, err := w.Opened(ctx, err, want)
	if err != nil {
		return r, err
	}
	e := r.Explanation
	if len(e.Findings) == 0 || e.Findings[0].Claim == "" || e.Findings[0].Seen == "" || len(e.Findings[0].Wanted) == 0 || e.Rule == "" {
		return r, fmt.Errorf("ticket %s lacks claim, value seen, values wanted or rule: %+v", r.Ticket, e)
	}
	return r, nil
}

// Opened is Refused for what has a cause, and nothing to compare.
func (w *World) Opened(ctx context.Context, err error, want fault.Code) (Refusal, error) {
	if err == nil {
		return Refusal{}, errors.New("it was not refused")
	}
	m := publicForm.FindStringSubmatch(err.Error())
	if m == nil {
		return Refusal{}, fmt.Errorf("no code and ticket in what came back: %w", err)
	}
	r := Refusal{Public: err.Error(), Code: fault.Code(m[1]), Ticket: m[2]}
	if r.Code != want {
		return r, fmt.Errorf("refused with %s, wanted %s: %s", r.Code, want, r.Public)
	}
	e, err := w.Broker.Explain(ctx, r.Ticket)
	if err != nil {
		return r, err
	}
	r.Explanation = e
	if e.Code != string(want) || e.Ticket != r.Ticket {
		return r, fmt.Errorf("ticket %s explains %s (%s), not %s", r.Ticket, e.Ticket, e.Code, want)
	}
	return r, nil
}

// Finding returns the explanation's finding about a claim whose name contains
// the text.
func (r Refusal) Finding(claim string) (api.Finding, error) {
	for _, f := range r.Explanation.Findings {
		if strings.Contains(f.Claim, claim) {
			return f, nil
		}
	}
	return api.Finding{}, fmt.Errorf("ticket %s says nothing about %s: %+v", r.Ticket, claim, r.Explanation)
}

// expect checks that the explanation names the claim with the wanted value and
// another one seen.
func (r Refusal) expect(claim, wanted string) error {
	f, err := r.Finding(claim)
	if err != nil {
		return err
	}
	if !slices.Contains(f.Wanted, wanted) || f.Seen == wanted || f.Seen == "" {
		return fmt.Errorf("ticket %s: %s: seen %q, wanted %q; expected %q among the wanted", r.Ticket, f.Claim, f.Seen, f.Wanted, wanted)
	}
	return nil
}

// tryPod launches a guest and tries to run the image in it; whatever refuses is
// the error. The guest is stopped again.
func (w *World) tryPod(ctx context.Context, label, vendor, commandLine, ref string) (err error) {
	config, err := w.ImageConfig(ctx, ref)
	if err != nil {
		return fmt.Errorf("read the image's configuration: %w", err)
	}
	g, launchErr := w.Launch(ctx, label, vendor, commandLine, Pod{Image: ref})
	if launchErr != nil {
		return fmt.Errorf("launch: %w", launchErr)
	}
	defer func() {
		if stopErr := g.Stop(); stopErr != nil && err == nil {
			err = stopErr
		}
	}()
	if err := g.Kata().Pod(ctx); err != nil {
		return fmt.Errorf("pod: %w", err)
	}
	return g.Kata().Container(ctx, "app-"+label, ref, config)
}

// OtherMeasurement runs the image in a guest that was launched with another
// command line than the reference value stands for.
func (w *World) OtherMeasurement(ctx context.Context, vendor, ref, measurement string) (Refusal, error) {
	err := w.tryPod(ctx, "altered", vendor, CommandLine+" init=/bin/sh", ref)
	r, err := w.Refused(ctx, err, fault.PolicyDenied)
	if err != nil {
		return r, err
	}
	return r, r.expect("measurement", measurement)
}

// OtherSigner runs a copy of the image that somebody else signed.
func (w *World) OtherSigner(ctx context.Context, vendor, ref string) (Refusal, error) {
	imposter, err := w.Copy(ctx, ref, "demo/imposter:1")
	if err != nil {
		return Refusal{}, err
	}
	key, err := w.Keygen(ctx, "imposter")
	if err != nil {
		return Refusal{}, err
	}
	if err := w.Sign(ctx, imposter, key); err != nil {
		return Refusal{}, err
	}
	err = w.tryPod(ctx, "imposter", vendor, CommandLine, imposter)
	r, err := w.Refused(ctx, err, fault.ImageUnsigned)
	if err != nil {
		return r, err
	}
	_, err = r.Finding("signer")
	return r, err
}

// FlippedBit runs the image while one bit of one of its layers is wrong.
func (w *World) FlippedBit(ctx context.Context, vendor, ref string) (Refusal, error) {
	digests, err := w.LayerDigests(ctx, ref)
	if err != nil {
		return Refusal{}, err
	}
	layer := digests[len(digests)-2]
	if err := w.Registry.FlipBit(layer); err != nil {
		return Refusal{}, err
	}
	err = w.tryPod(ctx, "flipped", vendor, CommandLine, ref)
	if back := w.Registry.FlipBit(layer); back != nil {
		return Refusal{}, back
	}
	r, err := w.Refused(ctx, err, fault.ImageCorrupt)
	if err != nil {
		return r, err
	}
	f, err := r.Finding("layer")
	if err == nil && !strings.Contains(f.Claim+f.Seen+strings.Join(f.Wanted, " ")+r.Explanation.Object+r.Explanation.Cause, layer) {
		err = fmt.Errorf("ticket %s does not name the layer %s: %+v", r.Ticket, layer, r.Explanation)
	}
	return r, err
}

// UnknownRoot runs the image in a guest whose chip was made by a vendor that
// the broker's configuration does not name.
func (w *World) UnknownRoot(ctx context.Context, otherVendor, ref string) (Refusal, error) {
	err := w.tryPod(ctx, "unknown-root", otherVendor, CommandLine, ref)
	r, err := w.Refused(ctx, err, fault.RootUntrusted)
	if err != nil {
		return r, err
	}
	_, err = r.Finding("root")
	return r, err
}
