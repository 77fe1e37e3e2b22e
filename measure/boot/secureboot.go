package boot

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/vouchsafe-cc/vouchsafe/measure/efi"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
)

// SecureBoot is the content of the variables that decide about Secure Boot.
// Nil lists are absent variables.
type SecureBoot struct {
	SecureBoot, PK, KEK, DB, DBX []byte

	// Authority is the entry of db by which the firmware lets the first image
	// start (EFI_SIGNATURE_DATA), nil where that is not known.
	Authority []byte
	// Missing says why none of this is known, and is otherwise empty.
	Missing string
}

// Files that [ReadSecureBoot] reads: variables as lists of signatures, which tools
// call ESL.
const (
	FilePK  = "PK.esl"
	FileKEK = "KEK.esl"
	FileDB  = "db.esl"
	FileDBX = "dbx.esl"
)

// SecureBootFiles lists them; the last one may be absent.
func SecureBootFiles() []string { return []string{FilePK, FileKEK, FileDB, FileDBX} }

// ReadSecureBoot reads the variables of a machine that enforces Secure Boot, each a
// file of its own. They are measured to the byte: who owns an entry counts too.
func ReadSecureBoot(read func(name string) ([]byte, error)) (*SecureBoot, error) {
	s := &SecureBoot{SecureBoot: []byte{1}}
	for i, to := range []*[]byte{&s.PK, &s.KEK, &s.DB, &s.DBX} {
		name := SecureBootFiles()[i]
		raw, err := read(name)
		if errors.Is(err, fs.ErrNotExist) && name == FileDBX {
			continue
		}
		if err != nil {
			return nil, err
		}
		list, err := efi.ParseSignatureLists(raw)
		if err == nil && len(list) == 0 && name != FileDBX {
			err = fmt.Errorf("%w: it is empty", efi.ErrSignatureList)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		*to = raw
	}
	return s, nil
}

// enforced reports whether only signed images start.
func (s *SecureBoot) enforced() bool {
	return s != nil && len(s.SecureBoot) == 1 && s.SecureBoot[0] == 1
}

// SecureBootEvents is what goes into PCR 7 before anything is started.
func (m Machine) SecureBootEvents() []Event {
	s := m.Edition.empty()
	if m.SecureBoot != nil {
		s = *m.SecureBoot
	}
	if s.Missing != "" {
		return []Event{{PCR: 7, Type: eventlog.EFIVariableDriverConfig, Name: "variables of Secure Boot", Input: Variables, Missing: s.Missing}, separator(7)}
	}
	var out []Event
	for _, v := range []struct {
		guid efi.GUID
		name string
		data []byte
	}{
		{efi.GlobalVariable, "SecureBoot", s.SecureBoot},
		{efi.GlobalVariable, "PK", s.PK},
		{efi.GlobalVariable, "KEK", s.KEK},
		{efi.SecurityDatabase, "db", s.DB},
		{efi.SecurityDatabase, "dbx", s.DBX},
	} {
		data := efi.VariableData(v.guid, v.name, v.data)
		out = append(out, Event{PCR: 7, Type: eventlog.EFIVariableDriverConfig, Name: "variable " + v.name, Input: Variables, Data: data, Content: Bytes(data)})
	}
	return append(out, separator(7))
}

// authority is what an enforcing firmware measures before the first image that it
// starts: why it may (PFP 1.06, 3.3.4.8). What a stub starts out of itself is
// not asked about again.
func (m Machine) authority() []Event {
	if !m.SecureBoot.enforced() || m.SecureBoot.Missing != "" {
		return nil
	}
	e := Event{PCR: 7, Type: eventlog.EFIVariableAuthority, Name: "entry of db", Input: Variables}
	if m.SecureBoot.Authority == nil {
		e.Missing = "by which entry of db the firmware lets the image start is not known"
		return []Event{e}
	}
	e.Data = efi.VariableData(efi.SecurityDatabase, "db", m.SecureBoot.Authority)
	e.Content = Bytes(e.Data)
	return []Event{e}
}
