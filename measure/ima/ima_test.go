package ima

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // the kernel's
	"encoding/hex"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
)

// file is an entry of the template ima-ng.
func file(path string, content []byte) Entry {
	sum := append([]byte("sha256:\x00"), eventlog.SHA256.Sum(content)...)
	data := append(le(nil, len(sum)), sum...)
	data = append(append(le(data, len(path)+1), path...), 0)
	return Entry{PCR: PCR, Digest: sha1.Sum(data), Template: "ima-ng", Data: data} //nolint:gosec // the kernel's
}

func violation(path string) Entry {
	e := file(path, nil)
	e.Digest = [20]byte{}
	return e
}

func example() List {
	other := file("/elsewhere", nil)
	other.PCR = 11
	return List{file("boot_aggregate", []byte("aggregate")), file("/init", []byte("agent")), other, violation("/var/log"), file("/bin/sh", []byte("shell"))}
}

func TestParse(t *testing.T) {
	want := example()
	got, err := Parse(want.Marshal())
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	// One entry as the kernel wrote it: PCR 10, the aggregate over a TPM's registers.
	raw, _ := hex.DecodeString("0a000000" + "0123456789abcdef0123456789abcdef01234567" + "06000000" + hex.EncodeToString([]byte("ima-ng")) +
		"3f000000" + "28000000" + hex.EncodeToString([]byte("sha256:\x00")) + strings.Repeat("ab", 32) + "0f000000" + hex.EncodeToString([]byte("boot_aggregate\x00")))
	got, err = Parse(raw)
	if err != nil || len(got) != 1 {
		t.Fatalf("%+v, %v", got, err)
	}
	if digest, path, ok := got[0].File(); !ok || path != "boot_aggregate" || digest != "sha256:"+strings.Repeat("ab", 32) {
		t.Errorf("%q, %q, %v", digest, path, ok)
	}
	for n := 1; n < len(raw); n++ {
		if _, err := Parse(raw[:n]); !errors.Is(err, ErrTruncated) {
			t.Fatalf("%d bytes: %v", n, err)
		}
	}
	old := example()
	old[1].Template = "ima"
	for name, bad := range map[string][]byte{
		"the first template": old.Marshal(), "too long": make([]byte, MaxSize+1),
		"a name of 4 GB": append(make([]byte, 24), 0xff, 0xff, 0xff, 0xff), "data of 4 GB": append(make([]byte, 28), 0xff, 0xff, 0xff, 0xff),
	} {
		if _, err := Parse(bad); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestThrough(t *testing.T) {
	all := example()
	by := make([]byte, 32) // by hand
	for _, i := range []int{0, 1, 3, 4} {
		sum := eventlog.SHA256.Sum(all[i].Data)
		if i == 3 {
			sum = bytes.Repeat([]byte{0xff}, 32)
		}
		by = eventlog.SHA256.Sum(by, sum)
	}
	if got := all.End(eventlog.SHA256); !bytes.Equal(got, by) {
		t.Errorf("the list leads to %x, not %x", got, by)
	}
	for n, want := range map[int]int{0: 0, 1: 1, 2: 2, 3: 2, 4: 3, 5: 4} {
		got, ok := all.Through(eventlog.SHA256, all[:n].End(eventlog.SHA256))
		if !ok || len(got) != want {
			t.Errorf("after %d: %d entries, %v", n, len(got), ok)
		}
	}
	if _, ok := all.Through(eventlog.SHA256, bytes.Repeat([]byte{1}, 32)); ok {
		t.Error("leads anywhere")
	}
	swapped := example()
	swapped[0], swapped[1] = swapped[1], swapped[0]
	if _, ok := swapped.Through(eventlog.SHA256, all.End(eventlog.SHA256)); ok {
		t.Error("the order does not count")
	}
	hidden := example()
	hidden[4].Digest = [20]byte{} // says that it is a violation
	if _, ok := hidden.Through(eventlog.SHA256, all.End(eventlog.SHA256)); ok {
		t.Error("an entry can be passed off as a violation")
	}
}

func TestClaims(t *testing.T) {
	got := example().Claims()
	if got["entries"] != json.Number("5") || got["violations"] != json.Number("1") {
		t.Errorf("%v", got)
	}
	want := measure.Claims{"path": "/init", "digest": "sha256:" + hex.EncodeToString(eventlog.SHA256.Sum([]byte("agent")))}
	if files, ok := got["files"].([]any); !ok || len(files) != 4 || !reflect.DeepEqual(files[1], want) {
		t.Errorf("%v", got["files"])
	}
	// What a violation tells of a file is not in the register.
	told := example()
	told[3].Data = file("/init", []byte("another agent")).Data
	if !bytes.Equal(told.End(eventlog.SHA256), example().End(eventlog.SHA256)) || !reflect.DeepEqual(told.Claims(), got) {
		t.Errorf("%v", told.Claims())
	}
	odd := Entry{PCR: PCR, Template: "ima-buf", Data: le(nil, 1<<30)}
	if c := (List{odd}).Claims(); len(c["files"].([]any)) != 0 || len(c["buffers"].([]any)) != 0 {
		t.Errorf("%v", c)
	}
}

// What is accepted means the same bytes, and nothing in it makes its readers fail.
func FuzzParse(f *testing.F) {
	f.Add(example().Marshal())
	f.Add([]byte{})
	f.Add(append(make([]byte, 24), 0xff, 0, 0, 0))
	f.Add(append(make([]byte, 24), 0xff, 0xff, 0xff, 0xff))
	f.Add(List{{PCR: PCR, Template: "ima-sig", Data: le(le(nil, 0), 255)}}.Marshal())
	f.Add(List{buffer("kernel_version", []byte("6.12"))}.Marshal())
	f.Fuzz(func(t *testing.T, raw []byte) {
		l, err := Parse(raw)
		if err != nil {
			return
		}
		if !bytes.Equal(l.Marshal(), raw) {
			t.Fatalf("accepted %x", raw)
		}
		for i, e := range l {
			_, _, file := e.File()
			_, _, other := e.Buffer()
			renamed := e
			renamed.Template = "ima-buf"
			if _, _, still := renamed.File(); file && other || still != file {
				t.Fatalf("entry %d of %x is a file: %v, %v, and something else: %v", i, raw, file, still, other)
			}
		}
		l.Claims()
		if got, ok := l.Through(eventlog.SHA256, l.End(eventlog.SHA256)); !ok || len(got) > len(l) {
			t.Fatalf("%x does not lead to its own register", raw)
		}
	})
}
