package tdx

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/aael"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/measure/initdata"
	"github.com/vouchsafe-cc/vouchsafe/measure/tdx/qgs"
	"github.com/vouchsafe-cc/vouchsafe/measure/tsm"
)

// FirmwareLog is where Linux shows the CCEL, the log of what the firmware
// measured.
const FirmwareLog = "sys/firmware/acpi/tables/data/CCEL"

// AttesterConfig says how to ask for quotes of this machine.
type AttesterConfig struct {
	Kernel tsm.Kernel
	// QuoteService reaches the quote service of the host, which is faster than
	// the driver; nil for none.
	QuoteService qgs.Dialer
	// RuntimeLog is sent with the firmware's log; nil for none.
	RuntimeLog *aael.Log
	Logger     *slog.Logger     // nil discards
	Now        func() time.Time // nil is time.Now
}

// Attester obtains quotes of the TD that it runs in: from the quote service
// where that answers, else by configfs-tsm. It is safe for concurrent use.
type Attester struct {
	kernel  tsm.Kernel
	service qgs.Dialer
	runtime *aael.Log
	log     *slog.Logger
	now     func() time.Time
	turns   chan struct{}

	mu      sync.Mutex
	retry   time.Time // before it the quote service is not asked again
	failure error     // of the service, last time
}

const (
	// maxQuotes is how many are asked for at a time. The service has four threads
	// by default, and a hundred quotes at once have brought TDs down.
	maxQuotes = 4
	// serviceRest is how long a quote service that failed is left alone.
	serviceRest = time.Minute
)

// NewAttester returns an attester. It asks for nothing yet.
func NewAttester(cfg AttesterConfig) (*Attester, error) {
	if cfg.Kernel == nil {
		return nil, errors.New("tdx: no kernel to ask for quotes")
	}
	a := &Attester{
		kernel: cfg.Kernel, service: cfg.QuoteService, runtime: cfg.RuntimeLog, log: cfg.Logger, now: cfg.Now,
		turns: make(chan struct{}, maxQuotes),
	}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	if a.now == nil {
		a.now = time.Now
	}
	return a, nil
}

// Platform returns [measure.TDX].
func (a *Attester) Platform() measure.Platform { return measure.TDX }

// Evidence returns a fresh quote over the report data with the event log that
// explains its registers (kbs-protocol 16.3). Nothing is extended meanwhile.
func (a *Attester) Evidence(ctx context.Context, data measure.ReportData) (measure.Evidence, error) {
	// GCE's firmware and old ones keep no log.
	firmware, err := tsm.ReadOptional(a.kernel, FirmwareLog, eventlog.MaxSize)
	if err != nil {
		return measure.Evidence{}, fmt.Errorf("read the firmware's event log: %w", err)
	}
	var quote, log []byte
	obtain := func(records []byte) error {
		if log, err = eventlog.Combine(firmware, records, eventlog.SHA384); err != nil {
			return err
		}
		quote, err = a.quote(ctx, data)
		return err
	}
	if a.runtime != nil {
		err = a.runtime.Hold(obtain)
	} else {
		err = obtain(nil)
	}
	if err != nil {
		return measure.Evidence{}, fmt.Errorf("obtain TDX quote: %w", err)
	}
	e := Evidence{Quote: quote, EventLog: log}
	return e.Wire()
}

// BindInitData compares MRCONFIGID with the digest of the init-data document,
// nil for none (guest-protocol 5.3). A difference wraps [initdata.ErrField].
func (a *Attester) BindInitData(ctx context.Context, digest []byte) error {
	field, err := a.configID(ctx)
	if err != nil {
		return fmt.Errorf("read MRCONFIGID: %w", err)
	}
	return initdata.CompareField(field, digest)
}

// configID reads the field from the cheapest place that has it. All of them are
// the TDX module's word.
func (a *Attester) configID(ctx context.Context) ([]byte, error) {
	if field, err := a.kernel.ReadFile(measurementDir+"/mrconfigid", registerSize); err == nil {
		if len(field) != registerSize {
			return nil, fmt.Errorf("it has %d bytes, want %d", len(field), registerSize)
		}
		return field, nil
	}
	if report, err := tdReport(a.kernel, measure.ReportData{}); err == nil {
		return report.configID(), nil
	}
	quote, err := a.quote(ctx, measure.ReportData{})
	if err != nil {
		return nil, err
	}
	body, err := quoteBody(quote)
	if err != nil {
		return nil, err
	}
	return body[184:232], nil
}

// quote asks the service and then the driver.
func (a *Attester) quote(ctx context.Context, data measure.ReportData) ([]byte, error) {
	select {
	case a.turns <- struct{}{}:
		defer func() { <-a.turns }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	quote, failure := a.fromService(ctx, data)
	if failure == nil {
		return quote, nil
	}
	rep, err := tsm.Reports{Kernel: a.kernel}.Get(ctx, tsm.Request{Provider: tsm.ProviderTDX, InBlob: data[:]})
	if err != nil {
		return nil, fmt.Errorf("%w (and not from the quote service: %w)", err, failure)
	}
	return rep.Out, checkQuote(rep.Out, data)
}

var errNoService = errors.New("none is configured")

// fromService returns the quote service's quote. Where it gives none there is
// another way, so why goes to the log, and it is left alone for a while.
func (a *Attester) fromService(ctx context.Context, data measure.ReportData) ([]byte, error) {
	if a.service == nil {
		return nil, errNoService
	}
	a.mu.Lock()
	rest, failure := a.now().Before(a.retry), a.failure
	a.mu.Unlock()
	if rest {
		return nil, failure
	}
	quote, err := a.askService(ctx, data)
	if err == nil || ctx.Err() != nil { // if it is the caller who left, the service may be well
		return quote, err
	}
	a.log.Info("the quote service gives no quote; the driver is asked", slog.Any("err", err))
	a.mu.Lock()
	a.retry, a.failure = a.now().Add(serviceRest), err
	a.mu.Unlock()
	return nil, err
}

func (a *Attester) askService(ctx context.Context, data measure.ReportData) ([]byte, error) {
	report, err := tdReport(a.kernel, data)
	if err != nil {
		return nil, err
	}
	quote, err := qgs.Quote(ctx, a.service, report[:])
	if err != nil {
		return nil, err
	}
	return quote, checkQuote(quote, data)
}

// Places in a quote (Intel TDX DCAP quote generation library, sections A.3 and
// A.4). In version 5 the body comes after its type and size.
const (
	quoteHeader = 48
	bodySize    = 584
	bodyData    = 520 // of the report data in the body
)

func quoteBody(quote []byte) ([]byte, error) {
	at := quoteHeader
	if len(quote) >= quoteHeader {
		switch v := binary.LittleEndian.Uint16(quote); {
		case binary.LittleEndian.Uint32(quote[4:]) != 0x81:
			return nil, errors.New("this is no quote of a TD")
		case v == 4:
		case v == 5:
			at += 6
		default:
			return nil, fmt.Errorf("a quote of version %d", v)
		}
	}
	if len(quote) < at+bodySize {
		return nil, fmt.Errorf("a quote of %d bytes", len(quote))
	}
	return quote[at : at+bodySize], nil
}

// checkQuote makes sure that the quote answers this question. Whether it is true
// is for a verifier to say; but one over other data would only be refused there,
// with nobody knowing why.
func checkQuote(quote []byte, data measure.ReportData) error {
	body, err := quoteBody(quote)
	if err != nil {
		return err
	}
	if measure.ReportData(body[bodyData:]) != data {
		return errors.New("the quote is over other data than was asked for")
	}
	return nil
}
