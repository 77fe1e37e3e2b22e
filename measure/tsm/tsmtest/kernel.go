// Package tsmtest has a kernel made of memory that behaves as Linux does where
// the attesters look: configfs-tsm with its generations, measurement registers
// that extend when they are written, device nodes, and plain files. It is for
// tests; no program links it.
package tsmtest

import (
	"crypto/sha512"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"github.com/vouchsafe-cc/vouchsafe/measure/tsm"
)

// Kernel implements [tsm.Kernel]. The zero value is a machine with nothing; set
// the members before the first use.
type Kernel struct {
	// Provider is the platform behind configfs-tsm: "" for none, and then
	// configfs-tsm is there only if Configfs is set.
	Provider string
	Configfs bool
	// Floor is the lowest privilege level; nil hides the attributes of SNP.
	Floor *uint8
	// Report makes the blobs of a request. Returning an error, such as
	// syscall.EBUSY, is what a driver may do too.
	Report func(Attributes) (Blobs, error)
	// Files are plain files by name; a nil value is a device or directory.
	Files map[string][]byte
	// Registers are measurement registers by the name of their file: a write
	// extends them by SHA-384.
	Registers map[string][]byte
	// Extended, if set, is told of each extension of a register.
	Extended func(name string, digest []byte)
	// Ioctls answer for device nodes.
	Ioctls map[string]func(request uint32, arg unsafe.Pointer) error
	// Before, if set, is called ahead of every access; its error is the answer.
	Before func(op, name string) error

	mu      sync.Mutex
	reports map[string]*object
}

// Attributes are what was written to a report.
type Attributes struct {
	InBlob                                 []byte
	PrivLevel                              string
	ServiceProvider, ServiceGUID, Manifest string
}

// Blobs are what a report gives.
type Blobs struct{ Out, Aux, Manifest []byte }

// object is one directory under [tsm.ReportDir].
type object struct {
	Attributes
	blobs           Blobs
	written, readAt uint64
	made            bool
}

func (k *Kernel) enter(op, name string) (unlock func(), err error) {
	if k.Before != nil {
		if err := k.Before(op, name); err != nil {
			return nil, &fs.PathError{Op: op, Path: name, Err: err}
		}
	}
	k.mu.Lock()
	return k.mu.Unlock, nil
}

// report finds the object and attribute that a name means.
func (k *Kernel) report(name string) (*object, string) {
	dir, attr := path.Split(name)
	return k.reports[strings.TrimSuffix(dir, "/")], attr
}

// ReadFile implements [tsm.Kernel].
func (k *Kernel) ReadFile(name string, limit int) ([]byte, error) {
	unlock, err := k.enter("read", name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	data, ok := k.Files[name]
	if !ok {
		data, ok = k.Registers[name]
	}
	if o, attr := k.report(name); o != nil {
		if data, err = k.readAttribute(o, attr); err != nil {
			return nil, &fs.PathError{Op: "read", Path: name, Err: err}
		}
		ok = true
	}
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.ENOENT}
	}
	if len(data) > limit {
		return nil, fmt.Errorf("%s: %w", name, tsm.ErrTooLarge)
	}
	return append([]byte(nil), data...), nil
}

func (k *Kernel) readAttribute(o *object, attr string) ([]byte, error) {
	switch {
	case attr == "provider":
		return []byte(k.Provider + "\n"), nil
	case attr == "generation":
		return []byte(strconv.FormatUint(o.written, 10) + "\n"), nil
	case attr == "privlevel_floor" && k.Floor != nil:
		return []byte(strconv.Itoa(int(*k.Floor)) + "\n"), nil
	case attr == "outblob", attr == "auxblob" && k.Floor != nil, attr == "manifestblob" && k.Floor != nil:
	default:
		return nil, syscall.ENOENT
	}
	if len(o.InBlob) == 0 {
		return nil, syscall.EINVAL
	}
	if !o.made || o.readAt != o.written {
		blobs, err := k.Report(o.Attributes)
		if err != nil {
			return nil, err
		}
		o.blobs, o.readAt, o.made = blobs, o.written, true
	}
	return map[string][]byte{"outblob": o.blobs.Out, "auxblob": o.blobs.Aux, "manifestblob": o.blobs.Manifest}[attr], nil
}

// WriteFile implements [tsm.Kernel].
func (k *Kernel) WriteFile(name string, data []byte) error {
	unlock, err := k.enter("write", name)
	if err != nil {
		return err
	}
	defer unlock()
	if r, ok := k.Registers[name]; ok {
		if len(data) != len(r) {
			return &fs.PathError{Op: "write", Path: name, Err: syscall.EINVAL}
		}
		sum := sha512.Sum384(append(append([]byte(nil), r...), data...))
		k.Registers[name] = sum[:]
		if k.Extended != nil {
			k.Extended(name, data)
		}
		return nil
	}
	if o, attr := k.report(name); o != nil {
		if err := k.writeAttribute(o, attr, data); err != nil {
			return &fs.PathError{Op: "write", Path: name, Err: err}
		}
		return nil
	}
	if _, ok := k.Files[name]; !ok {
		return &fs.PathError{Op: "open", Path: name, Err: syscall.ENOENT}
	}
	k.Files[name] = append([]byte(nil), data...)
	return nil
}

func (k *Kernel) writeAttribute(o *object, attr string, data []byte) error {
	text := strings.TrimSuffix(string(data), "\n")
	switch {
	case attr == "inblob" && len(data) <= tsm.MaxInBlob:
		o.InBlob = append([]byte(nil), data...)
	case attr == "inblob":
		return syscall.EINVAL
	case k.Floor == nil:
		return syscall.ENOENT
	case attr == "privlevel":
		if n, err := strconv.ParseUint(text, 10, 8); err != nil || n > 3 || uint8(n) < *k.Floor {
			return syscall.EINVAL
		}
		o.PrivLevel = text
	case attr == "service_provider":
		o.ServiceProvider = text
	case attr == "service_guid":
		o.ServiceGUID = text
	case attr == "service_manifest_version":
		o.Attributes.Manifest = text
	default:
		return syscall.ENOENT
	}
	o.written++
	return nil
}

// Mkdir implements [tsm.Kernel].
func (k *Kernel) Mkdir(name string) error {
	unlock, err := k.enter("mkdir", name)
	if err != nil {
		return err
	}
	defer unlock()
	switch {
	case path.Dir(name) != tsm.ReportDir || k.Provider == "" && !k.Configfs:
		err = syscall.ENOENT
	case k.Provider == "":
		err = syscall.ENXIO
	case k.reports[name] != nil:
		err = syscall.EEXIST
	}
	if err != nil {
		return &fs.PathError{Op: "mkdir", Path: name, Err: err}
	}
	if k.reports == nil {
		k.reports = map[string]*object{}
	}
	k.reports[name] = new(object)
	return nil
}

// Remove implements [tsm.Kernel].
func (k *Kernel) Remove(name string) error {
	unlock, err := k.enter("rmdir", name)
	if err != nil {
		return err
	}
	defer unlock()
	if k.reports[name] == nil {
		return &fs.PathError{Op: "rmdir", Path: name, Err: syscall.ENOENT}
	}
	delete(k.reports, name)
	return nil
}

// Exists implements [tsm.Kernel].
func (k *Kernel) Exists(name string) bool {
	unlock, err := k.enter("stat", name)
	if err != nil {
		return false
	}
	defer unlock()
	if name == tsm.ReportDir {
		return k.Provider != "" || k.Configfs
	}
	for file := range k.Files {
		if file == name || strings.HasPrefix(file, name+"/") {
			return true
		}
	}
	for file := range k.Registers {
		if file == name || strings.HasPrefix(file, name+"/") {
			return true
		}
	}
	_, device := k.Ioctls[name]
	return device
}

// Ioctl implements [tsm.Kernel].
func (k *Kernel) Ioctl(device string, request uint32, arg unsafe.Pointer) error {
	unlock, err := k.enter("ioctl", device)
	if err != nil {
		return err
	}
	defer unlock()
	answer, ok := k.Ioctls[device]
	if !ok {
		return &fs.PathError{Op: "open", Path: device, Err: syscall.ENOENT}
	}
	if err := answer(request, arg); err != nil {
		return &fs.PathError{Op: "ioctl", Path: device, Err: err}
	}
	return nil
}

// OpenReports tells how many reports were made and not removed.
func (k *Kernel) OpenReports() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.reports)
}
