package trust

import (
	"context"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/image/trust/outline"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

const (
	typeSignedBy = outline.SignedBy
	keyTypeGPG   = "GPGKeys"
)

func (r *requirement) parseSignedBy(doc *strictjson.Object) error {
	var keyType string
	if _, err := doc.Take("keyType", &keyType); err != nil {
		return err
	}
	if keyType != keyTypeGPG {
		return fmt.Errorf("keyType %.40q is not supported: %s is", keyType, keyTypeGPG)
	}
	if err := r.parseKeys(doc, keyDataBase64, "keyPath", "keyPaths", "keyData"); err != nil {
		return err
	}
	r.threshold = 1
	if _, err := doc.Take("threshold", &r.threshold); err != nil {
		return err
	}
	if r.threshold < 1 || r.threshold > maxKeys {
		return fmt.Errorf("threshold %d", r.threshold) // a keyring may hold several keys
	}
	for _, k := range r.keys {
		if k.path != "" {
			continue
		}
		if _, err := parseKeyring(k.data); err != nil {
			return err
		}
	}
	return r.parseConditions(doc, matchDigest)
}

// signedBy judges the signatures of the lookaside storage.
func (e *evaluation) signedBy(ctx context.Context, i int, r requirement) ([]Accepted, error) {
	t := tally{index: i, rule: r, subject: e.subject}
	ring := keyring{now: e.evidence.now}
	for _, src := range r.keys {
		raw, err := e.key(ctx, src)
		if err != nil {
			return nil, err
		}
		list, err := parseKeyring(raw)
		if err != nil {
			return nil, e.reject("the key "+src.path+" cannot be read", err)
		}
		for _, entity := range list {
			ring.entities = append(ring.entities, entity)
			t.wanted = append(t.wanted, pgpFingerprint(entity))
		}
	}
	aside, err := e.evidence.lookaside(ctx)
	if err != nil {
		return nil, e.reject("where signatures lie cannot be had", err)
	}
	if aside.place(e.subject.Reference) == "" {
		t.seen = append(t.seen, "no lookaside storage is configured for this image")
	}
	for _, d := range e.subject.digests() {
		files, err := aside.fetch(ctx, e.subject.Reference, d)
		if err != nil {
			return nil, fetchFault(err)
		}
		for _, raw := range files {
			t.openpgp(ring, raw)
		}
	}
	return e.conclude(&t)
}

// openpgp judges one signature file.
func (t *tally) openpgp(ring keyring, raw []byte) {
	payload, name, err := ring.open(raw)
	if err != nil {
		t.seen = append(t.seen, fmt.Sprintf("a signature that none of the keys vouches for (%v)", err))
		return
	}
	t.count(signer{name: name}, "", Signature{Payload: payload, Form: FormOpenPGP, Origin: OriginLookaside})
}
