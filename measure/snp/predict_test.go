package snp

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure/internal/evidencetest"
)

// The chain of PAGE_INFO records against digests that gce-tcb-verifier
// publishes.
func TestChainAgainstPublishedDigests(t *testing.T) {
	var published struct {
		SNP []struct{ Desc, Digest string } `json:"snp_update"`
	}
	if err := json.Unmarshal(evidencetest.File(t, "launch", "gce-tcb-verifier", "expected.json"), &published); err != nil {
		t.Fatal(err)
	}
	if len(published.SNP) != 2 {
		t.Fatalf("the vectors changed: %+v", published.SNP)
	}
	var normal, zero launchDigest
	data := make([]byte, 3*pageSize)
	copy(data, "LGTMLGTMLGTMLGTM")
	copy(data[len(data)-16:], "LGTMLGTMLGTMLGTM")
	normal.addData(pageNormal, 0, data)
	for page := range uint64(3) {
		zero.add(3, 0x9000+page*pageSize, [48]byte{}) // type 3: the contents do not count
	}
	for i, got := range []launchDigest{normal, zero} {
		if hex.EncodeToString(got[:]) != published.SNP[i].Digest {
			t.Errorf("%s: %x, want %s", published.SNP[i].Desc, got, published.SNP[i].Digest)
		}
	}
}

// Predict against the same computed the long way, byte by byte.
func TestPredict(t *testing.T) {
	image := bytes.Repeat([]byte("agent"), 2000) // two pages and a half
	const commandLine = "agent serve --x"
	var ld []byte = make([]byte, 48)
	page := func(gpa uint64, content []byte) {
		full := make([]byte, 4096)
		copy(full, content)
		h := sha512.Sum384(full)
		info := append(append(append([]byte(nil), ld...), h[:]...), 0x70, 0, 1, 0, 0, 0, 0, 0)
		info = binary.LittleEndian.AppendUint64(info, gpa)
		sum := sha512.Sum384(info)
		ld = sum[:]
	}
	page(0x1000000, image[:4096])
	page(0x1001000, image[4096:8192])
	page(0x1002000, image[8192:])
	hashes := func(b []byte) string { s := sha256.Sum256(b); return hex.EncodeToString(s[:]) }
	table, err := hex.DecodeString("06d63894224fc94cb479a793d411fd21" + "a800" +
		"d82dd09720bd944caa78e7714d36ab2a" + "3200" + hashes([]byte(commandLine+"\x00")) +
		"31f7ba442f3ad74b9af141e29169781d" + "3200" + hashes(nil) +
		"3794e74dd2ab7f42b835d5b172d2045b" + "3200" + hashes(image))
	if err != nil {
		t.Fatal(err)
	}
	page(0x80f000, table)
	got, err := Predict(Launch{Image: image, CommandLine: commandLine})
	if err != nil || !bytes.Equal(got[:], ld) {
		t.Errorf("predicted %x, %v; want %x", got, err, ld)
	}
}

// Everything that is measured changes the measurement, and nothing else does.
func TestPredictTellsApart(t *testing.T) {
	base := Launch{Image: []byte("agent"), CommandLine: "a b"}
	digest := func(l Launch) [48]byte {
		m, err := Predict(l)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	for name, c := range map[string]struct {
		l    Launch
		same bool
	}{
		"again":           {base, true},
		"other init-data": {Launch{Image: base.Image, CommandLine: "a b", InitDataDigest: []byte{1}}, true},
		"other policy":    {Launch{Image: base.Image, CommandLine: "a b", Policy: 0xb0000}, true},
		"other image":     {Launch{Image: []byte("agenT"), CommandLine: "a b"}, false},
		"zero at the end": {Launch{Image: []byte("agent\x00"), CommandLine: "a b"}, false},
		"a page more":     {Launch{Image: append([]byte("agent"), make([]byte, pageSize)...), CommandLine: "a b"}, false},
		"other command":   {Launch{Image: base.Image, CommandLine: "a  b"}, false},
		"no command":      {Launch{Image: base.Image}, false},
	} {
		if got := digest(c.l) == digest(base); got != c.same {
			t.Errorf("%s: same is %v", name, got)
		}
	}
}

func TestPredictRefuses(t *testing.T) {
	for want, l := range map[string]Launch{
		"image is empty": {},
		"NUL":            {Image: []byte("x"), CommandLine: "a\x00b"},
		"longer than":    {Image: []byte("x"), CommandLine: strings.Repeat("x", 64<<10+1)},
	} {
		if _, err := Predict(l); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
}
