package settings

import "fmt"

// ImageStore says what holds layers, and what containers write to their roots.
// The zero value is the disk, or what else the state directory lies on.
type ImageStore struct {
	// InMemory keeps all of it in memory, up to MemoryLimit bytes; 0: half of the
	// guest's memory.
	InMemory    bool
	MemoryLimit int64
	// Verity keeps each layer as an image that the kernel checks on every read, so
	// that a host which changes its disk causes read errors and nothing else. A
	// kernel that cannot do so makes the agent refuse to start.
	Verity bool
}

// maxMemoryLimit is in MiB; more than a guest has is the kernel's to refuse.
const maxMemoryLimit = 1 << 24

// imageStoreTable is a part of [vouchsafe] in cdh.toml.
type imageStoreTable struct {
	Store       string `toml:"image_store"`        // "disk", which is the default, or "memory"
	MemoryLimit int64  `toml:"image_memory_limit"` // MiB
	Verity      bool   `toml:"image_verity"`
}

func (t imageStoreTable) imageStore() (ImageStore, error) {
	s := ImageStore{InMemory: t.Store == "memory", MemoryLimit: t.MemoryLimit << 20, Verity: t.Verity}
	switch {
	case t.Store != "" && t.Store != "disk" && t.Store != "memory":
		return s, fmt.Errorf("vouchsafe.image_store is %.20q, want disk or memory", t.Store)
	case t.MemoryLimit < 0 || t.MemoryLimit > maxMemoryLimit:
		return s, fmt.Errorf("vouchsafe.image_memory_limit is %d MiB, want at most %d", t.MemoryLimit, maxMemoryLimit)
	case t.MemoryLimit > 0 && !s.InMemory:
		return s, fmt.Errorf("vouchsafe.image_memory_limit limits nothing where image_store is not memory")
	}
	return s, nil
}
