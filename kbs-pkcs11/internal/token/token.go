// Package token keeps a process logged in at one PKCS#11 token, and has the
// token do what needs a key. No key ever leaves it.
//
// A module's functions block and cannot be cancelled, so at most Sessions of
// them run at once; whoever waits for a turn waits with a context. One that
// does not return within Longest cannot be helped by this process: Hung is
// called, which ends it. When a
// session or the whole token went away, the library is initialised anew and
// the operation is tried once more. A PIN that was refused is not tried again
// before the process is: tokens lock themselves after a few.
package token

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
	"unsafe"

	"github.com/miekg/pkcs11"

	"github.com/vouchsafe-cc/vouchsafe/secret"
)

var (
	// ErrAway says that the token gives no answer now, and may later.
	ErrAway = errors.New("token: not available")
	// ErrPIN says that the token refused the PIN; nothing but a new start of
	// the process tries it again.
	ErrPIN = errors.New("token: the PIN was refused")
	// ErrUnknown says that the token has no such key.
	ErrUnknown = errors.New("token: no such key")
	// ErrKey says that a key is there and must not be used.
	ErrKey = errors.New("token: not a usable key")
	// ErrOpen says that bytes do not open under a key.
	ErrOpen = errors.New("token: it does not open")
	// ErrSize says that what was given is too long or too short.
	ErrSize = errors.New("token: wrong size")
)

// rest is how long a token that could not be reached is left alone.
const rest = time.Second

// Config says which token.
type Config struct {
	Module   string // path of the library
	Token    Which
	Sessions int // at once
	PIN      func() (secret.Bytes, error)
	// Unattended says that no person gives the PIN. The last try that a token has
	// left is not taken then: whatever starts the process again would lock it.
	Unattended bool
	Now        func() time.Time
	// Longest is how long one operation may take, a new login included; Hung is
	// called when it took longer.
	Longest time.Duration
	Hung    func()
}

// Token is one token. It is safe for concurrent use.
type Token struct {
	cfg   Config
	lib   *pkcs11.Ctx
	turns chan struct{}
	// writer is held by whoever makes or destroys objects.
	writer chan struct{}

	// mu is held for reading by whoever uses the login, and for writing by
	// whoever replaces it: nothing may run while the library is finalised.
	mu      sync.RWMutex
	login   *login
	refused error     // why the PIN must not be tried again
	failed  error     // of the last attempt to log in
	until   time.Time // when the next one may be made
}

// login is one life of the library. Its handles mean nothing in the next one.
type login struct {
	slot     uint
	sessions chan pkcs11.SessionHandle
	handles  sync.Map // name of a key → pkcs11.ObjectHandle
}

// Open loads the module and logs in.
func Open(cfg Config) (*Token, error) {
	if cfg.Longest <= 0 || cfg.Hung == nil {
		return nil, errors.New("token: no limit of time is set")
	}
	defer time.AfterFunc(cfg.Longest, cfg.Hung).Stop()
	lib := pkcs11.New(cfg.Module)
	if lib == nil {
		return nil, fmt.Errorf("%s is not a PKCS#11 module that can be loaded", cfg.Module)
	}
	t := &Token{cfg: cfg, lib: lib, turns: make(chan struct{}, cfg.Sessions), writer: make(chan struct{}, 1)}
	if _, err := t.enter(); err != nil {
		return nil, err
	}
	t.mu.RUnlock()
	return t, nil
}

// Close logs out. It waits for what runs.
func (t *Token) Close() error {
	defer time.AfterFunc(t.cfg.Longest, t.cfg.Hung).Stop()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refused = fmt.Errorf("%w: closed", ErrAway)
	if t.login == nil {
		return nil
	}
	t.login = nil
	return t.lib.Finalize()
}

// use runs do with a session of its own, and a second time if the first one
// found that the session was void.
func (t *Token) use(ctx context.Context, do func(*login, pkcs11.SessionHandle) error) error {
	select {
	case t.turns <- struct{}{}:
		defer func() { <-t.turns }()
	case <-ctx.Done():
		return fmt.Errorf("%w: all %d sessions are busy: %w", ErrAway, t.cfg.Sessions, ctx.Err())
	}
	defer time.AfterFunc(t.cfg.Longest, t.cfg.Hung).Stop()
	var err error
	for range 2 {
		var l *login
		if l, err = t.attempt(do); l == nil {
			return err
		}
		if errors.Is(err, ErrPIN) { // that of one key, or for one signature
			t.leave(l, err)
		}
		if !void(err) {
			break
		}
		t.leave(l, nil)
	}
	if raw := pkcs11.Error(0); errors.As(err, &raw) && !errors.Is(err, ErrPIN) {
		return fmt.Errorf("%w: %w", ErrAway, err)
	}
	return err
}

// attempt runs do once, with a session that is given back whatever happens. It
// returns no login if there is none.
func (t *Token) attempt(do func(*login, pkcs11.SessionHandle) error) (*login, error) {
	l, err := t.enter()
	if err != nil {
		return nil, err
	}
	defer t.mu.RUnlock()
	s := <-l.sessions // there is one for every turn
	defer func() { l.sessions <- s }()
	return l, do(l, s)
}

// enter returns the login with mu held for reading.
func (t *Token) enter() (*login, error) {
	for {
		t.mu.RLock()
		if t.login != nil {
			return t.login, nil
		}
		t.mu.RUnlock()
		if err := t.begin(); err != nil {
			return nil, err
		}
	}
}

// leave ends a login that turned out to be void, unless somebody else has. If
// refused says why, there is no other one.
func (t *Token) leave(l *login, refused error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.refused == nil {
		t.refused = refused
	}
	if t.login == l {
		t.login = nil
		_ = t.lib.Finalize() // what it says of a token that is gone helps nobody
	}
}

// begin logs in, if nobody has meanwhile.
func (t *Token) begin() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.login != nil:
		return nil
	case t.refused != nil:
		return t.refused
	case t.cfg.Now().Before(t.until):
		return t.failed
	}
	l, err := t.start()
	switch {
	case err == nil:
		t.login = l
		return nil
	case errors.Is(err, ErrPIN):
		t.refused = err
	default:
		err = fmt.Errorf("%w: %w", ErrAway, err)
		t.failed, t.until = err, t.cfg.Now().Add(rest)
	}
	return err
}

func (t *Token) start() (l *login, err error) {
	if err := t.lib.Initialize(); err != nil {
		return nil, fmt.Errorf("initialise the module: %w", err)
	}
	defer func() {
		if err != nil {
			_ = t.lib.Finalize() // the reason is known already
		}
	}()
	slot, err := t.slot()
	if err != nil {
		return nil, err
	}
	if t.cfg.Unattended && t.flagged(slot, pkcs11.CKF_USER_PIN_FINAL_TRY) {
		return nil, fmt.Errorf("%w before, and another wrong one locks the token: log in once with a tool of its own, and see whether the PIN is right", ErrPIN)
	}
	l = &login{slot: slot, sessions: make(chan pkcs11.SessionHandle, t.cfg.Sessions)}
	for range t.cfg.Sessions {
		s, err := t.lib.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION)
		if err != nil {
			return nil, fmt.Errorf("open a session: %w", err)
		}
		l.sessions <- s
	}
	s := <-l.sessions
	defer func() { l.sessions <- s }()
	return l, t.logIn(slot, s, pkcs11.CKU_USER) // which holds for all sessions
}

// logIn gives the token the PIN, of which it keeps no copy. The library below
// makes one in C, which it frees and does not wipe.
func (t *Token) logIn(slot uint, s pkcs11.SessionHandle, user uint) error {
	pin, err := t.cfg.PIN()
	if err != nil {
		return err
	}
	defer pin.Destroy()
	p := pin.Reveal()
	err = t.lib.Login(s, user, unsafe.String(unsafe.SliceData(p), len(p)))
	switch {
	case err == nil:
		return nil
	case is(err, pkcs11.CKR_PIN_INCORRECT, pkcs11.CKR_PIN_INVALID, pkcs11.CKR_PIN_LEN_RANGE, pkcs11.CKR_PIN_LOCKED, pkcs11.CKR_PIN_EXPIRED, pkcs11.CKR_USER_PIN_NOT_INITIALIZED),
		!void(err) && t.flagged(slot, pkcs11.CKF_USER_PIN_COUNT_LOW|pkcs11.CKF_USER_PIN_FINAL_TRY|pkcs11.CKF_USER_PIN_LOCKED):
		// Some modules have no code of their own for a wrong PIN, and a program that
		// goes on trying locks the token; but it says that it counted one.
		return fmt.Errorf("%w: %w", ErrPIN, err)
	}
	return fmt.Errorf("log in: %w", err)
}

// flagged reports whether the token has one of the flags, which say how many
// tries of the PIN it has left.
func (t *Token) flagged(slot, flags uint) bool {
	info, err := t.lib.GetTokenInfo(slot)
	return err == nil && info.Flags&flags != 0
}

// void reports whether an error means that handles or the login are void.
func void(err error) bool {
	return is(err, pkcs11.CKR_SESSION_HANDLE_INVALID, pkcs11.CKR_SESSION_CLOSED, pkcs11.CKR_USER_NOT_LOGGED_IN,
		pkcs11.CKR_DEVICE_REMOVED, pkcs11.CKR_DEVICE_ERROR, pkcs11.CKR_TOKEN_NOT_PRESENT, pkcs11.CKR_TOKEN_NOT_RECOGNIZED,
		pkcs11.CKR_SLOT_ID_INVALID, pkcs11.CKR_KEY_HANDLE_INVALID, pkcs11.CKR_OBJECT_HANDLE_INVALID,
		pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED, pkcs11.CKR_OPERATION_ACTIVE)
}

func is(err error, codes ...uint) bool {
	raw := pkcs11.Error(0)
	if !errors.As(err, &raw) {
		return false
	}
	for _, c := range codes {
		if uint(raw) == c {
			return true
		}
	}
	return false
}
