package hub

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"sync"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/image/crypt"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// pullKeys holds the key-encryption keys of one pull. Layers that share a key
// ask the broker once. destroy wipes the keys when the pull is over, so that the
// next pull asks for permission again.
//
// Pulls share one puller, so that they share layers; what belongs to one of
// them travels in its context.
type pullKeys struct {
	fetch func(ctx context.Context, uri string) (secret.Bytes, error)

	mu     sync.Mutex
	keks   map[string]*kek
	opened map[string]bool // resources that opened something, as they were asked for

	pairs keyPairs
	ring  ring
}

// kek is one key-encryption key. Its lock is held while the broker is asked, so
// that the other layers of the same pull wait for the answer. A failure is not
// kept: the next layer may have more luck, or fail by itself.
type kek struct {
	mu  sync.Mutex
	key secret.Bytes
}

func newPullKeys(fetch func(context.Context, string) (secret.Bytes, error), pairs keyPairs) *pullKeys {
	return &pullKeys{fetch: fetch, keks: map[string]*kek{}, opened: map[string]bool{}, pairs: pairs}
}

type keysOfPull struct{}

func withKeys(ctx context.Context, keys *pullKeys) context.Context {
	return context.WithValue(ctx, keysOfPull{}, keys)
}

// unwrapper implements crypt.KeyUnwrapper with the keys of the pull that it is
// called for.
type unwrapper struct{}

// Unwrap opens a key packet, see [pullKeys.unwrap].
func (unwrapper) Unwrap(ctx context.Context, w crypt.WrappedKey) (secret.Bytes, error) {
	keys, ok := ctx.Value(keysOfPull{}).(*pullKeys)
	if !ok {
		return secret.Bytes{}, fault.New(fault.Internal, errors.New("a key was asked for outside of a pull"))
	}
	if !w.Scheme.IsProvider() {
		private, err := keys.unwrapForPair(ctx, w)
		if err == nil {
			keys.lent(keys.pairs.atBroker(ctx)...)
		}
		return private, err
	}
	return keys.unwrap(ctx, w.Packet)
}

// unwrap opens a key packet (guest-protocol 11.3). A refusal by the broker
// comes back as it is; a packet that does not open is image_key_refused.
func (u *pullKeys) unwrap(ctx context.Context, packet []byte) (secret.Bytes, error) {
	p, err := crypt.ParsePacket(packet)
	if err != nil {
		return secret.Bytes{}, fault.Newf(fault.ImageMalformed, "key packet: %w", err)
	}
	uri, err := keyURI(p.KID)
	if err != nil {
		return secret.Bytes{}, fault.New(fault.ImageMalformed, err)
	}
	u.mu.Lock()
	k, ok := u.keks[uri]
	if !ok {
		k = new(kek)
		u.keks[uri] = k
	}
	u.mu.Unlock()

	k.mu.Lock()
	defer k.mu.Unlock()
	if k.key.Len() == 0 {
		if k.key, err = u.fetch(ctx, forImage(ctx, uri)); err != nil {
			return secret.Bytes{}, fmt.Errorf("fetch key: %w", err)
		}
	}
	private, err := p.Open(k.key)
	if err != nil {
		return secret.Bytes{}, fault.Newf(fault.ImageKey, "key packet of %s: %w", uri, err)
	}
	u.lent(forImage(ctx, uri))
	return private, nil
}

// lent remembers what the image of this pull could be opened with.
func (u *pullKeys) lent(uris ...string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, uri := range uris {
		u.opened[uri] = true
	}
}

// used returns what was remembered.
func (u *pullKeys) used() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Sorted(maps.Keys(u.opened))
}

// AskForKeys asks the broker once more for the keys of an image that was pulled,
// and forgets them. Errors are *fault.Fault with a ticket.
func (h *Hub) AskForKeys(ctx context.Context, i PulledImage) error {
	for _, uri := range i.Keys {
		key, err := h.fetch(ctx, uri)
		key.Destroy()
		if err != nil {
			return h.refuser.Refuse(ctx, ObjectKey, uri, err)
		}
	}
	return nil
}

// UnwrapKey opens a key packet (guest-protocol 11.3) for a program of the guest
// that decrypts images itself. Keys that are bound to an image are not had this
// way. The caller owns the layer's key. Errors are *fault.Fault with a ticket.
func (h *Hub) UnwrapKey(ctx context.Context, packet []byte) (secret.Bytes, error) {
	keys := newPullKeys(h.fetchForWorkload, h.pairs)
	defer keys.destroy()
	private, err := keys.unwrap(ctx, packet)
	if err != nil {
		return secret.Bytes{}, h.refuser.Refuse(ctx, ObjectKey, "", err)
	}
	return private, nil
}

// forImage names the image that the key is wanted for: a broker hands a key that
// is bound to its image to nobody who names another one, or none.
func forImage(ctx context.Context, uri string) string {
	i, ok := crypt.ImageOf(ctx)
	if !ok {
		return uri
	}
	return uri + "?" + url.Values{api.QueryImage: {i.Digest}, api.QueryImageReference: {i.Reference}}.Encode()
}

// destroy wipes all keys. Nobody may be in unwrap any more.
func (u *pullKeys) destroy() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, k := range u.keks {
		k.key.Destroy()
	}
	clear(u.keks)
}

// keyURI makes the resource URI of a packet's key id. A host in it picks one of
// the configured brokers (package brokers). Keys are resources, so another
// plugin of the broker is refused.
func keyURI(kid string) (string, error) {
	kid, err := crypt.NormalizeKID(kid) // tools also write the bare "/repo/type/tag"
	if err != nil {
		return "", err
	}
	u, err := client.ParseResourceURI(kid)
	if err != nil {
		return "", fmt.Errorf("key id: %w", err)
	}
	if u.Plugin != client.DefaultPlugin || u.Query != "" {
		return "", fmt.Errorf("key id %q is not of the form kbs:///repository/type/tag", kid)
	}
	return u.String(), nil
}
