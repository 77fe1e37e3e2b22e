package kms

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/secret"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// bearer keeps the access token (RFC 6750) of one service. Of many that need one
// at once, one logs in.
type bearer struct {
	caller *caller
	now    func() time.Time
	// issuer is where tokens come from, form what is sent there (RFC 6749).
	issuer string
	form   func() (url.Values, error)
	turn   chan struct{} // whoever holds it changes the rest

	held  secret.Bytes
	until time.Time
}

func newBearer(c *caller, now func() time.Time, issuer string, form func() (url.Values, error)) *bearer {
	return &bearer{caller: c, now: now, issuer: issuer, form: form, turn: make(chan struct{}, 1)}
}

const (
	longestToken = time.Hour
	early        = time.Minute // before its end a token no longer counts: clocks differ
)

// token returns a copy of the token in use.
func (b *bearer) token(ctx context.Context) (secret.Bytes, error) {
	select {
	case b.turn <- struct{}{}:
	case <-ctx.Done():
		return secret.Bytes{}, fault.New(fault.Unavailable, ctx.Err())
	}
	defer func() { <-b.turn }()
	if b.held.Len() == 0 || !b.now().Before(b.until) {
		token, lives, err := b.login(ctx)
		if err != nil {
			return secret.Bytes{}, err
		}
		b.held.Destroy()
		b.held, b.until = token, b.now().Add(min(lives, longestToken)-early)
	}
	return secret.Copy(b.held.Reveal()), nil
}

func (b *bearer) login(ctx context.Context) (token secret.Bytes, lives time.Duration, err error) {
	body, err := b.caller.call(ctx, func(ctx context.Context) (*http.Request, error) {
		form, err := b.form()
		if err != nil {
			return nil, err
		}
		return post(ctx, b.issuer, "application/x-www-form-urlencoded", []byte(form.Encode()))
	}, judgeOAuth)
	if err != nil {
		return token, 0, err
	}
	var out struct {
		Token   json.RawMessage `json:"access_token"`
		Expires int64           `json:"expires_in"` // seconds
	}
	if err := decode("the token's issuer", body, &out); err != nil {
		return token, 0, err
	}
	defer clear(out.Token)
	text, err := strictjson.Text(out.Token)
	if err != nil || len(text) == 0 || out.Expires <= 0 {
		return token, 0, malformed("the token's issuer")
	}
	return secret.Copy(text), time.Duration(min(out.Expires, int64(longestToken/time.Second))) * time.Second, nil
}

// judgeOAuth reads an error of RFC 6749, section 5.2: whatever the issuer dislikes
// is the credential.
func judgeOAuth(status int, body []byte) (fault.Code, string) {
	var said struct {
		Error string `json:"error"`
	}
	_ = json.Unmarshal(body, &said) // it may be anything
	if status >= http.StatusBadRequest && status < http.StatusInternalServerError && status != http.StatusTooManyRequests {
		return fault.Unauthenticated, said.Error
	}
	return "", said.Error
}

// call is [caller.call] with the token, and once more with another one if the
// service knows this one no more.
func (b *bearer) call(ctx context.Context, build func(context.Context) (*http.Request, error), j judge) ([]byte, error) {
	for last := false; ; last = true {
		var used secret.Bytes
		body, err := b.caller.call(ctx, func(ctx context.Context) (*http.Request, error) {
			token, err := b.token(ctx)
			if err != nil {
				return nil, err
			}
			used.Destroy()
			used = token
			req, err := build(ctx)
			if err != nil {
				return nil, err
			}
			req.Header.Set("Authorization", "Bearer "+string(token.Reveal()))
			return req, nil
		}, j)
		retry := !last && fault.CodeOf(err) == fault.Unauthenticated && used.Len() > 0
		if retry {
			b.forget(used)
		}
		used.Destroy()
		if err == nil || !retry {
			return body, err
		}
	}
}

// json posts to an address, or gets what is there if in is nil, and reads the
// answer into out.
func (b *bearer) json(ctx context.Context, from, to string, in, out any, j judge) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return fault.New(fault.SealedInvalid, err)
		}
		defer clear(body)
	}
	answer, err := b.call(ctx, func(ctx context.Context) (*http.Request, error) {
		if in != nil {
			return post(ctx, to, "application/json", body)
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, to, nil)
		if err != nil {
			return nil, fault.New(fault.SealedInvalid, err)
		}
		return req, nil
	}, j)
	if err != nil {
		return err
	}
	return decode(from, answer, out)
}

// forget drops a token, unless it has been replaced already.
func (b *bearer) forget(token secret.Bytes) {
	b.turn <- struct{}{}
	defer func() { <-b.turn }()
	if b.held.Equal(token) {
		b.held.Destroy()
	}
}

func (b *bearer) close() {
	b.turn <- struct{}{}
	defer func() { <-b.turn }()
	b.held.Destroy()
}
