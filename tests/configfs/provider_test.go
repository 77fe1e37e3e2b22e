package configfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/measure/tsm"
	"github.com/vouchsafe-cc/vouchsafe/measure/tsm/tsmtest"
)

// Names of what folder provider makes.
const (
	moduleName = "vouchsafe_tsm"
	deviceNode = "/dev/vouchsafe-tsm"
)

// question is what the module asks, as it lies in memory: privilege level, length
// of the input, input.
type question struct {
	PrivLevel uint32
	Length    uint32
	InBlob    [tsm.MaxInBlob]byte
}

// answer comes before both blobs.
type answer struct {
	Error    int32 // 0, or a negative errno
	Out, Aux uint32
}

// provide loads the module as the driver of a platform, and answers in the place
// of its hardware until the test ends. The level is given to report as text, as it
// was written; "" stands for 0, which nobody need write.
func provide(t *testing.T, platform string, floor int, report func(tsmtest.Attributes) (tsmtest.Blobs, error)) {
	t.Helper()
	load(t, fmt.Sprintf("provider=%s floor=%d", platform, floor))
	device, err := os.OpenFile(deviceNode, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- serve(device, report) }()
	t.Cleanup(func() {
		if err := errors.Join(device.Close(), <-done); err != nil {
			t.Errorf("the simulated hardware: %v", err)
		}
	})
}

func load(t *testing.T, parameters string) {
	t.Helper()
	f, err := os.Open(os.Getenv("VOUCHSAFE_TSM_MODULE"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if err := unix.FinitModule(int(f.Fd()), parameters, 0); err != nil {
		t.Fatalf("load the provider: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.DeleteModule(moduleName, 0); err != nil {
			t.Errorf("unload the provider: %v", err)
		}
	})
}

// serve answers until the device is closed.
func serve(device io.ReadWriter, report func(tsmtest.Attributes) (tsmtest.Blobs, error)) error {
	raw := make([]byte, binary.Size(question{}))
	for {
		if _, err := io.ReadFull(device, raw); errors.Is(err, os.ErrClosed) {
			return nil
		} else if err != nil {
			return err
		}
		var q question
		if err := binary.Read(bytes.NewReader(raw), binary.NativeEndian, &q); err != nil {
			return err
		}
		a := tsmtest.Attributes{InBlob: q.InBlob[:q.Length]}
		if q.PrivLevel != 0 {
			a.PrivLevel = strconv.Itoa(int(q.PrivLevel))
		}
		blobs, err := report(a)
		var errno syscall.Errno
		if err != nil && !errors.As(err, &errno) {
			return err
		}
		var out bytes.Buffer
		head := answer{-int32(errno), uint32(len(blobs.Out)), uint32(len(blobs.Aux))} //nolint:gosec // small
		if err := binary.Write(&out, binary.NativeEndian, head); err != nil {
			return err
		}
		if _, err := device.Write(append(append(out.Bytes(), blobs.Out...), blobs.Aux...)); err != nil {
			return err
		}
	}
}
