package luks2

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/secret"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// volume is a device in memory.
type volume []byte

func (v volume) WriteAt(p []byte, at int64) (int, error) { return copy(v[at:], p), nil }
func (v volume) ReadAt(p []byte, at int64) (int, error) {
	return bytes.NewReader(v).ReadAt(p, at)
}

func formatted(t testing.TB) (volume, secret.Bytes, secret.Bytes) {
	t.Helper()
	v, key := make(volume, formatArea+areaSize), secret.Random(MinKeySize)
	_, volumeKey, err := Format(v, key)
	must(t, err)
	return v, key, volumeKey
}

func TestFormatOpen(t *testing.T) {
	v, key, want := formatted(t)
	h, err := Read(v)
	must(t, err)
	if h.Offset != HeaderSize || h.SectorSize != 4096 || len(h.UUID) != 36 {
		t.Errorf("the header is read as %+v", h)
	}
	got, err := h.Open(key)
	must(t, err)
	if !got.Equal(want) || want.Len() != VolumeKeySize {
		t.Error("another volume key came out than was put in")
	}
	if _, err := h.Open(secret.Random(MinKeySize)); !errors.Is(err, ErrKey) {
		t.Errorf("a wrong key: %v", err)
	}
	if _, err := h.Open(secret.Bytes{}); err == nil {
		t.Error("an empty key opened a volume")
	}
	v[h.slot.offset+VolumeKeySize*stripes-1] ^= 1
	if h, err = Read(v); err == nil {
		_, err = h.Open(key)
	}
	if !errors.Is(err, ErrKey) {
		t.Errorf("a changed key slot: %v", err)
	}
	if _, _, err := Format(v, secret.Random(MinKeySize-1)); err == nil {
		t.Error("a short key was taken")
	}
}

// What was read is in memory: a host that changes the header afterwards, or
// between the look at it and its use, changes nothing.
func TestReadOnce(t *testing.T) {
	v, key, want := formatted(t)
	h, err := Read(v)
	must(t, err)
	clear(v)
	if got, err := h.Open(key); err != nil || !got.Equal(want) {
		t.Errorf("a header in memory depends on the device: %v", err)
	}
}

// edited returns the volume with a changed JSON text and a checksum that fits.
func edited(t testing.TB, v volume, change func(m map[string]any)) volume {
	t.Helper()
	text, bin, err := readBinary(v)
	must(t, err)
	var m map[string]any
	must(t, json.Unmarshal(text, &m))
	change(m)
	text, err = json.Marshal(m)
	must(t, err)
	v = bytes.Clone(v)
	copy(v, bin.marshal(text, [saltSize]byte{}, false))
	return v
}

// at walks into nested objects.
func at(m map[string]any, path string) map[string]any {
	for name := range strings.SplitSeq(path, "/") {
		m = m[name].(map[string]any)
	}
	return m
}

// A host that owns the device writes any header it likes.
func TestHostileHeaders(t *testing.T) {
	v, _, _ := formatted(t)
	if _, err := Read(edited(t, v, func(map[string]any) {})); err != nil {
		t.Fatal("an unchanged header is refused, so the cases below show nothing:", err)
	}
	set := func(path, name string, value any) func(map[string]any) {
		return func(m map[string]any) { at(m, path)[name] = value }
	}
	for name, change := range map[string]func(map[string]any){
		"null cipher for the data":         set("segments/0", "encryption", "cipher_null-ecb"),
		"null cipher for the slot":         set("keyslots/0/area", "encryption", "cipher_null-ecb"),
		"weak cipher for the data":         set("segments/0", "encryption", "aes-cbc-plain"),
		"shorter key for the slot":         set("keyslots/0/area", "key_size", 32),
		"shorter volume key":               set("keyslots/0", "key_size", 64),
		"no integrity":                     func(m map[string]any) { delete(at(m, "segments/0"), "integrity") },
		"integrity without a key":          set("segments/0/integrity", "type", "crc32c"),
		"journal with a key":               set("segments/0/integrity", "journal_encryption", "aes"),
		"linear segment":                   set("segments/0", "type", "linear"),
		"a part of the device":             set("segments/0", "size", "4096"),
		"another start of the IVs":         set("segments/0", "iv_tweak", "8"),
		"data over the header":             set("segments/0", "offset", "0"),
		"data over the slots":              set("segments/0", "offset", "32768"),
		"data beyond all":                  set("segments/0", "offset", "9223372036854771712"),
		"negative offset":                  set("segments/0", "offset", "-4096"),
		"offset as a number":               set("segments/0", "offset", 16777216),
		"odd sectors":                      set("segments/0", "sector_size", 1024),
		"flags of a segment":               set("segments/0", "flags", []string{"in-reencryption"}),
		"requirements":                     set("config", "requirements", map[string]any{"mandatory": []string{"online-reencrypt"}}),
		"a token":                          set("tokens", "0", map[string]any{"type": "luks2-keyring", "keyslots": []string{"0"}}),
		"argon2id":                         set("keyslots/0/kdf", "type", "argon2id"),
		"few iterations":                   set("keyslots/0/kdf", "iterations", 1),
		"iterations without end":           set("keyslots/0/kdf", "iterations", 1<<31-1),
		"no salt":                          set("keyslots/0/kdf", "salt", ""),
		"broken hash":                      set("keyslots/0/kdf", "hash", "md5"),
		"broken hash of the splitter":      set("keyslots/0/af", "hash", "crc32"),
		"one stripe":                       set("keyslots/0/af", "stripes", 1),
		"a huge slot":                      set("keyslots/0/area", "size", "1099511627776"),
		"a slot behind the slots":          set("keyslots/0/area", "offset", "16777216"),
		"a slot in the header":             set("keyslots/0/area", "offset", "4096"),
		"a reencryption slot":              set("keyslots/0", "type", "reencrypt"),
		"few iterations of the digest":     set("digests/0", "iterations", 0),
		"an empty digest":                  set("digests/0", "digest", ""),
		"a digest of nothing":              set("digests/0", "keyslots", []string{}),
		"a digest of another slot":         set("digests/0", "keyslots", []string{"1"}),
		"a digest of another segment":      set("digests/0", "segments", []string{"1"}),
		"a JSON area of another length":    set("config", "json_size", "4096"),
		"slots beyond all":                 set("config", "keyslots_size", "18446744073709551615"),
		"members that differ in case only": set("segments/0", "Encryption", "aes-xts-plain64"),
		"two slots":                        func(m map[string]any) { at(m, "keyslots")["1"] = at(m, "keyslots/0") },
		"two segments":                     func(m map[string]any) { at(m, "segments")["1"] = at(m, "segments/0") },
		"two digests":                      func(m map[string]any) { at(m, "digests")["1"] = at(m, "digests/0") },
		"no slot":                          func(m map[string]any) { m["keyslots"] = map[string]any{} },
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Read(edited(t, v, change)); !errors.Is(err, ErrHeader) {
				t.Errorf("not refused: %v", err)
			}
		})
	}
}

func TestHostileBinaryHeaders(t *testing.T) {
	v, _, _ := formatted(t)
	for name, change := range map[string]func(v volume) volume{
		"nothing":               func(volume) volume { return nil },
		"zeros":                 func(v volume) volume { return make(volume, len(v)) },
		"cut in the header":     func(v volume) volume { return v[:minHeader-1] },
		"cut in the slot":       func(v volume) volume { return v[:formatArea+4096] },
		"LUKS1":                 func(v volume) volume { v[atVersion+1] = 1; return v },
		"the second copy first": func(v volume) volume { return v[formatHeader:] },
		"a changed text":        func(v volume) volume { v[binarySize+20] ^= 1; return v },
		"a huge header":         func(v volume) volume { v[atSize] = 0x7f; return v },
		"no checksum":           func(v volume) volume { clear(v[atChecksum:][:nameSize]); return v },
		"something behind":      func(v volume) volume { v[minHeader-1] = 1; return v },
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Read(change(bytes.Clone(v))); err == nil {
				t.Error("accepted")
			}
		})
	}
}

func cryptsetup(t *testing.T, stdin []byte, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "cryptsetup", args...)
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("cryptsetup %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func needCryptsetup(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("cryptsetup"); err != nil {
		t.Skip("cryptsetup (Debian: cryptsetup-bin) is not installed; make test installs it")
	}
}

// cryptsetup finds the same volume key in our header, and we find it in a key
// slot that cryptsetup wrote.
func TestLikeCryptsetup(t *testing.T) {
	needCryptsetup(t)
	v, key, volumeKey := formatted(t)
	dir := t.TempDir()
	file, keyFile, out := filepath.Join(dir, "volume"), filepath.Join(dir, "key"), filepath.Join(dir, "out")
	must(t, os.WriteFile(file, v, 0o600))
	must(t, os.Truncate(file, HeaderSize+1<<20))
	must(t, os.WriteFile(keyFile, key.Reveal(), 0o600))
	cryptsetup(t, nil, "luksDump", "-q", "--dump-volume-key", "--volume-key-file", out, "--key-file", keyFile, file)
	if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, volumeKey.Reveal()) {
		t.Errorf("cryptsetup finds another volume key (%v)", err)
	}
	other := secret.Random(MinKeySize)
	otherFile := filepath.Join(dir, "other")
	must(t, os.WriteFile(otherFile, other.Reveal(), 0o600))
	for _, hash := range []string{"sha256", "sha512"} {
		cryptsetup(t, nil, "luksChangeKey", "-q", "--key-slot", "0", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--hash", hash, "--key-file", keyFile, file, otherFile)
		f, err := os.Open(file)
		must(t, err)
		h, err := Read(f)
		must(t, errors.Join(err, f.Close()))
		if got, err := h.Open(other); err != nil || !got.Equal(volumeKey) {
			t.Errorf("a key slot of cryptsetup with %s: %v", hash, err)
		}
		cryptsetup(t, nil, "luksChangeKey", "-q", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", otherFile, file, keyFile)
	}
	cryptsetup(t, nil, "luksAddKey", "-q", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", keyFile, file, otherFile)
	refusedFile(t, file, "2 key slots")
}

func refusedFile(t *testing.T, file, why string) {
	t.Helper()
	f, err := os.Open(file)
	must(t, err)
	defer func() { _ = f.Close() }()
	if _, err := Read(f); !errors.Is(err, ErrHeader) || !strings.Contains(err.Error(), why) {
		t.Errorf("want a refusal with %q, got: %v", why, err)
	}
}

// Volumes of cryptsetup that open for it, and must not for us.
func TestWeakVolumesOfCryptsetup(t *testing.T) {
	needCryptsetup(t)
	for name, c := range map[string]struct {
		args []string
		why  string
	}{
		"no integrity": {[]string{"--type", "luks2", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"}, "volume key of 64 bytes"},
		"argon2id":     {[]string{"--type", "luks2", "--pbkdf", "argon2id", "--pbkdf-force-iterations", "4", "--pbkdf-memory", "32"}, "argon2id"},
		"LUKS1":        {[]string{"--type", "luks1", "--pbkdf-force-iterations", "1000"}, "version 1"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "volume")
			must(t, os.WriteFile(file, nil, 0o600))
			must(t, os.Truncate(file, 20<<20))
			cryptsetup(t, []byte("a passphrase"), append([]string{"luksFormat", "-q", file, "-"}, c.args...)...)
			refusedFile(t, file, c.why)
		})
	}
}

func FuzzMetadata(f *testing.F) {
	v, _, _ := formatted(f)
	text, _, err := readBinary(v)
	must(f, err)
	f.Add(bytes.Clone(text))
	f.Add([]byte(`{"keyslots":{},"tokens":{},"segments":{},"digests":{},"config":{"json_size":"12288","keyslots_size":"0"}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		h, err := parseMetadata(text, minHeader)
		if err != nil {
			return
		}
		switch s := h.slot; {
		case s.size < VolumeKeySize*stripes, s.size > maxArea, s.offset < 2*minHeader, h.Offset < s.offset+s.size,
			s.kdf.iterations < minIterations, h.digest.kdf.iterations < minIterations, h.SectorSize == 0:
			t.Fatalf("accepted: %s", text)
		}
	})
}

func FuzzRead(f *testing.F) {
	v, _, _ := formatted(f)
	f.Add([]byte(v[:512]), true)
	f.Add([]byte("LUKS\xba\xbe\x00\x02"), false)
	whole := []byte(v[:formatArea+areaSize])
	f.Fuzz(func(t *testing.T, start []byte, fitting bool) {
		dev := bytes.Clone(whole)
		copy(dev, start)
		if fitting && len(dev) > minHeader {
			sum := checksum(dev[:minHeader])
			copy(dev[atDigest:], sum[:])
		}
		h, err := Read(volume(dev))
		if err == nil && (h.Offset != formatData || int64(len(h.area)) != areaSize) {
			t.Fatalf("accepted as %+v", h)
		}
	})
}
