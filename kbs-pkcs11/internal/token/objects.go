package token

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/pkcs11"

	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// Limits of the objects that are values.
const (
	MaxValue   = 64 << 10 // bytes
	MaxPage    = 1000     // entries
	maxObjects = 10_000   // of the token that List looks through
	maxSame    = 16       // of one label
	attempts   = 4        // at reading what somebody replaces
)

// ErrPath says that a label is none that is served.
var ErrPath = errors.New("token: not repository/type/tag")

// legal is what a guest can ask for (kbs-protocol 8.1). Other objects of the
// token, such as the master key, have labels that it does not match, or are in
// classes that are not looked at.
var legal = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}(/[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}){2}$`)

// ours begins the CKA_APPLICATION of objects that Put made. What follows, 16
// hexadecimal digits, grows from one of a label to the next: while one is being
// replaced, and after a crash in that moment, there are two, and the later one
// counts.
const ours = "vouchsafe/"

// object is one candidate for a path.
type object struct {
	handle pkcs11.ObjectHandle
	stamp  uint64 // 0 if it was made by somebody else
}

// Entry is one object in a list.
type Entry struct {
	Path string
	Size int
}

// Get returns the value of the object with a label: a data object, or a secret
// key that may be read. Two that others made are as bad as one that must not be
// used: ErrKey. None is ErrUnknown.
func (t *Token) Get(ctx context.Context, path string) (secret.Bytes, error) {
	if !legal.MatchString(path) {
		return secret.Bytes{}, ErrPath
	}
	var out secret.Bytes
	err := t.use(ctx, func(_ *login, s pkcs11.SessionHandle) (err error) {
		out, err = t.read(s, path)
		return err
	})
	return out, err
}

// read looks again when the object went away between finding and reading it:
// somebody put another in its place.
func (t *Token) read(s pkcs11.SessionHandle, path string) (secret.Bytes, error) {
	for range attempts {
		all, err := t.objects(s, path)
		if err != nil {
			return secret.Bytes{}, err
		}
		if len(all) == 0 {
			return secret.Bytes{}, fmt.Errorf("%w: %s", ErrUnknown, path)
		}
		newest := all[len(all)-1]
		if newest.stamp == 0 && len(all) > 1 {
			return secret.Bytes{}, fmt.Errorf("%w: %d objects have the label %s", ErrKey, len(all), path)
		}
		got, err := t.lib.GetAttributeValue(s, newest.handle, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_VALUE, nil)})
		switch {
		case is(err, pkcs11.CKR_OBJECT_HANDLE_INVALID):
			continue
		case is(err, pkcs11.CKR_ATTRIBUTE_SENSITIVE, pkcs11.CKR_ATTRIBUTE_TYPE_INVALID):
			return secret.Bytes{}, fmt.Errorf("%w: the object %s cannot be read", ErrKey, path)
		case err != nil:
			return secret.Bytes{}, fmt.Errorf("read an object: %w", err)
		case len(got[0].Value) > MaxValue:
			clear(got[0].Value)
			return secret.Bytes{}, fmt.Errorf("%w: the object %s has %d bytes, at most %d are read", ErrKey, path, len(got[0].Value), MaxValue)
		}
		return secret.New(got[0].Value), nil
	}
	return secret.Bytes{}, fmt.Errorf("%w: %s changes all the time", ErrAway, path)
}

// objects finds what has a label, in the order in which it was made.
func (t *Token) objects(s pkcs11.SessionHandle, path string) ([]object, error) {
	var all []object
	for _, class := range []uint{pkcs11.CKO_SECRET_KEY, pkcs11.CKO_DATA} {
		found, err := t.find(s, []*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_CLASS, class),
			pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
			pkcs11.NewAttribute(pkcs11.CKA_LABEL, path),
		}, maxSame)
		if err != nil {
			return nil, err
		}
		for _, h := range found {
			o := object{handle: h}
			if class == pkcs11.CKO_DATA {
				if o.stamp, err = t.stamp(s, h); err != nil {
					return nil, err
				}
			}
			all = append(all, o)
		}
	}
	slices.SortStableFunc(all, func(a, b object) int { return strings.Compare(stampText(a.stamp), stampText(b.stamp)) })
	return all, nil
}

func stampText(n uint64) string { return fmt.Sprintf("%s%016x", ours, n) }

// stamp reads when Put made an object. One that just went away has none.
func (t *Token) stamp(s pkcs11.SessionHandle, h pkcs11.ObjectHandle) (uint64, error) {
	got, err := t.lib.GetAttributeValue(s, h, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_APPLICATION, nil)})
	switch {
	case is(err, pkcs11.CKR_OBJECT_HANDLE_INVALID, pkcs11.CKR_ATTRIBUTE_TYPE_INVALID):
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("read an object: %w", err)
	}
	text, ok := strings.CutPrefix(string(got[0].Value), ours)
	n, err := strconv.ParseUint(text, 16, 64)
	if !ok || err != nil {
		return 0, nil //nolint:nilerr // somebody else's application
	}
	return n, nil
}

// Put stores a value as a private data object, in place of what has the label.
func (t *Token) Put(ctx context.Context, path string, value secret.Bytes) error {
	switch {
	case !legal.MatchString(path):
		return ErrPath
	case value.Len() > MaxValue:
		return fmt.Errorf("%w: %d bytes, at most %d", ErrSize, value.Len(), MaxValue)
	}
	return t.write(ctx, func(s pkcs11.SessionHandle) error {
		before, err := t.objects(s, path)
		if err != nil {
			return err
		}
		next := uint64(t.cfg.Now().UnixNano())
		if n := len(before); n > 0 {
			next = max(next, before[n-1].stamp+1)
		}
		_, err = t.lib.CreateObject(s, []*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_DATA),
			pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
			pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
			pkcs11.NewAttribute(pkcs11.CKA_LABEL, path),
			pkcs11.NewAttribute(pkcs11.CKA_APPLICATION, stampText(next)),
			pkcs11.NewAttribute(pkcs11.CKA_VALUE, value.Reveal()),
		})
		if err != nil {
			return fmt.Errorf("make an object: %w", err)
		}
		after, err := t.objects(s, path) // another process may have put one as well
		if err != nil {
			return err
		}
		return t.destroy(s, after[:max(len(after)-1, 0)])
	})
}

// Delete removes what has a label, and returns how large its value was; 0 if it
// cannot be read.
func (t *Token) Delete(ctx context.Context, path string) (size int, err error) {
	if !legal.MatchString(path) {
		return 0, ErrPath
	}
	err = t.write(ctx, func(s pkcs11.SessionHandle) error {
		all, err := t.objects(s, path)
		if err != nil {
			return err
		}
		if len(all) == 0 {
			return fmt.Errorf("%w: %s", ErrUnknown, path)
		}
		value, err := t.read(s, path)
		if err != nil && !errors.Is(err, ErrKey) {
			return err
		}
		size = value.Len()
		value.Destroy()
		return t.destroy(s, all)
	})
	return size, err
}

func (t *Token) destroy(s pkcs11.SessionHandle, all []object) error {
	for _, o := range all {
		if err := t.lib.DestroyObject(s, o.handle); err != nil && !is(err, pkcs11.CKR_OBJECT_HANDLE_INVALID) {
			return fmt.Errorf("destroy an object: %w", err)
		}
	}
	return nil
}

// write runs do with a session that may write; one at a time, so that two
// writers of a path do not destroy each other's object.
func (t *Token) write(ctx context.Context, do func(pkcs11.SessionHandle) error) error {
	select {
	case t.writer <- struct{}{}:
		defer func() { <-t.writer }()
	case <-ctx.Done():
		return fmt.Errorf("%w: another writes: %w", ErrAway, ctx.Err())
	}
	return t.use(ctx, func(l *login, _ pkcs11.SessionHandle) error {
		s, err := t.lib.OpenSession(l.slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
		if err != nil {
			return fmt.Errorf("open a session that may write: %w", err)
		}
		defer func() { _ = t.lib.CloseSession(s) }()
		return do(s)
	})
}

// List returns a page of what Get can read, in byte order of the paths, and the
// path to go on after. A token has no order of its own: each page looks through
// all labels.
func (t *Token) List(ctx context.Context, prefix, after string, limit int) (page []Entry, next string, err error) {
	if limit < 1 || limit > MaxPage {
		return nil, "", fmt.Errorf("%w: a page of %d, want 1 to %d", ErrSize, limit, MaxPage)
	}
	err = t.use(ctx, func(_ *login, s pkcs11.SessionHandle) error {
		page, next = nil, ""
		paths, err := t.labels(s, prefix, after)
		if err != nil {
			return err
		}
		if len(paths) > limit {
			paths = paths[:limit]
			next = paths[limit-1]
		}
		for _, path := range paths {
			value, err := t.read(s, path)
			if errors.Is(err, ErrKey) || errors.Is(err, ErrUnknown) {
				continue
			}
			if err != nil {
				return err
			}
			page = append(page, Entry{path, value.Len()})
			value.Destroy()
		}
		return nil
	})
	return page, next, err
}

func (t *Token) labels(s pkcs11.SessionHandle, prefix, after string) ([]string, error) {
	var out []string
	for _, class := range []uint{pkcs11.CKO_DATA, pkcs11.CKO_SECRET_KEY} {
		found, err := t.find(s, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, class), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true)}, maxObjects)
		if err != nil {
			return nil, err
		}
		for _, h := range found {
			got, err := t.lib.GetAttributeValue(s, h, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_LABEL, nil)})
			if is(err, pkcs11.CKR_OBJECT_HANDLE_INVALID, pkcs11.CKR_ATTRIBUTE_TYPE_INVALID) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("read a label: %w", err)
			}
			if path := string(got[0].Value); legal.MatchString(path) && strings.HasPrefix(path, prefix) && path > after {
				out = append(out, path)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}
