package sink

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// maxAnswer bounds what is read of a receiver's answer, in bytes.
const maxAnswer = 64 << 10

// maxCredential bounds a file with a secret, in bytes.
const maxCredential = 64 << 10

// HTTP is the receiver of a webhook or of OTLP logs.
type HTTP struct {
	URL           string
	Authorization string // path of a file with the header's value; "" sends none
	Client        *http.Client
}

// NewClient returns a client that verifies the receiver, and follows no
// redirect: the log goes where the configuration says.
func NewClient(c *tls.Config) *http.Client {
	t := &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: c, ForceAttemptHTTP2: true,
		MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute, TLSHandshakeTimeout: 10 * time.Second,
		MaxResponseHeaderBytes: maxAnswer,
	}
	return &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// TLS returns the client side of TLS: roots from a file (PEM), "" meaning the
// system's, and a certificate to show, "" meaning none.
func TLS(ca, certificate, key string) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		text, err := os.ReadFile(ca)
		if err != nil {
			return nil, err
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s has no certificate", ca)
		}
	}
	if certificate != "" {
		pair, err := tls.LoadX509KeyPair(certificate, key)
		if err != nil {
			return nil, err
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// credential reads a secret from its file, so that it can be replaced while the
// broker runs.
func credential(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxCredential))
	if err != nil {
		return nil, err
	}
	if b = bytes.TrimSpace(b); len(b) == 0 {
		return nil, fmt.Errorf("%s is empty", path)
	}
	return b, nil
}

// post sends a body and returns the answer to it. Anything but a success is an
// error: the receiver has not confirmed.
func (h HTTP) post(ctx context.Context, body []byte, header map[string]string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.URL, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "vouchsafe-kbs")
	for name, value := range header {
		req.Header.Set(name, value)
	}
	if h.Authorization != "" {
		value, err := credential(h.Authorization)
		if err != nil {
			return nil, fmt.Errorf("authorization: %w", err)
		}
		req.Header.Set("Authorization", string(value))
	}
	resp, err := h.Client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	switch {
	case resp.StatusCode == http.StatusRequestEntityTooLarge:
		return nil, fmt.Errorf("%w: %s", ErrTooLarge, resp.Status)
	case resp.StatusCode/100 != 2:
		return nil, refused(resp)
	case err != nil:
		return nil, fmt.Errorf("answer: %w", err)
	}
	return answer, nil
}

// refused keeps the time at which the receiver wants to be asked again.
func refused(resp *http.Response) error {
	err := fmt.Errorf("the receiver answered %s", resp.Status)
	seconds, bad := strconv.Atoi(strings.TrimSpace(resp.Header.Get("Retry-After")))
	if bad != nil || seconds <= 0 {
		return err
	}
	return &retryError{after: time.Duration(min(seconds, int(maxAsked/time.Second))) * time.Second, err: err}
}

// Close drops the connections.
func (h HTTP) Close() error {
	h.Client.CloseIdleConnections()
	return nil
}
