package erofs

import "encoding/binary"

// entrySize is that of struct erofs_dirent. A block of a directory begins with
// them; the names follow in the same order.
const entrySize = 12

// directorySize is len(directory(entries)) before inodes have their numbers.
func directorySize(entries []named) int64 {
	var whole, used int64
	for _, e := range entries {
		need := int64(entrySize + len(e.name))
		if used+need > BlockSize {
			whole, used = whole+BlockSize, 0
		}
		used += need
	}
	return whole + used
}

// directory is the content of a directory: whole blocks, and the last one as
// far as it is used.
func directory(entries []named) []byte {
	var all []byte
	for len(entries) > 0 {
		count, used := 0, 0
		for count < len(entries) && used+entrySize+len(entries[count].name) <= BlockSize {
			used += entrySize + len(entries[count].name)
			count++
		}
		block := make([]byte, 0, BlockSize)
		at := count * entrySize
		for _, e := range entries[:count] {
			block = binary.LittleEndian.AppendUint64(block, e.node.nid)
			block = binary.LittleEndian.AppendUint16(block, uint16(at))
			block = append(block, fileType(e.node.stat.Mode), 0)
			at += len(e.name)
		}
		for _, e := range entries[:count] {
			block = append(block, e.name...)
		}
		if entries = entries[count:]; len(entries) > 0 {
			block = block[:BlockSize] // zeros end the last name
		}
		all = append(all, block...)
	}
	return all
}
