package sigstore

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/notaryproject/tspclient-go"
)

const maxTimestamp = 32 << 10 // bytes

// checkTimestamp verifies a timestamp (RFC 3161) over a signature. Sigstore's
// authorities leave their certificates out: the root has them.
func (r *Root) checkTimestamp(ctx context.Context, raw, sig []byte) (time.Time, error) {
	if len(raw) > maxTimestamp {
		return time.Time{}, fmt.Errorf("timestamp of %d bytes, at most %d are read", len(raw), maxTimestamp)
	}
	var response tspclient.Response
	if err := response.UnmarshalBinary(raw); err != nil {
		return time.Time{}, fmt.Errorf("timestamp: %w", err)
	}
	token, err := response.SignedToken()
	if err != nil {
		return time.Time{}, fmt.Errorf("timestamp: %w", err)
	}
	info, err := token.Info()
	if err != nil {
		return time.Time{}, fmt.Errorf("timestamp: %w", err)
	}
	options := x509.VerifyOptions{Roots: x509.NewCertPool(), CurrentTime: info.GenTime}
	trusted := 0
	for _, a := range r.stampers {
		if a.valid.holds(info.GenTime) {
			last := len(a.chain) - 1
			options.Roots.AddCert(a.chain[last])
			token.Certificates = append(token.Certificates, a.chain[:last]...)
			trusted++
		}
	}
	if trusted == 0 {
		return time.Time{}, errors.New("timestamp: no authority for timestamps is trusted")
	}
	if _, err := token.Verify(ctx, options); err != nil {
		return time.Time{}, fmt.Errorf("timestamp: %w", err)
	}
	stamp, err := info.Validate(sig)
	if err != nil {
		return time.Time{}, fmt.Errorf("timestamp: %w", err)
	}
	return stamp.Value, nil
}
