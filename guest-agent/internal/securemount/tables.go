package securemount

import (
	"encoding/binary"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/luks2"
	"github.com/vouchsafe-cc/vouchsafe/image/dm"
)

// Sizes in bytes.
const (
	sectorSize = 4096         // of new volumes
	plainKey   = 64           // AES-256-XTS without integrity
	superblock = 4096         // of dm-integrity, and where the kernel looks for one
	minSize    = 4 << 20      // of an ephemeral volume
	head       = 17 << 20     // what is looked at, and wiped, at the start of a device
	tail       = 1 << 20      // and at its end
	keyPrefix  = "vouchsafe:" // of keys in the kernel's keyring
)

// integrityTarget keeps a tag beside each sector (Linux,
// Documentation/admin-guide/device-mapper/dm-integrity.rst). Ephemeral volumes
// have no journal: after a crash there is nobody who could read them.
func integrityTarget(device string, l layout, sectors int64) dm.Target {
	mode, options := "J", fmt.Sprintf("1 block_size:%d", l.sector)
	if l.ephemeral {
		mode, options = "D", fmt.Sprintf("2 block_size:%d journal_sectors:1", l.sector)
	}
	return dm.Target{Kind: "integrity", Sectors: sectors,
		Params: fmt.Sprintf("%s %d %d %s %s", device, l.offset/dm.SectorSize, luks2.TagSize, mode, options)}
}

// cryptTarget encrypts (Linux, Documentation/admin-guide/device-mapper/dm-crypt.rst).
// The key is in the keyring of the calling thread, under name.
func cryptTarget(device, name string, l layout, sectors int64) dm.Target {
	cipher, size, options := "aes-xts-plain64", plainKey, fmt.Sprintf("1 sector_size:%d", l.sector)
	if l.integrity {
		cipher, size = "capi:authenc(hmac(sha256),xts(aes))-plain64", luks2.VolumeKeySize
		options = fmt.Sprintf("2 integrity:%d:aead sector_size:%d", luks2.TagSize, l.sector)
	}
	return dm.Target{Kind: "crypt", Sectors: sectors,
		Params: fmt.Sprintf("%s :%d:logon:%s%s 0 %s 0 %s", cipher, size, keyPrefix, name, device, options)}
}

// layout is how a volume lies on its device.
type layout struct {
	ephemeral, integrity bool
	sector               int   // bytes
	offset               int64 // bytes before the data
}

// provided reads from the superblock of dm-integrity how many sectors there
// are. It lies with the host; the kernel judges it again.
func provided(b []byte, l layout, deviceSize int64) (int64, error) {
	le := binary.LittleEndian
	sectors := le.Uint64(b[16:])
	perBlock := l.sector / dm.SectorSize
	switch {
	case string(b[:8]) != "integrt\x00":
		return 0, fault.Newf(fault.VolumeRefused, "the device has no integrity data")
	case le.Uint16(b[10:]) != luks2.TagSize:
		return 0, fault.Newf(fault.VolumeRefused, "the integrity data has tags of %d bytes", le.Uint16(b[10:]))
	case b[28] > 6 || 1<<b[28] != perBlock:
		return 0, fault.Newf(fault.VolumeRefused, "the integrity data is for other sectors than the header says")
	case sectors == 0 || sectors > uint64(deviceSize-l.offset)/dm.SectorSize || sectors%uint64(perBlock) != 0:
		return 0, fault.Newf(fault.VolumeRefused, "the integrity data is for %d sectors", sectors)
	}
	return int64(sectors), nil
}
