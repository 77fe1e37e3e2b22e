package ima

import (
	"crypto/sha1" //nolint:gosec // the kernel's
	"encoding/hex"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
)

// with adds a field to an entry, as the template of that name has it.
func with(e Entry, template string, field []byte) Entry {
	e.Template = template
	e.Data = append(le(e.Data[:len(e.Data):len(e.Data)], len(field)), field...)
	e.Digest = sha1.Sum(e.Data) //nolint:gosec // the kernel's
	return e
}

// buffer is an entry of what is no file.
func buffer(name string, content []byte) Entry {
	return with(file(name, content), "ima-buf", content)
}

// What is no file is told apart from files, whatever the sender of a list, who is
// free to, calls its templates.
func TestBuffer(t *testing.T) {
	signed := append([]byte{signature, 2}, "no signature, and the whole content"...)
	for name, tt := range map[string]struct {
		entry  Entry
		buffer bool
	}{
		"the kernel's version":            {buffer("kernel_version", []byte("6.12.0")), true},
		"a file":                          {file("/bin/sh", []byte("shell")), false},
		"a file without a signature":      {with(file("/bin/sh", []byte("shell")), "ima-sig", nil), false},
		"an empty one":                    {with(file("/empty", nil), "ima-sig", nil), false},
		"a file with a signature":         {with(file("/bin/sh", []byte("shell")), "ima-sig", []byte{signature, 2, 4}), false},
		"one that has itself for one":     {with(file("/bin/sh", signed), "ima-sig", signed), false},
		"a signed module":                 {with(with(buffer("/a.ko", []byte("module")), "", nil), "ima-modsig", nil), false},
		"another content":                 {with(file("kernel_version", []byte("6.12.0")), "ima-buf", []byte("6.12.1")), false},
		"a hash that nobody here knows":   {unknownHash(), false},
		"bytes behind the third field":    {trailing(), false},
		"a third field that is not whole": {with(file("x", nil), "ima-buf", nil).cut(), false},
	} {
		for _, template := range []string{tt.entry.Template, "ima-buf", "ima-sig", "x"} {
			e := tt.entry
			e.Template = template
			_, _, isFile := e.File()
			digest, what, isBuffer := e.Buffer()
			if isBuffer != tt.buffer || isFile == tt.buffer {
				t.Errorf("%s (%s): a file %v, something else %v", name, template, isFile, isBuffer)
			}
			if want := "sha256:" + hex.EncodeToString(eventlog.SHA256.Sum([]byte("6.12.0"))); isBuffer && (what != "kernel_version" || digest != want) {
				t.Errorf("%s: %s %s", name, what, digest)
			}
		}
	}
}

func unknownHash() Entry {
	e := buffer("kernel_version", []byte("6.12.0"))
	e.Data = []byte(strings.Replace(string(e.Data), "sha256:", "streeb:", 1))
	return e
}

func trailing() Entry {
	e := buffer("kernel_version", []byte("6.12.0"))
	e.Data = append(e.Data, 0)
	return e
}

func (e Entry) cut() Entry {
	e.Data = e.Data[:len(e.Data)-1]
	return e
}

// A kernel whose policy is tcb and critical_data, as it lists both.
func TestBufferClaims(t *testing.T) {
	all := append(example(), buffer("kernel_version", []byte("6.12.0")), buffer(".ima", []byte{0x30, 0x82}))
	got := all.Claims()
	want := []any{
		measure.Claims{"name": "kernel_version", "digest": "sha256:" + hex.EncodeToString(eventlog.SHA256.Sum([]byte("6.12.0")))},
		measure.Claims{"name": ".ima", "digest": "sha256:" + hex.EncodeToString(eventlog.SHA256.Sum([]byte{0x30, 0x82}))},
	}
	if files := got["files"].([]any); len(files) != 4 || !reflect.DeepEqual(got["buffers"], want) || got["entries"] != json.Number("7") {
		t.Errorf("%v", got)
	}
}
