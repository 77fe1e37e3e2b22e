package world

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
)

// wiretap speaks the KBS protocol by hand, as somebody would who sits on the
// network between guest and broker and keeps what passes.
type wiretap struct {
	url    string
	client *http.Client
}

// auth opens a session and returns its nonce and its cookie.
func (t *wiretap) auth(ctx context.Context, tee string) (nonce string, cookie *http.Cookie, err error) {
	cookies, body, err := t.post(ctx, api.PathAuth, map[string]any{"version": api.ProtocolVersion, "tee": tee, "extra-params": ""}, nil)
	if err != nil {
		return "", nil, err
	}
	var c api.Challenge
	if err := json.Unmarshal(body, &c); err != nil {
		return "", nil, err
	}
	for _, got := range cookies {
		if got.Name == api.SessionCookie {
			return c.Nonce, got, nil
		}
	}
	return "", nil, errors.New("the broker gave no session cookie")
}

// attest sends an attestation; a refusal is an error with the whole body.
func (t *wiretap) attest(ctx context.Context, a map[string]any, cookie *http.Cookie) error {
	_, _, err := t.post(ctx, api.PathAttest, a, cookie)
	return err
}

func (t *wiretap) post(ctx context.Context, path string, body any, cookie *http.Cookie) ([]*http.Cookie, []byte, error) {
	raw, err := json.Marshal(body)
	if err != nil {
		return nil, nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.url+path, bytes.NewReader(raw))
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	if cookie != nil {
		req.AddCookie(cookie)
	}
	resp, err := t.client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, nil, fmt.Errorf("%s: %s: %s", path, resp.Status, answer)
	}
	return resp.Cookies(), answer, nil
}

// Replay records a good attestation of a genuine guest and sends it again: as
// it was, against a new challenge; and with the new nonce written into it. Both
// must be refused, each for its own reason.
func (w *World) Replay(ctx context.Context, vendor string) (stale, rewritten Refusal, err error) {
	client, err := w.Broker.HTTP()
	if err != nil {
		return stale, rewritten, err
	}
	tap := &wiretap{w.Broker.URL, client}
	nonce, cookie, err := tap.auth(ctx, "snp")
	if err != nil {
		return stale, rewritten, err
	}
	recorded, err := w.attestation(ctx, vendor, nonce)
	if err != nil {
		return stale, rewritten, err
	}
	if err := tap.attest(ctx, recorded, cookie); err != nil {
		return stale, rewritten, fmt.Errorf("the attestation to record was itself refused: %w", err)
	}

	if _, cookie, err = tap.auth(ctx, "snp"); err != nil {
		return stale, rewritten, err
	}
	if stale, err = w.Refused(ctx, tap.attest(ctx, recorded, cookie), fault.NonceMismatch); err != nil {
		return stale, rewritten, err
	}

	if nonce, cookie, err = tap.auth(ctx, "snp"); err != nil {
		return stale, rewritten, err
	}
	recorded["runtime-data"].(map[string]any)["nonce"] = nonce
	rewritten, err = w.Refused(ctx, tap.attest(ctx, recorded, cookie), fault.BindingMismatch)
	return stale, rewritten, err
}

// attestation makes the body of an attest call for a genuine guest.
func (w *World) attestation(ctx context.Context, vendor, nonce string) (map[string]any, error) {
	device := w.Path("recorded-guest")
	if _, err := os.Stat(device); err != nil {
		if _, err := w.Run(ctx, "measure", "sim", "guest", "--vendor", vendor, "--out", device,
			"--image", filepath.Join(w.Bin, "guest-agent"), "--cmdline", CommandLine); err != nil {
			return nil, err
		}
	}
	guest, err := snp.OpenSimulator(device)
	if err != nil {
		return nil, err
	}
	runtime, digest, err := runtimeData(nonce)
	if err != nil {
		return nil, err
	}
	data, err := measure.NewReportData(digest)
	if err != nil {
		return nil, err
	}
	evidence, err := guest.Evidence(ctx, data)
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"init-data":    nil,
		"runtime-data": runtime,
		"tee-evidence": map[string]any{"primary_evidence": evidence.Data, "additional_evidence": ""},
	}, nil
}
