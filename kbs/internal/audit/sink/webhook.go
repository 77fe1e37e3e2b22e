package sink

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// Headers of a webhook's request.
const (
	// SignatureHeader is "t=UNIX,v1=HEX", where HEX is the HMAC-SHA-256 of UNIX,
	// a dot and the body under the secret that both sides have. A receiver
	// refuses an old time.
	SignatureHeader = "Vouchsafe-Signature"
	// IdempotencyHeader names the entries: LOG/FIRST-LAST.
	IdempotencyHeader = "Idempotency-Key"
)

// Webhook posts batches: {"log": LOG, "events": [...]}. A status of 200 to 299
// confirms the whole batch.
type Webhook struct {
	HTTP

	Log    string // the origin of the log
	Secret string // path of the file with the key of the signature
	Format Format
	Now    func() time.Time
}

// Deliver implements [Sink].
func (s *Webhook) Deliver(ctx context.Context, batch []Event) error {
	body, err := s.body(batch)
	if err != nil {
		return err
	}
	key, err := credential(s.Secret)
	if err != nil {
		return fmt.Errorf("secret: %w", err)
	}
	first, last := batch[0].Entry.Index, batch[len(batch)-1].Entry.Index
	_, err = s.post(ctx, body, map[string]string{
		SignatureHeader:   Sign(key, body, s.Now()),
		IdempotencyHeader: fmt.Sprintf("%s/%d-%d", s.Log, first, last),
	})
	return err
}

func (s *Webhook) body(batch []Event) ([]byte, error) {
	log, err := json.Marshal(s.Log)
	if err != nil {
		return nil, err
	}
	body := fmt.Appendf(nil, `{"log":%s,"events":[`, log)
	for i, e := range batch {
		event, err := s.Format(e)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, event...)
	}
	return append(body, "]}"...), nil
}

// Sign returns the value of [SignatureHeader].
func Sign(key, body []byte, at time.Time) string {
	unix := strconv.FormatInt(at.Unix(), 10)
	h := hmac.New(sha256.New, key)
	_, _ = h.Write([]byte(unix + "."))
	_, _ = h.Write(body)
	return "t=" + unix + ",v1=" + hex.EncodeToString(h.Sum(nil))
}
