package config

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"
)

// maxFile limits a file that the configuration names, in bytes.
const maxFile = 1 << 20

// CheckFiles reads the files that the configuration names, as a start of the
// broker would, and reports all that is wrong with them: what is absent or cannot
// be read, what is not what it should be, keys that others may read where the
// broker insists, certificates that belong to another key or have ended.
//
// What a member's file is its tag file says: "certificates" are some in PEM;
// "chain=KEY" are too, the first of which belongs to the key in the file that
// the member KEY beside it names; a "private key" is its owner's alone; "some" is
// not empty. Members without that tag name places, and files that the broker makes.
func (c Config) CheckFiles(now time.Time) error {
	check := fileCheck{now: now, named: map[string]string{}}
	type member struct {
		path, is string
		v        reflect.Value
	}
	var all []member
	leaves("", reflect.ValueOf(c), func(path string, f reflect.StructField, v reflect.Value) {
		if v.Kind() == reflect.String {
			check.named[path] = v.String()
		}
		if is := f.Tag.Get("file"); is != "" {
			all = append(all, member{path, is, v})
		}
	})
	for _, m := range all {
		switch m.v.Kind() { //nolint:exhaustive // what a member with the tag can be; see the tests
		case reflect.String:
			check.one(m.path, m.is, m.v.String())
		case reflect.Slice:
			for i := range m.v.Len() {
				check.one(index(m.path, i), m.is, m.v.Index(i).String())
			}
		case reflect.Map:
			for _, key := range slices.SortedFunc(slices.Values(m.v.MapKeys()), func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) }) {
				check.one(join(m.path, key.String()), m.is, m.v.MapIndex(key).String())
			}
		}
	}
	return check.problems.err()
}

// fileCheck is a check of them.
type fileCheck struct {
	problems

	now   time.Time
	named map[string]string // texts of the configuration by their paths
}

func (f *fileCheck) one(path, is, name string) {
	if name == "" {
		return
	}
	raw, err := contents(name)
	if err != nil {
		f.bad(path, "%v", err)
		return
	}
	kind, key, _ := strings.Cut(is, "=")
	switch kind {
	case "certificates":
		_, err = certificates(raw)
	case "chain":
		err = f.chain(raw, f.named[path[:strings.LastIndexByte(path, '.')+1]+key])
	case "private key":
		err = private(name)
	}
	if err != nil {
		f.bad(path, "%s: %v", name, err)
	}
}

// contents reads a file that has some.
func contents(name string) ([]byte, error) {
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular(): // opening a pipe would wait
		return nil, fmt.Errorf("%s is no file", name)
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	raw, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	switch {
	case err != nil:
		return nil, err
	case len(raw) > maxFile:
		return nil, fmt.Errorf("%s is larger than %d bytes", name, maxFile)
	case len(raw) == 0:
		return nil, fmt.Errorf("%s is empty", name)
	}
	return raw, nil
}

// certificates reads those of a PEM file, of which there must be one.
func certificates(raw []byte) (all []*x509.Certificate, err error) {
	for len(raw) > 0 {
		var block *pem.Block
		if block, raw = pem.Decode(raw); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("its certificate %d: %w", len(all)+1, err)
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		return nil, errors.New("it has no certificate in PEM")
	}
	return all, nil
}

// chain checks one with its key. What is wrong with the key's file is said where
// that is checked.
func (f *fileCheck) chain(raw []byte, keyFile string) error {
	all, err := certificates(raw)
	if err != nil {
		return err
	}
	if leaf := all[0]; f.now.After(leaf.NotAfter) {
		return fmt.Errorf("its certificate ended on %s", leaf.NotAfter.UTC().Format(time.RFC3339))
	} else if f.now.Before(leaf.NotBefore) {
		return fmt.Errorf("its certificate begins on %s", leaf.NotBefore.UTC().Format(time.RFC3339))
	}
	key, err := contents(keyFile)
	if err != nil {
		return nil //nolint:nilerr // see above
	}
	defer clear(key)
	_, err = tls.X509KeyPair(raw, key)
	return err
}

// private refuses a key that others than its owner may read, as the broker does.
func private(name string) error {
	info, err := os.Stat(name)
	if err == nil && info.Mode().Perm()&0o077 != 0 {
		err = fmt.Errorf("it has mode %04o: only its owner may have access", info.Mode().Perm())
	}
	return err
}
