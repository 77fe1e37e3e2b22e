package hub

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/image/crypt"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

const maxImageKey = 64 << 10 // bytes of one private key

// keyPairs are the private keys of the configuration, for layers that are
// encrypted for a key pair (JWE, PKCS#7 and PKCS#11 packets).
type keyPairs struct {
	uris []string
	from locations
}

// ring is what one pull has of them. Its lock is held while they are fetched,
// as that of a kek is.
type ring struct {
	mu   sync.Mutex
	keys *crypt.Keyring
}

// atBroker are those of the key pairs that are resources, as they are asked for.
func (p keyPairs) atBroker(ctx context.Context) (uris []string) {
	for _, uri := range p.uris {
		if strings.HasPrefix(uri, "kbs") {
			uris = append(uris, p.request(ctx, uri))
		}
	}
	return uris
}

// request names the image that a pair at the broker is wanted for.
func (keyPairs) request(ctx context.Context, uri string) string {
	if strings.HasPrefix(uri, "kbs:///") && !strings.Contains(uri, "?") {
		return forImage(ctx, uri)
	}
	return uri
}

// unwrapForPair opens a packet for one of the key pairs. They are fetched for
// the first such packet of the pull; a failure is not kept.
func (u *pullKeys) unwrapForPair(ctx context.Context, w crypt.WrappedKey) (secret.Bytes, error) {
	if len(u.pairs.uris) == 0 {
		return secret.Bytes{}, fault.Newf(fault.ImageKey, "no private keys are configured; a key wrapped as %.40q: %w", w.Scheme, crypt.ErrScheme)
	}
	keys, err := u.keyring(ctx)
	if err != nil {
		return secret.Bytes{}, err
	}
	private, err := keys.Unwrap(ctx, w)
	if err != nil {
		return secret.Bytes{}, fault.Newf(fault.ImageKey, "key packet: %w", err)
	}
	return private, nil
}

func (u *pullKeys) keyring(ctx context.Context) (*crypt.Keyring, error) {
	u.ring.mu.Lock()
	defer u.ring.mu.Unlock()
	if u.ring.keys != nil {
		return u.ring.keys, nil
	}
	keys := new(crypt.Keyring)
	for _, uri := range u.pairs.uris {
		if err := u.pairs.add(ctx, keys, uri); err != nil {
			return nil, fmt.Errorf("private key %s: %w", uri, err)
		}
	}
	u.ring.keys = keys
	return keys, nil
}

// add fetches one key. The broker learns which image it is for, because a
// private key can be bound to images as a key-encrypting key can.
func (p keyPairs) add(ctx context.Context, keys *crypt.Keyring, uri string) error {
	doc, err := p.from.read(ctx, p.request(ctx, uri), maxImageKey)
	if err != nil {
		return err
	}
	defer doc.Destroy()
	if err := keys.Add(doc); err != nil {
		return fault.New(fault.ImageKey, err)
	}
	return nil
}
