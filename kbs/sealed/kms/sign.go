package kms

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// canonical is a request as AWS Signature Version 4 and Alibaba's version 3 sign
// it, which agree in this, and the names of the headers in it: all that are set,
// and the host.
func canonical(req *http.Request, body []byte) (text, signed string) {
	headers := map[string]string{"host": req.URL.Host}
	for name, values := range req.Header {
		headers[strings.ToLower(name)] = strings.TrimSpace(strings.Join(values, ","))
	}
	names := slices.Sorted(maps.Keys(headers))
	signed = strings.Join(names, ";")
	path := req.URL.EscapedPath()
	if path == "" {
		path = "/"
	}
	var b strings.Builder
	b.WriteString(req.Method + "\n" + path + "\n" + req.URL.RawQuery + "\n")
	for _, name := range names {
		b.WriteString(name + ":" + headers[name] + "\n")
	}
	b.WriteString("\n" + signed + "\n" + digest(body))
	return b.String(), signed
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

// accessKey is what AWS and Alibaba sign with.
type accessKey struct {
	id              string
	secret, session secret.Bytes // session is empty of a key that does not expire
}

// check keeps what goes into headers from being more than one value.
func (k accessKey) check() error {
	word := func(b []byte) bool { return !bytes.ContainsFunc(b, func(r rune) bool { return r <= ' ' || r > '~' }) }
	if k.id == "" || k.secret.Len() == 0 || strings.ContainsAny(k.id, "/,= ") || !word([]byte(k.id)) || !word(k.session.Reveal()) {
		return fault.Newf(fault.Unauthenticated, "the credential is not an access key")
	}
	return nil
}

func (k accessKey) destroy() {
	k.secret.Destroy()
	k.session.Destroy()
}

// keyed is a client whose calls an access key signs.
type keyed struct {
	key    accessKey
	caller *caller
	env    env
}

// newKeyed takes the key over: one that it refuses, or has no use for, is
// destroyed.
func newKeyed(e env, pem string, key accessKey) (*keyed, error) {
	err := key.check()
	var c *caller
	if err == nil {
		c, err = newCaller(e, pem)
	}
	if err != nil {
		key.destroy()
		return nil, err
	}
	return &keyed{key: key, caller: c, env: e}, nil
}

func (k *keyed) close() {
	k.key.destroy()
	k.caller.close()
}

// signAWS signs a request for AWS (Signature Version 4, with the Authorization
// header).
func signAWS(req *http.Request, body []byte, c accessKey, region, service string, now time.Time) {
	stamp := now.UTC().Format("20060102T150405Z")
	req.Header.Set("X-Amz-Date", stamp)
	if c.session.Len() > 0 {
		req.Header.Set("X-Amz-Security-Token", string(c.session.Reveal()))
	}
	text, signed := canonical(req, body)
	scope := strings.Join([]string{stamp[:8], region, service, "aws4_request"}, "/")
	key := append([]byte("AWS4"), c.secret.Reveal()...)
	for part := range strings.SplitSeq(scope, "/") {
		next := mac(key, part)
		clear(key)
		key = next
	}
	signature := mac(key, "AWS4-HMAC-SHA256\n"+stamp+"\n"+scope+"\n"+digest([]byte(text)))
	clear(key)
	req.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+c.id+"/"+scope+
		", SignedHeaders="+signed+", Signature="+hex.EncodeToString(signature))
}

// signAliyun signs a request for Alibaba Cloud (ACS3-HMAC-SHA256). The nonce is
// one that no other request has.
func signAliyun(req *http.Request, body []byte, c accessKey, nonce string, now time.Time) {
	req.Header.Set("X-Acs-Date", now.UTC().Format(time.RFC3339))
	req.Header.Set("X-Acs-Signature-Nonce", nonce)
	req.Header.Set("X-Acs-Content-Sha256", digest(body))
	if c.session.Len() > 0 {
		req.Header.Set("X-Acs-Security-Token", string(c.session.Reveal()))
	}
	text, signed := canonical(req, body)
	signature := mac(c.secret.Reveal(), "ACS3-HMAC-SHA256\n"+digest([]byte(text)))
	req.Header.Set("Authorization", "ACS3-HMAC-SHA256 Credential="+c.id+",SignedHeaders="+signed+",Signature="+hex.EncodeToString(signature))
}
