package tdx

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/aael"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/measure/initdata"
	"github.com/vouchsafe-cc/vouchsafe/measure/tdx/qgs"
	"github.com/vouchsafe-cc/vouchsafe/measure/tsm"
	"github.com/vouchsafe-cc/vouchsafe/measure/tsm/tsmtest"
)

var question = measure.ReportData([]byte("sixty-four bytes of challenge, the digest of a nonce and a key.."))

// quoteOver is as much of a quote as the attester looks at. Signed ones are for
// the verifier's tests.
func quoteOver(version uint16, data []byte, config string) []byte {
	q := make([]byte, quoteHeader)
	binary.LittleEndian.PutUint16(q, version)
	q[4] = 0x81
	if version == 5 {
		q = append(q, 2, 0, 0x48, 2, 0, 0)
	}
	body := make([]byte, bodySize)
	copy(body[184:], config)
	copy(body[520:], data)
	return append(append(q, body...), "signature"...)
}

// machine is a TD in memory: configfs-tsm, the device, and registers that
// extend.
func machine(version uint16, config string) *tsmtest.Kernel {
	registers := map[string][]byte{}
	for _, n := range []string{"0", "1", "2", "3"} {
		registers[measurementDir+"/rtmr"+n+":sha384"] = make([]byte, 48)
	}
	return &tsmtest.Kernel{
		Provider: tsm.ProviderTDX,
		Report: func(a tsmtest.Attributes) (tsmtest.Blobs, error) {
			return tsmtest.Blobs{Out: quoteOver(version, a.InBlob, config)}, nil
		},
		Registers: registers,
		Files:     map[string][]byte{},
		Ioctls:    map[string]func(uint32, unsafe.Pointer) error{GuestDevice: device(config)},
	}
}

// device reads and writes the structure at the offsets of tdx-guest.h.
func device(config string) func(uint32, unsafe.Pointer) error {
	return func(request uint32, arg unsafe.Pointer) error {
		if request != 0xc4405401 {
			return syscall.ENOTTY
		}
		b := unsafe.Slice((*byte)(arg), 64+1024)
		report := b[64:]
		report[0] = 0x81
		copy(report[128:192], b[:64])
		copy(report[512+64:], config)
		copy(report[512+208+3*48:], "rtmr3 by the device")
		return nil
	}
}

// service is a quote service that quotes each report as a version 5 quote, or
// gives what other says.
func service(t *testing.T, other func(report []byte) []byte) (dial qgs.Dialer, calls *atomic.Int32) {
	t.Helper()
	calls = new(atomic.Int32)
	return func(context.Context) (net.Conn, error) {
		calls.Add(1)
		near, far := net.Pipe()
		go func() {
			defer func() { _ = far.Close() }()
			req := make([]byte, 4+24+1024)
			if _, err := io.ReadFull(far, req); err != nil {
				return
			}
			quote := quoteOver(5, req[28+128:28+192], "config")
			if other != nil {
				quote = other(req[28:])
			}
			size := 24 + len(quote)
			msg := binary.BigEndian.AppendUint32(nil, uint32(size))
			msg = append(msg, 1, 0, 0, 0, 1, 0, 0, 0)
			msg = binary.LittleEndian.AppendUint32(msg, uint32(size))
			msg = append(msg, make([]byte, 8)...)
			msg = binary.LittleEndian.AppendUint32(msg, uint32(len(quote)))
			_, _ = far.Write(append(msg, quote...))
		}()
		return near, nil
	}, calls
}

func newAttester(t *testing.T, cfg AttesterConfig) *Attester {
	t.Helper()
	a, err := NewAttester(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// obtained takes evidence apart as a verifier does.
func obtained(t *testing.T, a *Attester) (quote, log []byte) {
	t.Helper()
	ev, err := a.Evidence(t.Context(), question)
	if err != nil {
		t.Fatal(err)
	}
	var w map[string]*string
	if err := json.Unmarshal(ev.Data, &w); err != nil || len(w) != 2 || ev.Platform != measure.TDX {
		t.Fatalf("%s: %v", ev.Data, err)
	}
	if quote, err = base64.StdEncoding.Strict().DecodeString(*w["quote"]); err != nil {
		t.Fatal(err)
	}
	if text := w["cc_eventlog"]; text != nil {
		if log, err = base64.StdEncoding.Strict().DecodeString(*text); err != nil {
			t.Fatal(err)
		}
	}
	return quote, log
}

func TestQuoteServiceIsPreferred(t *testing.T) {
	dial, calls := service(t, nil)
	a := newAttester(t, AttesterConfig{Kernel: machine(4, "config"), QuoteService: dial})
	for i := range 2 {
		quote, log := obtained(t, a)
		if !bytes.Equal(quote, quoteOver(5, question[:], "config")) || log != nil || int(calls.Load()) != i+1 {
			t.Errorf("a quote of version %d, %d calls", quote[0], calls.Load())
		}
	}
}

// Whatever is wrong with the quote service, there is evidence by the driver, and
// the service is left alone for a minute.
func TestQuoteServiceFails(t *testing.T) {
	unreachable := func(calls *atomic.Int32) qgs.Dialer {
		return func(context.Context) (net.Conn, error) { calls.Add(1); return nil, syscall.ECONNREFUSED }
	}
	for name, other := range map[string]func([]byte) []byte{
		"unreachable":   nil,
		"other data":    func([]byte) []byte { return quoteOver(5, []byte("another"), "config") },
		"no quote":      func([]byte) []byte { return []byte("no quote") },
		"of an enclave": func(r []byte) []byte { q := quoteOver(4, r[128:192], "config"); q[4] = 0; return q },
		"version 6":     func(r []byte) []byte { return quoteOver(6, r[128:192], "config") },
	} {
		t.Run(name, func(t *testing.T) {
			dial, calls := service(t, other)
			if other == nil {
				dial = unreachable(calls)
			}
			now := time.Unix(0, 0)
			a := newAttester(t, AttesterConfig{Kernel: machine(4, "config"), QuoteService: dial, Now: func() time.Time { return now }})
			for _, want := range []int32{1, 1, 2} {
				if quote, _ := obtained(t, a); !bytes.Equal(quote, quoteOver(4, question[:], "config")) {
					t.Errorf("the quote is not the driver's: %x", quote[:8])
				}
				if calls.Load() != want {
					t.Errorf("%d calls, want %d", calls.Load(), want)
				}
				now = now.Add(31 * time.Second)
			}
		})
	}
}

// Without the device there is no report to send to the service.
func TestQuoteServiceWithoutDevice(t *testing.T) {
	dial, calls := service(t, nil)
	k := machine(4, "config")
	k.Ioctls = nil
	if quote, _ := obtained(t, newAttester(t, AttesterConfig{Kernel: k, QuoteService: dial})); quote[0] != 4 || calls.Load() != 0 {
		t.Errorf("version %d, %d calls", quote[0], calls.Load())
	}
}

func TestEvidenceRefusals(t *testing.T) {
	stale := machine(4, "")
	stale.Report = func(tsmtest.Attributes) (tsmtest.Blobs, error) {
		return tsmtest.Blobs{Out: quoteOver(4, []byte("another"), "")}, nil
	}
	badLog := machine(4, "")
	badLog.Files[FirmwareLog] = []byte("no log")
	dead := machine(4, "")
	dead.Report = func(tsmtest.Attributes) (tsmtest.Blobs, error) { return tsmtest.Blobs{}, syscall.EIO }
	for name, tc := range map[string]struct {
		kernel *tsmtest.Kernel
		want   string
	}{
		"no hardware":   {&tsmtest.Kernel{}, tsm.ErrNoProvider.Error()},
		"an SNP guest":  {&tsmtest.Kernel{Provider: tsm.ProviderSNP}, `want "tdx_guest"`},
		"stale quote":   {stale, "other data"},
		"malformed log": {badLog, "event log"},
		"driver fails":  {dead, "input/output error"},
	} {
		t.Run(name, func(t *testing.T) {
			if ev, err := newAttester(t, AttesterConfig{Kernel: tc.kernel}).Evidence(t.Context(), question); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s, %v", ev.Data, err)
			}
		})
	}
	if _, err := NewAttester(AttesterConfig{}); err == nil {
		t.Error("no kernel is needed")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := newAttester(t, AttesterConfig{Kernel: machine(4, "")}).Evidence(ctx, question); !errors.Is(err, context.Canceled) {
		t.Errorf("the caller went away: %v", err)
	}
}

// The log in evidence is the firmware's and the agent's, and it leads to the
// registers that the quote would show.
func TestEventLogs(t *testing.T) {
	k := machine(4, "")
	fw := eventlog.NewCCEL()
	fw.Add(3, eventlog.EventTag, []byte("cmdline"), []byte("cmdline"))
	area := append(fw.Marshal(), bytes.Repeat([]byte{0xff}, 4096)...)
	k.Files[FirmwareLog] = area
	rtmr2, rtmr3 := measurementDir+"/rtmr2:sha384", measurementDir+"/rtmr3:sha384"
	k.Registers[rtmr2] = eventlog.SHA384.Sum(make([]byte, 48), eventlog.SHA384.Sum([]byte("cmdline")))

	registers, err := NewRTMRs(k)
	if err != nil {
		t.Fatal(err)
	}
	runtime, err := aael.Open(t.Context(), aael.Config{Path: filepath.Join(t.TempDir(), "log"), Registers: registers, Firmware: area})
	if err != nil {
		t.Fatal(err)
	}
	a := newAttester(t, AttesterConfig{Kernel: k, RuntimeLog: runtime})
	if _, log := obtained(t, a); !bytes.Equal(log, append(fw.Marshal(), eventlog.EndMarker...)) {
		t.Errorf("log of the firmware alone: %x", log)
	}
	for pcr, text := range map[int]string{17: "three", 8: "two"} {
		if err := runtime.Extend(t.Context(), pcr, eventlog.RuntimeEvent{Domain: "test", Operation: "Say", Content: text}); err != nil {
			t.Fatal(err)
		}
	}
	_, raw := obtained(t, a)
	log, err := eventlog.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	got, err := log.Replay(eventlog.SHA384)
	if err != nil {
		t.Fatal(err)
	}
	if len(log.Events) != 3 || !bytes.Equal(got[3], k.Registers[rtmr2]) || !bytes.Equal(got[4], k.Registers[rtmr3]) {
		t.Errorf("%d events lead to %x and %x", len(log.Events), got[3], got[4])
	}
}

func TestRegisters(t *testing.T) {
	if _, err := NewRTMRs(&tsmtest.Kernel{}); !errors.Is(err, aael.ErrNotSupported) {
		t.Errorf("an old kernel: %v", err)
	}
	k := machine(4, "")
	r, err := NewRTMRs(k)
	if err != nil {
		t.Fatal(err)
	}
	for _, pcr := range []int{-1, 0, 1, 7, 24} {
		if _, err := r.Index(pcr); err == nil {
			t.Errorf("PCR %d can be extended", pcr)
		}
	}
	for pcr, want := range map[int]int{8: 3, 15: 3, 16: 4, 17: 4} {
		if got, err := r.Index(pcr); err != nil || got != want {
			t.Errorf("PCR %d is index %d, %v; want %d", pcr, got, err, want)
		}
	}
	for name, f := range map[string]func() error{
		"index 0":      func() error { return r.Extend(t.Context(), 0, make([]byte, 48)) },
		"index 5":      func() error { return r.Extend(t.Context(), 5, make([]byte, 48)) },
		"short digest": func() error { return r.Extend(t.Context(), 4, make([]byte, 32)) },
		"read index 5": func() error { _, err := r.Read(t.Context(), 5); return err },
	} {
		if f() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	delete(k.Registers, measurementDir+"/rtmr3:sha384") // a kernel that only writes
	if v, err := r.Read(t.Context(), 4); err != nil || !bytes.HasPrefix(v, []byte("rtmr3 by the device")) {
		t.Errorf("%q, %v", v, err)
	}
	k.Ioctls = nil
	if _, err := r.Read(t.Context(), 4); err == nil {
		t.Error("a register is made up")
	}
}

func TestBindInitData(t *testing.T) {
	digest := bytes.Repeat([]byte{0xab}, 32)
	field := string(initdata.Fit(digest, 48))
	sysfs, old, oldest := machine(4, field), machine(4, field), machine(5, field)
	sysfs.Files[measurementDir+"/mrconfigid"] = []byte(field)
	sysfs.Ioctls, sysfs.Provider = nil, ""
	old.Provider = ""
	oldest.Ioctls = nil
	for name, k := range map[string]*tsmtest.Kernel{"sysfs": sysfs, "device": old, "quote": oldest} {
		a := newAttester(t, AttesterConfig{Kernel: k})
		if err := a.BindInitData(t.Context(), digest); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, other := range [][]byte{nil, []byte("another")} {
			if err := a.BindInitData(t.Context(), other); !errors.Is(err, initdata.ErrField) {
				t.Errorf("%s: init-data %x: %v", name, other, err)
			}
		}
	}
	if err := newAttester(t, AttesterConfig{Kernel: &tsmtest.Kernel{}}).BindInitData(t.Context(), nil); err == nil || errors.Is(err, initdata.ErrField) {
		t.Errorf("without hardware: %v", err)
	}
}

// The device of another machine, or none, is noticed.
func TestReportOfTheDevice(t *testing.T) {
	for name, answer := range map[string]func(uint32, unsafe.Pointer) error{
		"nothing written": func(uint32, unsafe.Pointer) error { return nil },
		"other data": func(_ uint32, arg unsafe.Pointer) error {
			*(*byte)(unsafe.Add(arg, 64)) = 0x81
			return nil
		},
		"refused": func(uint32, unsafe.Pointer) error { return syscall.EINVAL },
	} {
		k := &tsmtest.Kernel{Ioctls: map[string]func(uint32, unsafe.Pointer) error{GuestDevice: answer}}
		if r, err := tdReport(k, question); err == nil {
			t.Errorf("%s: %x", name, r[:16])
		}
	}
}

func FuzzQuoteBody(f *testing.F) {
	f.Add(quoteOver(4, question[:], "config"))
	f.Add(quoteOver(5, question[:], "config"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		body, err := quoteBody(raw)
		if (err == nil) != (len(body) == bodySize) {
			t.Fatalf("%d bytes, %v", len(body), err)
		}
		_ = checkQuote(raw, question)
	})
}

var (
	_ measure.Attester = (*Attester)(nil)
	_ aael.Registers   = (*RTMRs)(nil)
)
