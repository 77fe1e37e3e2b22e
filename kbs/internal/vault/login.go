package vault

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// Auth is a way to log in. Files are read for every login, so that a rotated
// credential is used at once.
type Auth struct {
	// token reads a token that somebody else looks after; else path and body
	// are those of the login call.
	token func() (secret.Bytes, error)
	path  string
	body  func() (map[string]string, error)
}

// TokenFile uses the token in a file, as a Vault agent writes it.
func TokenFile(file string) Auth {
	return Auth{token: func() (secret.Bytes, error) { return readCredential(file) }}
}

// AppRole logs in with a role id, and a secret id from a file. An empty mount
// is "approle".
func AppRole(mount, roleID, secretIDFile string) Auth {
	return Auth{path: loginPath(mount, "approle"), body: func() (map[string]string, error) {
		id, err := readCredential(secretIDFile)
		return map[string]string{"role_id": roleID, "secret_id": string(id.Reveal())}, err
	}}
}

// ServiceAccountToken is where Kubernetes puts a pod's token.
const ServiceAccountToken = "/var/run/secrets/kubernetes.io/serviceaccount/token"

// Kubernetes logs in with a service account's token from a file; "" is the
// pod's own. An empty mount is "kubernetes".
func Kubernetes(mount, role, jwtFile string) Auth {
	if jwtFile == "" {
		jwtFile = ServiceAccountToken
	}
	return Auth{path: loginPath(mount, "kubernetes"), body: func() (map[string]string, error) {
		jwt, err := readCredential(jwtFile)
		return map[string]string{"role": role, "jwt": string(jwt.Reveal())}, err
	}}
}

// Token uses a token that the caller has.
func Token(token secret.Bytes) Auth { return Auth{token: held(token)} }

// AppRoleSecret logs in with a role id and a secret id that the caller has. An
// empty mount is "approle".
func AppRoleSecret(mount, roleID string, secretID secret.Bytes) Auth {
	return Auth{path: loginPath(mount, "approle"), body: func() (map[string]string, error) {
		id, err := held(secretID)()
		return map[string]string{"role_id": roleID, "secret_id": string(id.Reveal())}, err
	}}
}

// JWT logs in with a signed token that the caller has, for Vault's "jwt" method.
// An empty mount is "jwt".
func JWT(mount, role string, token secret.Bytes) Auth {
	return Auth{path: loginPath(mount, "jwt"), body: func() (map[string]string, error) {
		jwt, err := held(token)()
		return map[string]string{"role": role, "jwt": string(jwt.Reveal())}, err
	}}
}

// held gives copies of a credential.
func held(s secret.Bytes) func() (secret.Bytes, error) {
	return func() (secret.Bytes, error) { return oneCredential(s.Reveal(), "what was given") }
}

func loginPath(mount, usual string) string {
	if mount == "" {
		mount = usual
	}
	return path.Join("auth", mount, "login")
}

const maxCredential = 64 << 10 // bytes

func readCredential(file string) (secret.Bytes, error) {
	f, err := os.Open(file)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("vault: credential: %w", err)
	}
	defer func() { _ = f.Close() }()
	raw, err := io.ReadAll(io.LimitReader(f, maxCredential+1))
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("vault: credential: %w", err)
	}
	defer clear(raw)
	return oneCredential(raw, file)
}

// oneCredential copies a credential that may have white space around it.
func oneCredential(raw []byte, from string) (secret.Bytes, error) {
	text := bytes.TrimSpace(raw)
	if len(text) == 0 || len(raw) > maxCredential || bytes.ContainsAny(text, "\r\n\x00") {
		return secret.Bytes{}, fmt.Errorf("vault: %s does not hold one credential", from)
	}
	return secret.Copy(text), nil
}

// login is the token in use. Whoever holds the turn changes it.
type login struct {
	auth Auth
	now  func() time.Time
	turn chan struct{}

	held session // under turn
}

// session is one token. Zero times mean that it does not end.
type session struct {
	token   secret.Bytes
	renew   time.Time // from here on it should be renewed; zero if it cannot be
	expires time.Time
}

// granted is how a token's lifetime begins, in seconds.
type granted struct {
	Token     string `json:"client_token"`
	Lease     int64  `json:"lease_duration"`
	Renewable bool   `json:"renewable"`
}

func (l *login) session(token secret.Bytes, lease int64, renewable bool) session {
	s := session{token: token}
	if lease <= 0 {
		return s
	}
	d := time.Duration(min(lease, 1<<31)) * time.Second
	s.expires = l.now().Add(d)
	if renewable {
		s.renew = l.now().Add(d * 2 / 3)
	}
	return s
}

// early is how long before its end a token no longer counts: the clocks differ.
const early = 2 * time.Second

func (s session) usable(now time.Time) bool {
	return s.token.Len() > 0 && (s.expires.IsZero() || now.Before(s.expires.Add(-early)))
}

// token returns a copy of the token in use, logging in if there is none. Of
// many that need one at once, one logs in.
func (c *Client) token(ctx context.Context) (secret.Bytes, error) {
	l := &c.login
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return secret.Bytes{}, fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
	}
	defer func() { <-l.turn }()
	if !l.held.usable(l.now()) {
		s, err := c.logIn(ctx)
		if err != nil {
			return secret.Bytes{}, fmt.Errorf("%w: %w", ErrLogin, err)
		}
		l.held.token.Destroy()
		l.held = s
	}
	return secret.Copy(l.held.token.Reveal()), nil
}

// forget drops the token, unless it has been replaced already.
func (c *Client) forget(token secret.Bytes) {
	c.login.turn <- struct{}{}
	defer func() { <-c.login.turn }()
	if c.login.held.token.Equal(token) {
		c.login.held.token.Destroy()
		c.login.held = session{}
	}
}

func (c *Client) logIn(ctx context.Context) (session, error) {
	if c.login.auth.token != nil {
		token, err := c.login.auth.token()
		if err != nil {
			return session{}, err
		}
		return c.lookUp(ctx, token)
	}
	body, err := c.login.auth.body()
	if err != nil {
		return session{}, err
	}
	g, err := c.grant(ctx, Call{Method: http.MethodPost, Path: c.login.auth.path, In: body}, secret.Bytes{})
	if err != nil {
		return session{}, err
	}
	return c.login.session(secret.New([]byte(g.Token)), g.Lease, g.Renewable), nil
}

// lookUp asks how long a token from a file lives, and takes it over.
func (c *Client) lookUp(ctx context.Context, token secret.Bytes) (session, error) {
	var data struct {
		TTL       int64 `json:"ttl"`
		Renewable bool  `json:"renewable"`
	}
	call := Call{Method: http.MethodGet, Path: "auth/token/lookup-self"}
	err := c.retry(ctx, call, func() (answer, error) {
		a, err := c.send(ctx, call, token)
		if err != nil {
			return a, err
		}
		return a, a.decode(&data)
	})
	if err != nil {
		token.Destroy()
		return session{}, fmt.Errorf("look up the token: %w", err)
	}
	return c.login.session(token, data.TTL, data.Renewable), nil
}

// grant sends a call whose answer is a token.
func (c *Client) grant(ctx context.Context, call Call, token secret.Bytes) (g granted, err error) {
	err = c.retry(ctx, call, func() (answer, error) {
		a, err := c.send(ctx, call, token)
		if err == nil {
			err = a.err()
		}
		if err != nil {
			return a, err
		}
		defer clear(a.body)
		var envelope struct {
			Auth granted `json:"auth"`
		}
		if json.Unmarshal(a.body, &envelope) != nil || envelope.Auth.Token == "" {
			return a, final{fmt.Errorf("%w: the answer holds no token", ErrUnavailable)}
		}
		g = envelope.Auth
		return a, nil
	})
	return g, err
}

// keepEvery is how often Keep looks whether the token needs to be renewed.
const keepEvery = 10 * time.Second

// Keep renews the token in time until ctx ends, so that it outlives a night in
// which nobody asks for anything.
func (c *Client) Keep(ctx context.Context) {
	t := time.NewTicker(keepEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			c.Renew(ctx)
		}
	}
}

// Renew renews the token if it is time to. A token that cannot be renewed is
// left to expire; the next call then logs in.
func (c *Client) Renew(ctx context.Context) {
	l := &c.login
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return
	}
	defer func() { <-l.turn }()
	s := l.held
	if s.renew.IsZero() || l.now().Before(s.renew) || !s.usable(l.now()) {
		return
	}
	g, err := c.grant(ctx, Call{Method: http.MethodPost, Path: "auth/token/renew-self", In: struct{}{}}, s.token)
	if err != nil {
		return // tried again in a moment, as long as the token lives
	}
	l.held = l.session(s.token, g.Lease, g.Renewable)
}
