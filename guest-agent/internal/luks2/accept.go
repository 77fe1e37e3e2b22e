package luks2

import (
	"errors"
	"fmt"
)

// Bounds of what a header may make us compute and hold. The iterations are
// those of cryptsetup's own least, and of about ten seconds.
const (
	minIterations = 1000
	maxIterations = 20_000_000
	minSalt       = 16
	maxSalt       = 256
	maxArea       = 1 << 20
)

// slot is an accepted key slot.
type slot struct {
	kdf          kdf
	hash         hashName // of the anti-forensic splitter
	offset, size int64    // of its area, in bytes
}

// acceptSlot judges a key slot, whose area must lie between two offsets.
func (h *Header) acceptSlot(s keyslotJSON, from, to int64) error {
	offset, size := int64(s.Area.Offset), int64(s.Area.Size)
	switch {
	case s.Type != "luks2":
		return fmt.Errorf("it is of type %.32q", s.Type)
	case s.KDF.Type != kdfPBKDF2:
		return errKDF(s.KDF.Type)
	case s.KeySize != VolumeKeySize:
		return fmt.Errorf("a volume key of %d bytes, where %d are accepted: AES-256 in XTS mode with %s", s.KeySize, VolumeKeySize, integrityTag)
	case s.AF.Type != "luks1" || s.AF.Stripes != stripes:
		return fmt.Errorf("splitter %.32q with %d stripes", s.AF.Type, s.AF.Stripes)
	case s.Area.Type != "raw":
		return fmt.Errorf("an area of type %.32q", s.Area.Type)
	case s.Area.Encryption != cipherXTS || s.Area.KeySize != xtsKeySize:
		return fmt.Errorf("it is encrypted with %.32q and a key of %d bytes, where %s and %d are accepted", s.Area.Encryption, s.Area.KeySize, cipherXTS, xtsKeySize)
	case size < VolumeKeySize*stripes || size > maxArea || offset < from || offset > maxOffset || offset+size > to:
		return fmt.Errorf("an area of %d bytes at %d", size, offset)
	}
	k, err := acceptKDF(s.KDF.Type, s.KDF.Hash, s.KDF.Iterations, s.KDF.Salt)
	if err != nil {
		return err
	}
	hash, err := acceptHash(s.AF.Hash)
	if err != nil {
		return err
	}
	h.slot = slot{kdf: k, hash: hash, offset: offset, size: size}
	return nil
}

// acceptSegment judges where and how the data lies, behind the key slots.
func (h *Header) acceptSegment(s segmentJSON, from int64) error {
	offset := int64(s.Offset)
	switch {
	case s.Type != "crypt":
		return fmt.Errorf("it is of type %.32q", s.Type)
	case s.Encryption != cipherXTS:
		return fmt.Errorf("it is encrypted with %.32q, where %s is accepted", s.Encryption, cipherXTS)
	case s.Integrity == nil:
		return errors.New("nothing protects the integrity of its data")
	case s.Integrity.Type != integrityTag:
		return fmt.Errorf("its integrity is protected by %.32q, where %s is accepted", s.Integrity.Type, integrityTag)
	case s.Integrity.JournalEncryption != "none" || s.Integrity.JournalIntegrity != "none":
		return errors.New("its journal has keys of its own")
	case s.Size != "dynamic" || s.IVTweak != "0":
		return errors.New("it is a part of a larger one")
	case s.SectorSize != slotSector && s.SectorSize != sectorLarge:
		return fmt.Errorf("sectors of %d bytes", s.SectorSize)
	case offset < from || offset > maxOffset || offset%sectorLarge != 0:
		return fmt.Errorf("it starts at %d", offset)
	}
	h.SectorSize, h.Offset = s.SectorSize, offset
	return nil
}

// acceptDigest judges what a volume key is recognised by: it must tie the one
// key slot to the one segment.
func (h *Header) acceptDigest(d digestJSON, m metadata) error {
	one := func(names []string, known func(string) bool) bool { return len(names) == 1 && known(names[0]) }
	switch {
	case !one(d.Keyslots, func(n string) bool { _, ok := m.Keyslots[n]; return ok }),
		!one(d.Segments, func(n string) bool { _, ok := m.Segments[n]; return ok }):
		return errors.New("it is not that of the key slot and the segment")
	}
	k, err := acceptKDF(d.Type, d.Hash, d.Iterations, d.Salt)
	if err != nil {
		return err
	}
	if len(d.Digest) != k.hash.size() {
		return fmt.Errorf("a digest of %d bytes", len(d.Digest))
	}
	h.digest = digest{kdf: k, want: d.Digest}
	return nil
}

const kdfPBKDF2 = "pbkdf2"

func errKDF(kind string) error {
	return fmt.Errorf("keys are derived by %.32q, where %s is accepted (cryptsetup luksConvertKey --pbkdf pbkdf2)", kind, kdfPBKDF2)
}

func acceptKDF(kind, hash string, iterations int, salt []byte) (kdf, error) {
	name, err := acceptHash(hash)
	switch {
	case kind != kdfPBKDF2:
		return kdf{}, errKDF(kind)
	case err != nil:
		return kdf{}, err
	case iterations < minIterations || iterations > maxIterations:
		return kdf{}, fmt.Errorf("%d iterations", iterations)
	case len(salt) < minSalt || len(salt) > maxSalt:
		return kdf{}, fmt.Errorf("a salt of %d bytes", len(salt))
	}
	return kdf{hash: name, salt: salt, iterations: iterations}, nil
}

func acceptHash(name string) (hashName, error) {
	switch n := hashName(name); n {
	case sha256Name, sha512Name:
		return n, nil
	}
	return "", fmt.Errorf("hash %.32q", name)
}
