package tdx

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/tdx/qgs"
	"github.com/vouchsafe-cc/vouchsafe/measure/tsm"
)

// GuestDevice is the node of the TDX guest driver (Linux
// include/uapi/linux/tdx-guest.h).
const GuestDevice = "dev/tdx_guest"

// TDX_CMD_GET_REPORT0: _IOWR('T', 1, struct tdx_report_req), which is 64 bytes
// of report data and the TDREPORT.
const ioctlGetReport = 0xc4405401

type reportRequest struct {
	data   [64]byte
	report tdReportBytes
}

// The size is the kernel's, or this does not compile.
var _ = [1]struct{}{}[unsafe.Sizeof(reportRequest{})-1088]

// tdReportBytes is a TDREPORT (Intel TDX module ABI, TDREPORT_STRUCT): 256 bytes
// REPORTMACSTRUCT, 239 TEE_TCB_INFO, 17 reserved, 512 TDINFO. Only this machine
// can check its MAC.
type tdReportBytes [qgs.ReportSize]byte

const (
	macReportData = 128 // in the TDREPORT
	infoAt        = 512
	infoConfigID  = 64 // in TDINFO: attributes 8, XFAM 8, MRTD 48 come before
	infoRTMR      = 208
)

func (r *tdReportBytes) configID() []byte {
	return r[infoAt+infoConfigID : infoAt+infoConfigID+registerSize]
}

func (r *tdReportBytes) rtmr(n int) []byte {
	at := infoAt + infoRTMR + n*registerSize
	return r[at : at+registerSize]
}

func tdReport(k tsm.Kernel, data measure.ReportData) (*tdReportBytes, error) {
	req := &reportRequest{data: data}
	if err := k.Ioctl(GuestDevice, ioctlGetReport, unsafe.Pointer(req)); err != nil {
		return nil, fmt.Errorf("TDREPORT: %w", err)
	}
	if req.report[0] != 0x81 || [64]byte(req.report[macReportData:]) != req.data {
		return nil, errors.New("TDREPORT: the device returned something else")
	}
	return &req.report, nil
}
