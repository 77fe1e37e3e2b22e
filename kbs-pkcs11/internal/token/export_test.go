package token

import "github.com/miekg/pkcs11"

// Break closes all sessions behind the token's back, as a token that was taken
// out and put back does.
func Break(t *Token) error {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.lib.CloseAllSessions(t.login.slot)
}

// Create makes an object as somebody else would.
func Create(t *Token, like ...*pkcs11.Attribute) error {
	t.mu.RLock()
	defer t.mu.RUnlock()
	s, err := t.lib.OpenSession(t.login.slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		return err
	}
	defer func() { _ = t.lib.CloseSession(s) }()
	_, err = t.lib.CreateObject(s, append(like, pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true)))
	return err
}
