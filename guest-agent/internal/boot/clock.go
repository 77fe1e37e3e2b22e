package boot

import (
	"errors"
	"log/slog"
	"time"

	"golang.org/x/sys/unix"
)

// earliest is a time that no clock shows any more: what is before it was never
// set.
var earliest = time.Date(2025, time.January, 1, 0, 0, 0, 0, time.UTC)

// setClock takes the time from the machine's clock where the kernel has not. It
// is the host's clock either way: what depends on the time (certificates, tokens)
// depends on the host's being right, until somebody else says what time it is.
func setClock(log *slog.Logger) error {
	if time.Now().After(earliest) {
		return nil
	}
	fd, err := unix.Open("/dev/rtc0", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		log.Warn("the clock was never set, and this machine has none to ask", slog.Any("err", err))
		return nil
	}
	defer func() { _ = unix.Close(fd) }()
	rtc, err := unix.IoctlGetRTCTime(fd)
	if err != nil {
		return err
	}
	now := time.Date(int(rtc.Year)+1900, time.Month(rtc.Mon+1), int(rtc.Mday), int(rtc.Hour), int(rtc.Min), int(rtc.Sec), 0, time.UTC)
	tv := unix.NsecToTimeval(now.UnixNano())
	return unix.Settimeofday(&tv)
}

// waitForEntropy returns once the kernel's generator is seeded. It nearly always
// is: by the processor or by the host's device. Keys that were made before would
// be guessable, so there is no going on without.
func waitForEntropy(log *slog.Logger) error {
	var b [1]byte
	_, err := unix.Getrandom(b[:], unix.GRND_NONBLOCK)
	if !errors.Is(err, unix.EAGAIN) {
		return err
	}
	log.Warn("waiting for entropy: give the machine a virtio-rng device")
	for {
		if _, err = unix.Getrandom(b[:], 0); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
