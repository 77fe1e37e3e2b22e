package qemu

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/vouchsafe-cc/vouchsafe/given"
	"github.com/vouchsafe-cc/vouchsafe/measure/boot"
	"github.com/vouchsafe-cc/vouchsafe/measure/efi"
)

// maxVariables bounds a store of variables, in bytes.
const maxVariables = 4 << 20

// writeVariables makes the machine's own store of variables, with the keys of
// Secure Boot where there are any.
func (c Config) writeVariables() error {
	if c.Variables == "" {
		return nil
	}
	raw, err := given.File(c.Variables, maxVariables)
	if err != nil {
		return err
	}
	if c.SecureBoot != nil {
		if raw, err = enrol(raw, c.SecureBoot); err != nil {
			return fmt.Errorf("%s: %w", c.Variables, err)
		}
	}
	return os.WriteFile(c.path(fileVariables), raw, 0o600)
}

// Offsets in a store of variables: a firmware volume, the store's header in it, and
// the variables (edk2, MdeModulePkg/Include/Guid/VariableFormat.h; PI 1.8, volume 3).
const (
	volumeHeaderSize = 48 // where the volume's header tells its own length
	storeHeader      = 28
	variableHeader   = 60

	variableStart = 0x55aa
	variableAdded = 0x3f

	// Attributes: kept, and how they may be seen and changed.
	attributesKept = 0x03
	attributesKeys = 0x27
)

var (
	authenticatedStore = efi.NewGUID(0xaaf32c78, 0x947b, 0x439a, 0xa1802e144ec37792)
	secureBootEnable   = efi.NewGUID(0xf0a30bc7, 0xaf08, 0x4556, 0x99c4001009c93a44)

	errStore = errors.New("it is no blank store of variables")
)

// enrol puts keys into a blank store, as a person does in the firmware's menu, and
// turns Secure Boot on.
func enrol(store []byte, keys *boot.SecureBoot) ([]byte, error) {
	le := binary.LittleEndian
	if len(store) < volumeHeaderSize+2 {
		return nil, errStore
	}
	begin := int(le.Uint16(store[volumeHeaderSize:]))
	if len(store) < begin+storeHeader || efi.GUID(store[begin:]) != authenticatedStore {
		return nil, errStore
	}
	size := int(le.Uint32(store[begin+16:]))
	if size < storeHeader || size > len(store)-begin {
		return nil, errStore
	}
	free := store[begin+storeHeader : begin+size]
	if len(bytes.Trim(free, "\xff")) > 0 {
		return nil, errStore
	}
	var all []byte
	for _, v := range []struct {
		attributes uint32
		vendor     efi.GUID
		name       string
		data       []byte
	}{
		{attributesKept, secureBootEnable, "SecureBootEnable", []byte{1}},
		{attributesKeys, efi.SecurityDatabase, "dbx", keys.DBX},
		{attributesKeys, efi.SecurityDatabase, "db", keys.DB},
		{attributesKeys, efi.GlobalVariable, "KEK", keys.KEK},
		{attributesKeys, efi.GlobalVariable, "PK", keys.PK},
	} {
		if len(v.data) > 0 {
			all = append(all, variable(v.attributes, v.vendor, v.name, v.data)...)
		}
	}
	if len(all) > len(free) {
		return nil, fmt.Errorf("keys of %d bytes do not fit into it", len(all))
	}
	out := bytes.Clone(store)
	copy(out[begin+storeHeader:], all)
	return out, nil
}

// variable is one as the store has it, filled up to a multiple of four.
func variable(attributes uint32, vendor efi.GUID, name string, data []byte) []byte {
	le := binary.LittleEndian
	wide := efi.UTF16Z(name)
	b := make([]byte, variableHeader)
	le.PutUint16(b, variableStart)
	b[2] = variableAdded
	le.PutUint32(b[4:], attributes)
	le.PutUint32(b[36:], uint32(len(wide)))
	le.PutUint32(b[40:], uint32(len(data)))
	copy(b[44:], vendor[:])
	b = append(append(b, wide...), data...)
	return append(b, bytes.Repeat([]byte{0xff}, -len(b)&3)...)
}
