package qemu

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure/boot"
	"github.com/vouchsafe-cc/vouchsafe/measure/efi"
)

// blank is a store of variables as OVMF ships it, with this much room.
func blank(room int) []byte {
	const header = 0x48
	raw := bytes.Repeat([]byte{0xff}, header+storeHeader+room+100)
	clear(raw[:header+storeHeader])
	binary.LittleEndian.PutUint16(raw[volumeHeaderSize:], header)
	copy(raw[header:], authenticatedStore[:])
	binary.LittleEndian.PutUint32(raw[header+16:], uint32(storeHeader+room))
	return raw
}

// That firmware reads it is shown by tests/boot.
func TestEnrol(t *testing.T) {
	keys := &boot.SecureBoot{PK: []byte("platform"), KEK: []byte("exchange"), DB: []byte("database!")}
	store := blank(1000)
	got, err := enrol(store, keys)
	if err != nil || len(got) != len(store) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	le := binary.LittleEndian
	found := map[string]string{}
	for rest := got[0x48+storeHeader:]; le.Uint16(rest) == variableStart; {
		name, data := int(le.Uint32(rest[36:])), int(le.Uint32(rest[40:]))
		found[string(rest[variableHeader:variableHeader+name])] = string(rest[variableHeader+name:][:data])
		rest = rest[(variableHeader+name+data+3)&^3:]
	}
	for name, want := range map[string]string{"PK": "platform", "KEK": "exchange", "db": "database!", "SecureBootEnable": "\x01"} {
		if got, ok := found[string(efi.UTF16Z(name))]; !ok || got != want {
			t.Errorf("%s is %q", name, got)
		}
	}
	if _, there := found[string(efi.UTF16Z("dbx"))]; there || len(found) != 4 {
		t.Errorf("%d variables", len(found))
	}
	wrong := blank(1000)
	wrong[0x48]++
	for name, store := range map[string][]byte{
		"nothing": nil, "no store": make([]byte, 4096), "another store": wrong, "cut": store[:0x48+storeHeader+500], "one that was used": got,
	} {
		if _, err := enrol(store, keys); !errors.Is(err, errStore) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := enrol(blank(200), keys); err == nil {
		t.Error("keys fit where there is no room for them")
	}
}
