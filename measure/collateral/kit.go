package collateral

import (
	"cmp"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/veraison/go-cose"

	"github.com/vouchsafe-cc/vouchsafe/measure/internal/sign1"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// Kit is collateral on its way to a machine without a network. Each item is
// signed by its vendor; the kit is signed by whoever made it, because a vendor
// does not say which of its items are the newest and which belong there: who
// could change a kit could hold back news of a revocation.
type Kit struct {
	Format string    `json:"format"` // kitFormat
	Made   time.Time `json:"made"`
	Items  []Item    `json:"items"` // each name once
}

const (
	kitFormat  = "vouchsafe-collateral-kit/1"
	kitContent = "application/vnd.vouchsafe.collateral-kit+json"
	maxKit     = 256 << 20
)

// ErrKit says that a file is no kit, or was signed by nobody who is trusted.
var ErrKit = errors.New("not a kit that is trusted")

// Pack makes a kit of items, signed with a key: COSE_Sign1 over JSON.
func Pack(items []Item, made time.Time, key crypto.Signer) ([]byte, error) {
	k := Kit{Format: kitFormat, Made: made.UTC(), Items: slices.Clone(items)}
	if err := k.valid(); err != nil {
		return nil, err
	}
	payload, err := json.Marshal(k)
	if err != nil {
		return nil, err
	}
	raw, err := sign1.Sign(payload, kitContent, "", key)
	if err == nil && len(raw) > maxKit {
		err = fmt.Errorf("the kit has %d bytes, at most %d are allowed", len(raw), maxKit)
	}
	return raw, err
}

// Unpack opens a kit that one of the keys signed. The items' own signatures
// are left to [Store.Import]. An error wraps [ErrKit].
func Unpack(raw []byte, keys ...crypto.PublicKey) (Kit, error) {
	var k Kit
	if len(raw) > maxKit {
		return k, fmt.Errorf("%w: it has %d bytes, at most %d are allowed", ErrKit, len(raw), maxKit)
	}
	m := cose.NewSign1Message()
	if err := m.UnmarshalCBOR(raw); err != nil {
		return k, fmt.Errorf("%w: %w", ErrKit, err)
	}
	if m.Headers.Protected[cose.HeaderLabelContentType] != kitContent {
		return k, fmt.Errorf("%w: it is signed, but as something else", ErrKit)
	}
	errs := []error{errors.New("the signature is not by any key that was given")}
	signed := false
	for _, key := range keys {
		err := sign1.Verify(m, key)
		signed = signed || err == nil
		errs = append(errs, err)
	}
	if !signed {
		return k, fmt.Errorf("%w: %w", ErrKit, errors.Join(errs...))
	}
	if err := strictjson.Decode(m.Payload, &k); err != nil {
		return k, fmt.Errorf("%w: %w", ErrKit, err)
	}
	if err := k.valid(); err != nil {
		return k, fmt.Errorf("%w: %w", ErrKit, err)
	}
	return k, nil
}

func (k Kit) valid() error {
	if k.Format != kitFormat {
		return fmt.Errorf("the format is %q, want %q", k.Format, kitFormat)
	}
	names := make([]Name, 0, len(k.Items))
	for _, i := range k.Items {
		if _, err := i.Name.parse(); err != nil {
			return err
		}
		names = append(names, i.Name)
	}
	slices.SortFunc(names, cmp.Compare[Name])
	for i := 1; i < len(names); i++ {
		if names[i] == names[i-1] {
			return fmt.Errorf("%s comes twice", names[i])
		}
	}
	return nil
}
