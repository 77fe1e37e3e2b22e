package hub

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/policy"
	"github.com/vouchsafe-cc/vouchsafe/image/pull"
	"github.com/vouchsafe-cc/vouchsafe/image/trust"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client"
)

// ObjectKind says what was refused. Unlike the object's name it may appear in
// logs.
type ObjectKind string

// The kinds of object.
const (
	ObjectImage    ObjectKind = "image"
	ObjectResource ObjectKind = "resource"
	ObjectToken    ObjectKind = "token"
	ObjectEvidence ObjectKind = "evidence"
	ObjectInitData ObjectKind = "init-data"
	ObjectEvent    ObjectKind = "event"
	ObjectRequest  ObjectKind = "request" // of the host, by the agent policy
	ObjectSealed   ObjectKind = "sealed-secret"
	ObjectKey      ObjectKind = "image-key"
	ObjectVolume   ObjectKind = "volume"
)

const (
	// reportTimeout bounds how long a refusal waits for the broker's ticket.
	reportTimeout = 5 * time.Second
	// maxCause bounds the cause in a report, in bytes; maxFindings the findings.
	maxCause    = 4 << 10
	maxFindings = 32
)

// Reporter tells the broker of refusals.
type Reporter interface {
	ReportRefusal(ctx context.Context, r api.GuestRefusal) (fault.Ticket, error)
}

// A Refuser turns errors into refusals: it finds a ticket for each and puts the
// cause where only the operator reads it.
type Refuser struct {
	broker  Reporter // nil without one
	journal io.Writer
	log     *slog.Logger
	timeout time.Duration
	now     func() time.Time
}

// NewRefuser returns a refuser that reports to broker, and to the journal when
// that is nil or cannot be told. Before the guest's configuration is trusted,
// use one without a broker: its URL is part of what is not trusted yet.
func NewRefuser(broker Reporter, journal io.Writer, log *slog.Logger) *Refuser {
	return &Refuser{broker: broker, journal: journal, log: log, timeout: reportTimeout, now: time.Now}
}

// Refuse returns a *fault.Fault with a ticket for any err but nil. A ticket
// that err already carries is kept: the broker that drew it knows the cause.
// It takes at most five seconds beyond those of a broker that is in good
// health, even if ctx is already done, and holds no lock.
//
// Only the code, the ticket and the kind of object are logged. The cause goes
// to the broker or the journal.
func (r *Refuser) Refuse(ctx context.Context, kind ObjectKind, name string, err error) error {
	if err == nil {
		return nil
	}
	f := asFault(err)
	if f.Ticket == "" {
		f = f.With(r.record(ctx, kind, describe(f, name)))
	}
	r.log.LogAttrs(ctx, slog.LevelWarn, "refused",
		slog.String("code", string(f.Code)),
		slog.String("ticket", string(f.Ticket)),
		slog.String("object_kind", string(kind)))
	return f
}

// asFault finds the first refusal in err. An error that nobody classified was
// either cut short or is a fault of our own.
func asFault(err error) *fault.Fault {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fault.New(fault.Unavailable, err)
	}
	return fault.New(fault.Internal, err)
}

// record tells the broker, or else the journal, and returns the ticket.
func (r *Refuser) record(ctx context.Context, kind ObjectKind, refusal api.GuestRefusal) fault.Ticket {
	// A broker that was out of reach a moment ago is not asked again: its
	// silence may be why we are here.
	if r.broker != nil && refusal.Code != string(fault.Unavailable) {
		// The caller's deadline may be what ended the errand; the report still
		// has its own.
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.timeout)
		defer cancel()
		t, err := r.broker.ReportRefusal(bounded, refusal)
		if err == nil {
			return t
		}
		r.log.LogAttrs(ctx, slog.LevelInfo, "the broker was not told of a refusal",
			slog.String("object_kind", string(kind)),
			slog.Bool("unsupported", errors.Is(err, client.ErrUnsupported)))
	}
	t := fault.NewTicket()
	if err := r.write(t, kind, refusal); err != nil {
		r.log.LogAttrs(ctx, slog.LevelError, "a refusal could not be written to the journal",
			slog.String("ticket", string(t)))
	}
	return t
}

// journalEntry is one line of the journal.
type journalEntry struct {
	Time   time.Time     `json:"time"`
	Ticket fault.Ticket  `json:"ticket"`
	Kind   ObjectKind    `json:"object_kind"`
	Code   string        `json:"code"`
	Object string        `json:"object"`
	Cause  string        `json:"cause"`
	Rule   string        `json:"rule,omitempty"`
	Found  []api.Finding `json:"findings,omitempty"`
}

func (r *Refuser) write(t fault.Ticket, kind ObjectKind, g api.GuestRefusal) error {
	line, err := json.Marshal(journalEntry{
		Time: r.now().UTC(), Ticket: t, Kind: kind,
		Code: g.Code, Object: g.Object, Cause: g.Cause, Rule: g.Rule, Found: g.Findings,
	})
	if err != nil {
		return err
	}
	_, err = r.journal.Write(append(line, '\n'))
	return err
}

// journalVerdict keeps the JSON of a verdict. Its digest, over exactly the bytes
// that stand in the line, is what runtime events name.
func (r *Refuser) journalVerdict(raw []byte) error {
	line, err := json.Marshal(struct {
		Time    time.Time       `json:"time"`
		Kind    ObjectKind      `json:"object_kind"`
		Digest  string          `json:"verdict_digest"`
		Verdict json.RawMessage `json:"verdict"`
	}{r.now().UTC(), ObjectImage, verdictDigest(raw), raw})
	if err != nil {
		return err
	}
	_, err = r.journal.Write(append(line, '\n'))
	return err
}

// describe says what the operator should know of f. The causes with a shape of
// their own give findings, so that nobody has to parse the text.
func describe(f *fault.Fault, object string) api.GuestRefusal {
	g := api.GuestRefusal{Code: string(f.Code), Object: clip(object, maxCause), Cause: string(f.Code)}
	if cause := f.Cause(); cause != nil {
		g.Cause = clip(cause.Error(), maxCause)
	}
	if rej, ok := errors.AsType[*trust.Rejection](f); ok {
		g.Rule = rej.Scope
		g.Findings = append(g.Findings, finding("image.signer", rej.Seen, rej.Wanted))
	}
	if le, ok := errors.AsType[*pull.LayerError](f); ok {
		seen := le.Seen
		if seen == "" && le.Err != nil {
			seen = le.Err.Error()
		}
		g.Rule = "layer." + le.What // what a layer's bytes must equal before anything of them is visible
		g.Findings = append(g.Findings, finding("layer."+le.Digest+"."+le.What, seen, []string{le.Wanted}))
	}
	if d, ok := errors.AsType[*policy.Denial](f); ok {
		g.Rule = d.Rule()
		g.Findings = append(g.Findings, finding("request."+d.Request, d.Why, []string{"what the agent policy allows"}))
	}
	if i, ok := errors.AsType[*policy.ImageError](f); ok {
		g.Rule = policy.PinsRule
		g.Findings = append(g.Findings, finding("image.digest", i.Digest, i.Wanted))
	}
	return g
}

func finding(claim, seen string, wanted []string) api.Finding {
	f := api.Finding{Claim: clip(claim, maxCause), Seen: clip(seen, maxCause)}
	for _, w := range wanted {
		if w != "" && len(f.Wanted) < maxFindings {
			f.Wanted = append(f.Wanted, clip(w, maxCause))
		}
	}
	return f
}

// clip cuts s to n bytes at most, at a rune's border, and drops what is not
// UTF-8: the text goes into JSON and may come from a hostile registry.
func clip(s string, n int) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}
