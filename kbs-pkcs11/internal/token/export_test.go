package token

// Break closes all sessions behind the token's back, as a token that was taken
// out and put back does.
func Break(t *Token) error {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.lib.CloseAllSessions(t.login.slot)
}
