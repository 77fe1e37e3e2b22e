package snp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/tsm"
)

// GuestDevice is the node of the sev-guest driver (Linux
// Documentation/virt/coco/sev-guest.rst, include/uapi/linux/sev-guest.h).
const GuestDevice = "dev/sev-guest"

// Requests of the device: _IOWR('S', n, struct snp_guest_request_ioctl).
const (
	ioctlGetReport         = 0xc0205300
	ioctlGetExtendedReport = 0xc0205302
)

// The driver takes at most 16 KiB for certificates, in whole pages.
const certificateBuffer = 16 << 10

// The layouts of sev-guest.h on 64-bit machines. Addresses are pointers and not
// numbers, so that the garbage collector knows what they keep.
type (
	guestRequest struct {
		messageVersion uint8
		_              [7]byte
		request        unsafe.Pointer
		response       unsafe.Pointer
		firmwareError  uint32
		hostError      uint32
	}
	reportRequest struct {
		data [64]byte
		vmpl uint32
		_    [28]byte
	}
	extendedReportRequest struct {
		reportRequest
		certificates unsafe.Pointer
		length       uint32
		_            uint32
	}
	reportResponse [4000]byte
)

// The sizes are those of the kernel, or this does not compile.
var (
	_ = [1]struct{}{}[unsafe.Sizeof(guestRequest{})-32]
	_ = [1]struct{}{}[unsafe.Sizeof(reportRequest{})-96]
	_ = [1]struct{}{}[unsafe.Sizeof(extendedReportRequest{})-112]
)

// hostInvalidLength is what the host says when its certificates need more room
// than they were given (SNP_GUEST_VMM_ERR_INVALID_LEN).
const hostInvalidLength = 1

var errTableTooLarge = errors.New("the host's certificates do not fit what the driver takes")

func extendedReport(k tsm.Kernel, data measure.ReportData, vmpl uint32) (report, certificates []byte, err error) {
	certificates = make([]byte, certificateBuffer)
	req := &extendedReportRequest{
		reportRequest: reportRequest{data: data, vmpl: vmpl},
		certificates:  unsafe.Pointer(&certificates[0]), length: certificateBuffer,
	}
	report, err = ask(k, ioctlGetExtendedReport, unsafe.Pointer(req))
	if err != nil {
		return nil, nil, err
	}
	return report, certificates, nil
}

func plainReport(k tsm.Kernel, data measure.ReportData, vmpl uint32) ([]byte, error) {
	return ask(k, ioctlGetReport, unsafe.Pointer(&reportRequest{data: data, vmpl: vmpl}))
}

func ask(k tsm.Kernel, ioctl uint32, request unsafe.Pointer) ([]byte, error) {
	resp := new(reportResponse)
	req := &guestRequest{messageVersion: 1, request: request, response: unsafe.Pointer(resp)}
	err := k.Ioctl(GuestDevice, ioctl, unsafe.Pointer(req))
	switch {
	case req.hostError == hostInvalidLength:
		return nil, errTableTooLarge
	case err != nil:
		return nil, fmt.Errorf("%w (firmware error %#x, host error %#x)", err, req.firmwareError, req.hostError)
	case req.firmwareError != 0 || req.hostError != 0:
		return nil, fmt.Errorf("%s: firmware error %#x, host error %#x", GuestDevice, req.firmwareError, req.hostError)
	}
	return parseReportResponse(resp[:])
}

// parseReportResponse takes the report out of MSG_REPORT_RSP (SEV-SNP firmware
// ABI, table 24): status, size, 24 reserved bytes, report.
func parseReportResponse(raw []byte) ([]byte, error) {
	const head = 32
	if len(raw) < head+ReportSize {
		return nil, fmt.Errorf("the response has %d bytes, want at least %d", len(raw), head+ReportSize)
	}
	if status := binary.LittleEndian.Uint32(raw); status != 0 {
		return nil, fmt.Errorf("the firmware refuses the report with status %#x", status)
	}
	if size := binary.LittleEndian.Uint32(raw[4:]); size != ReportSize {
		return nil, fmt.Errorf("the firmware's report has %d bytes, want %d", size, ReportSize)
	}
	return raw[head : head+ReportSize], nil
}
